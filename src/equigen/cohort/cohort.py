"""The cohort: a checked table of images with patients, splits, labels and attributes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.cohort.assembly import ReadOptions, assemble, normalize_text_columns, parse_problem, set_root
from equigen.cohort.from_table import folder_values, table_values
from equigen.cohort.images.arrow import is_dataset
from equigen.cohort.levels import AttributeSpec, LabelSpec
from equigen.cohort.prompts import optional_text, prompt_columns, prompt_templates, prompt_texts
from equigen.cohort.spec import CohortSpec, parse_spec
from equigen.cohort.summary import SMALL, count_cells, count_text
from equigen.cohort.tables.reader import is_table
from equigen.config import read_yaml
from equigen.errors import InputError, Problem, suggestion
from equigen.files import hash_value, read_json, write_json
from equigen.parquet import read_parquet, write_parquet

TABLE, SHEET = "cohort.parquet", "cohort.json"


def seal(sheet: dict[str, Any]) -> str:
    """Hash of a sheet without its seal and its ``root``, which changes where images are moved."""
    return hash_value({name: value for name, value in sheet.items() if name not in ("seal", "root")})


def read_saved(folder: Path) -> dict[str, Any]:
    """Return the JSON of a saved cohort; raises InputError when it or the table is missing, or it is damaged."""
    missing = [name for name in (TABLE, SHEET) if not (folder / name).is_file()]
    if missing:
        problem = Problem("there is no such file", "run the cohort stage", file=str(folder / missing[0]))
        raise InputError("This is no saved cohort.", [problem])
    sheet: dict[str, Any] = read_json(folder / SHEET)
    if not isinstance(sheet, dict) or sheet.get("seal", "") not in ("", seal(sheet)):
        problem = Problem("is not what was written", "run `equigen cohort check` again", file=str(folder / SHEET))
        raise InputError("The saved cohort is damaged.", [problem])
    return sheet


def saved_spec(sheet: dict[str, Any]) -> CohortSpec:
    """Return the specification; roles that are None are not saved, and ``patient`` is required."""
    return parse_spec({"patient": None, **sheet["spec"]}, SHEET)


def saved_labels(sheet: dict[str, Any]) -> dict[str, LabelSpec]:
    """Return the labels by name."""
    return {name: LabelSpec(**label) for name, label in sheet["labels"].items()}


def saved_attributes(sheet: dict[str, Any]) -> dict[str, AttributeSpec]:
    """Return the attributes by name."""
    return {name: AttributeSpec(**attribute) for name, attribute in sheet["attributes"].items()}


def mismatch_error(folder: Path) -> InputError:
    """Return the error of a table and a JSON file that do not belong together."""
    problem = Problem(
        "the table and cohort.json do not belong together", "run the cohort stage again", file=str(folder / TABLE)
    )
    return InputError("The saved cohort is damaged.", [problem])


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

    def __repr__(self) -> str:
        """Name, size, roles and splits in two lines."""
        splits = ", ".join(f"{name} {count:,}" for name, count in self.frame["split"].value_counts(sort=False).items())
        labels, attributes = ", ".join(self.labels) or "none", ", ".join(self.attributes) or "none"
        return (
            f"Cohort '{self.name}': {count_text(self.frame)}\n"
            f"labels: {labels}; attributes: {attributes}; splits: {splits}"
        )

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
        file, options = Path(path), ReadOptions(quarantine, check_images, show_progress)
        return cls._build(parse_spec(read_yaml(file), str(file)), file.parent, options)

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
        """Read as ``read`` does, from a mapping (of a study, say).

        Paths are relative to ``base``; errors name ``source`` as the file.
        """
        options = ReadOptions(quarantine, check_images, show_progress)
        return cls._build(parse_spec(values, source), Path(base), options)

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
        """Read a cohort for evaluation only from a table, a saved dataset or a folder of images, without a YAML file.

        All images are in split "test".

        Args:
            table: csv, tsv or parquet; a folder that the library ``datasets`` saved; or a folder whose images (also in
                its subfolders) are each a patient of their own.
            groups: columns that are attributes, or attribute name -> column. A folder has none.
            labels: columns with one diagnosis per image, or label name -> column. A folder has none; several findings
                in one image need a cohort.yaml.
            image: column with the image's path, or of a dataset with the image.
            patient: column with the patient; None where every image is its own patient.
            root: folder of the images, relative to the table.
            quarantine: as in ``read``.
            check_images: as in ``read``.
            show_progress: as in ``read``.

        Raises:
            InputError: as ``read`` does; groups of a folder; a folder without images.

        """
        path, options = Path(table), ReadOptions(quarantine, check_images, show_progress)
        if path.is_dir() and not is_dataset(path):
            values, listing, remarks = folder_values(path, [*groups, *labels])
            cohort = cls._build(parse_spec(values, str(path)), path, options, listing)
            return replace(cohort, warnings=[*remarks, *cohort.warnings])
        values = table_values(path, groups, labels, image, patient, str(root))
        return cls._build(parse_spec(values, str(path)), path.parent, options)

    @classmethod
    def _build(cls, spec: CohortSpec, base: Path, options: ReadOptions, table: pd.DataFrame | None = None) -> Cohort:
        result = assemble(spec, base, options, table)
        return cls(
            spec.name,
            spec,
            result.root,
            result.frame,
            result.labels,
            result.attributes,
            result.quarantined,
            result.warnings,
        )

    @cached_property
    def hash(self) -> str:
        """SHA-256 over the roles, the levels and every row, without the paths of the files."""
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
        """Whether the images are phantoms, which every result must state."""
        return self.spec.phantom

    def where(self, mask: NDArray[np.bool_] | pd.Series) -> Cohort:
        """Return the cohort of the rows where ``mask`` [N] is true."""
        return replace(self, frame=self.frame[np.asarray(mask, dtype=bool)].reset_index(drop=True))

    def split(self, *names: str, domain: str | None = None) -> Cohort:
        """Return the cohort of some splits, in one domain ("id" or "ood") or in both."""
        check_choices(names, ("train", "val", "test"), "split")
        check_choices([domain] if domain is not None else [], ("id", "ood"), "domain")
        mask = self.frame["split"].isin(names)
        return self.where(mask if domain is None else mask & (self.frame["domain"] == domain))

    def targets(self, label: str) -> tuple[NDArray[np.float32], list[str]]:
        """Return the truth of a label as 0/1 numbers, [N, K] float32, NaN where unknown, and the K names.

        Binary: K = 1, the positive level. Multiclass: one column per level. Multilabel: one column per finding.
        """
        check_choices([label], self.labels, "label")
        spec, cells = self.labels[label], self.frame[f"label.{label}"]
        names = spec.levels[1:] if spec.kind == "binary" else spec.levels
        truth = np.full((len(cells), len(names)), np.nan, dtype=np.float32)
        for index, cell in enumerate(cells):
            if cell is not None:
                present = set(cell.split("|")) if spec.kind == "multilabel" else {cell}
                truth[index] = [name in present for name in names]
        return truth, list(names)

    def groups(self, attribute: str) -> NDArray[np.int64]:
        """Return the index of each image's group in the attribute's levels, [N]; -1 = unknown."""
        check_choices([attribute], self.attributes, "attribute")
        index = {level: position for position, level in enumerate(self.attributes[attribute].levels)}
        return np.array([index.get(cell, -1) for cell in self.frame[f"attr.{attribute}"]], dtype=np.int64)

    def counts(self, attribute: str | None = None, small: int = SMALL) -> pd.DataFrame:
        """Count images and patients per diagnosis x group x split; see ``equigen.cohort.summary.count_cells``."""
        check_choices([attribute] if attribute is not None else [], self.attributes, "attribute")
        return count_cells(self, attribute, small)

    def prompt(self, row: Mapping[str, Any]) -> str | None:
        """Return the prompt of one row (keys ``label.<name>``, ``attr.<name>`` or ``<name>``), or None.

        None where the cohort has no prompt. Of several templates the first is filled in (see
        ``equigen.cohort.prompts.Template``); an empty list of findings is written "no finding". Where prompts are a
        column, it is the row's own (key ``prompt``).
        """
        if prompt_columns(self.spec.prompt):
            return optional_text(row.get("prompt"))
        for template in prompt_templates(self.spec.prompt):
            return template.fill(prompt_texts(template.names, row))
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
        """Read what ``save`` wrote; ``root`` is the folder of the images if they were moved.

        Raises:
            InputError: a file is missing, or the two files do not belong together.

        """
        path = Path(folder)
        sheet = read_saved(path)
        image_root = Path(root) if root is not None else Path(sheet["root"])
        frame = set_root(normalize_text_columns(read_parquet(path / TABLE)), image_root)
        problems, warnings = ([parse_problem(item) for item in sheet[key]] for key in ("problems", "warnings"))
        levels = saved_labels(sheet), saved_attributes(sheet)
        cohort = cls(sheet["name"], saved_spec(sheet), image_root, frame, *levels, problems, warnings)
        if cohort.hash != sheet["hash"]:
            raise mismatch_error(path)
        return cohort


def check_choices(names: Sequence[str], allowed: Collection[str], kind: str) -> None:
    """Raise ``InputError`` for names that are not allowed, suggesting the closest one."""
    problems = [Problem(f"unknown {kind} '{name}'", suggestion(name, allowed)) for name in names if name not in allowed]
    if problems:
        raise InputError(f"There is no such {kind}.", problems)


def is_cohort_path(path: Path) -> bool:
    """Return whether a path is a cohort: a YAML file, or a folder with a cohort.yaml or a saved cohort."""
    return path.suffix.lower() in {".yaml", ".yml"} or any(
        (path / name).is_file() for name in ("cohort.parquet", "cohort.yaml")
    )


def open_cohort(path: Path, *, quarantine: bool = False) -> Cohort:
    """Open a cohort.yaml, a folder with one, or a saved cohort.

    Raises:
        InputError: the path is a table, or a folder without a cohort; errors of the cohort.

    """
    if (path / "cohort.parquet").is_file():
        return Cohort.load(path)
    if is_table(path) and not path.is_dir():
        problem = Problem(
            "is a table, not a description of one",
            "write a cohort.yaml that says which column is the image, the patient, the label; see the README",
            file=str(path),
        )
        raise InputError("A cohort is described by a YAML file.", [problem])
    if path.is_dir() and not (path / "cohort.yaml").is_file():
        problem = Problem(
            "holds neither cohort.yaml nor cohort.parquet",
            "give a cohort.yaml, or a folder that `equigen cohort check` wrote",
            file=str(path),
        )
        raise InputError("There is no cohort here.", [problem])
    return Cohort.read(path / "cohort.yaml" if path.is_dir() else path, quarantine=quarantine)
