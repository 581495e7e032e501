"""The cohort: a checked, split table of images that every later stage starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.cohort.assembly import Reading, as_text, assemble, problem_from, with_root
from equigen.cohort.from_table import folder_values, table_values
from equigen.cohort.images.arrow import is_dataset
from equigen.cohort.levels import AttributeSpec, LabelSpec
from equigen.cohort.parse import parse_spec, read_yaml
from equigen.cohort.prompts import optional_text, prompt_columns, prompt_templates, prompt_words
from equigen.cohort.saved_cohort import (
    SHEET,
    TABLE,
    mismatch_error,
    read_saved,
    saved_attributes,
    saved_labels,
    saved_spec,
    seal,
)
from equigen.cohort.spec import CohortSpec, suggestion
from equigen.cohort.summary import SMALL, count_cells
from equigen.errors import InputError, Problem
from equigen.files import hash_value, read_parquet, write_json, write_parquet


@dataclass(frozen=True, eq=False)
class Cohort:
    """Images with their patients, sites, splits, diagnoses and groups.

    ``frame`` has one row per image, with columns: ``row`` (of the user's table, as a spreadsheet counts),
    ``image`` (relative to ``root``), ``path`` (absolute), ``sha256`` (of the file), ``patient``, ``site`` (or
    None), ``split`` (train, val, test), ``domain`` (id, ood; ood images are all in test), then
    ``label.<name>`` and ``attr.<name>`` with level names (None = unknown). A multilabel cell joins the
    present findings by "|" in level order; "" = none present.
    """

    name: str
    spec: CohortSpec
    root: Path
    frame: pd.DataFrame
    labels: dict[str, LabelSpec]
    attributes: dict[str, AttributeSpec]
    quarantined: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    @classmethod
    def read(
        cls,
        path: str | Path,
        quarantine: bool = False,
        check_images: bool = True,
        show_progress: bool = True,
    ) -> Cohort:
        """Read and check ``cohort.yaml`` and everything it names; paths in it are relative to it.

        Args:
            path: the YAML file.
            quarantine: leave bad rows out, and keep their problems in ``.quarantined``, instead of raising.
            check_images: decode every image in full (files are hashed in any case).
            show_progress: show a progress bar on standard error.

        Raises:
            InputError: with every problem of the specification, or every problem of the table and images.

        """
        file, reading = Path(path), Reading(quarantine, check_images, show_progress)
        return cls._build(parse_spec(read_yaml(file), str(file)), file.parent, reading)

    check = read

    @classmethod
    def from_spec(
        cls,
        values: Mapping[str, Any],
        base: str | Path,
        *,
        quarantine: bool = False,
        check_images: bool = True,
        show_progress: bool = True,
        source: str = "cohort",
    ) -> Cohort:
        """Like ``read``, from a mapping (of a study, say).

        ``base`` is what its paths are relative to; ``source`` is the file that errors name.
        """
        reading = Reading(quarantine, check_images, show_progress)
        return cls._build(parse_spec(values, source), Path(base), reading)

    @classmethod
    def from_table(
        cls,
        table: str | Path,
        groups: Sequence[str] | Mapping[str, str] = (),
        *,
        labels: Sequence[str] | Mapping[str, str] = (),
        image: str = "file",
        patient: str | None = "patient",
        root: str | Path = ".",
        quarantine: bool = False,
        check_images: bool = True,
        show_progress: bool = True,
    ) -> Cohort:
        """A cohort for evaluation alone, from a table, a saved dataset or a folder of images, without a YAML file.

        Everything is in split "test".

        Args:
            table: csv, tsv or parquet; a folder that the library ``datasets`` saved; or a folder whose images (also in
                its subfolders) are each a patient of their own.
            groups: columns that are attributes, or attribute name -> column. A folder has none.
            labels: columns with one diagnosis per image, or label name -> column. A folder has none; several findings
                in one image need a cohort.yaml.
            image: column with the image's path, or of a dataset with the image.
            patient: column with the patient; None where every image is its own patient.
            root: what the paths are relative to, itself relative to the table.
            quarantine: as in ``read``.
            check_images: as in ``read``.
            show_progress: as in ``read``.

        Raises:
            InputError: as ``read`` does; groups of a folder; a folder without images.

        """
        place, reading = Path(table), Reading(quarantine, check_images, show_progress)
        if place.is_dir() and not is_dataset(place):
            values, listing, remarks = folder_values(place, [*groups, *labels])
            found = cls._build(parse_spec(values, str(place)), place, reading, listing)
            return replace(found, warnings=[*remarks, *found.warnings])
        values = table_values(place, groups, labels, image, patient, str(root))
        return cls._build(parse_spec(values, str(place)), place.parent, reading)

    @classmethod
    def _build(
        cls, spec: CohortSpec, base: Path, reading: Reading, table: pd.DataFrame | None = None
    ) -> Cohort:
        made = assemble(spec, base, reading, table)
        return cls(
            spec.name,
            spec,
            made.root,
            made.frame,
            made.labels,
            made.attributes,
            made.quarantined,
            made.warnings,
        )

    @cached_property
    def hash(self) -> str:
        """SHA-256 over the roles, the levels and every row; where the files lie is left out."""
        frame = self.frame.drop(columns="path")
        rows = {name: frame[name].tolist() for name in frame.columns}
        roles = self.spec.model_dump(mode="json", exclude={"table", "image"})
        return hash_value({"spec": roles, "levels": self._levels(), "frame": rows})

    def _levels(self) -> dict[str, Any]:
        return {
            "labels": {name: asdict(label) for name, label in self.labels.items()},
            "attributes": {name: asdict(attribute) for name, attribute in self.attributes.items()},
        }

    def __len__(self) -> int:
        """Number of images."""
        return len(self.frame)

    @property
    def phantom(self) -> bool:
        """Whether the images are phantoms, so that every number about them must say so."""
        return self.spec.phantom

    def where(self, mask: NDArray[np.bool_] | pd.Series) -> Cohort:
        """The rows where ``mask`` [N] is true."""
        return replace(self, frame=self.frame[np.asarray(mask, dtype=bool)].reset_index(drop=True))

    def split(self, *names: str, domain: str | None = None) -> Cohort:
        """The images of some splits, of one domain ("id" or "ood") or of both."""
        _check_words(names, ("train", "val", "test"), "split")
        _check_words([domain] if domain is not None else [], ("id", "ood"), "domain")
        mask = self.frame["split"].isin(names)
        return self.where(mask if domain is None else mask & (self.frame["domain"] == domain))

    def targets(self, label: str) -> tuple[NDArray[np.float32], list[str]]:
        """Truth of a label as 0/1 numbers, [N, K] float32, NaN where unknown, and the K names.

        Binary: K = 1, the positive level. Multiclass: one column a level. Multilabel: one column a finding.
        """
        _check_words([label], self.labels, "label")
        spec, cells = self.labels[label], self.frame[f"label.{label}"]
        names = spec.levels[1:] if spec.kind == "binary" else spec.levels
        truth = np.full((len(cells), len(names)), np.nan, dtype=np.float32)
        for index, cell in enumerate(cells):
            if cell is not None:
                present = set(cell.split("|")) if spec.kind == "multilabel" else {cell}
                truth[index] = [name in present for name in names]
        return truth, list(names)

    def groups(self, attribute: str) -> NDArray[np.int64]:
        """Index of each image's group in the attribute's levels, [N]; -1 = unknown."""
        _check_words([attribute], self.attributes, "attribute")
        index = {level: position for position, level in enumerate(self.attributes[attribute].levels)}
        return np.array([index.get(cell, -1) for cell in self.frame[f"attr.{attribute}"]], dtype=np.int64)

    def counts(self, attribute: str | None = None, small: int = SMALL) -> pd.DataFrame:
        """Images and patients per diagnosis x group x split; see ``equigen.cohort.summary.count_cells``."""
        _check_words([attribute] if attribute is not None else [], self.attributes, "attribute")
        return count_cells(self, attribute, small)

    def prompt(self, row: Mapping[str, Any]) -> str | None:
        """The prompt of one row (keys ``label.<name>``, ``attr.<name>`` or ``<name>``), or None.

        None where the cohort has no prompt. Of several templates the first is filled in (see
        ``equigen.cohort.prompts.Template``); an empty list of findings is written "no finding". Where prompts are a
        column, it is the row's own (key ``prompt``).
        """
        if prompt_columns(self.spec.prompt):
            return optional_text(row.get("prompt"))
        for template in prompt_templates(self.spec.prompt):
            return template.fill(prompt_words(template.names, row))
        return None

    def save(self, folder: str | Path) -> Path:
        """Write ``cohort.parquet`` and ``cohort.json`` (roles, levels, counts, problems, version)."""
        out = Path(folder)
        write_parquet(out / TABLE, self.frame)
        sheet = {
            "name": self.name,
            "equigen": version("equigen"),
            "hash": self.hash,
            "phantom": self.phantom,
            "root": str(self.root),
            "spec": self.spec.model_dump(mode="json", exclude_none=True),
            **self._levels(),
            "images": len(self),
            "patients": int(self.frame["patient"].nunique()),
            "counts": self.counts().to_dict("records"),
            "quarantined": len({problem.row for problem in self.quarantined}),
            "problems": [asdict(problem) for problem in self.quarantined],
            "warnings": [asdict(problem) for problem in self.warnings],
        }
        write_json(out / SHEET, {**sheet, "seal": seal(sheet)})
        return out

    @classmethod
    def load(cls, folder: str | Path, root: str | Path | None = None) -> Cohort:
        """Read what ``save`` wrote; ``root`` says where the images lie now, if they were moved.

        Raises:
            InputError: a file is missing, or the two are not of one run.

        """
        place = Path(folder)
        sheet = read_saved(place)
        here = Path(root) if root is not None else Path(sheet["root"])
        frame = with_root(as_text(read_parquet(place / TABLE)), here)
        problems, warnings = ([problem_from(item) for item in sheet[key]] for key in ("problems", "warnings"))
        levels = saved_labels(sheet), saved_attributes(sheet)
        found = cls(sheet["name"], saved_spec(sheet), here, frame, *levels, problems, warnings)
        if found.hash != sheet["hash"]:
            raise mismatch_error(place)
        return found


def _check_words(words: Sequence[str], allowed: Sequence[str] | Mapping[str, Any], what: str) -> None:
    """Refuse a word that is not allowed, naming the nearest."""
    problems = [
        Problem(f"unknown {what} '{word}'", suggestion(word, allowed)) for word in words if word not in allowed
    ]
    if problems:
        raise InputError(f"There is no such {what}.", problems)
