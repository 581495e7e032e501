"""Guidance per group as saved by `calibrate`, and its application to a plan."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.errors import InputError, Problem
from equigen.files import read_json, write_json
from equigen.quality import INTERSECTION_SEPARATOR
from equigen.synthesis.policies import Reference

Objective = Literal["worst", "gap"]
Choice = Literal["group", "common", "default"]
Level = float | Literal["calibrated", "common"]
CALIBRATION_FILE = "calibration.json"
DEFAULT_MARK = "default_guidance"  # attribute of a plan for which no guidance was named
DEFAULT = 2.0  # the guidance of `plan` and of `equigen generate`, to which a calibration is compared


@dataclass(frozen=True)
class Guidance:
    """The guidance chosen for one generator and the settings of its search: the content of ``calibration.json``."""

    attribute: str  # an attribute, or an intersection such as "sex & age"
    groups: dict[str, float]  # guidance of each group with enough patients
    common: float  # the best single guidance for all groups, by the same objective and data
    default: float  # guidance without a calibration
    objective: Objective  # "worst" or "gap"
    gap_weight: float  # multiple of the gap in the objective "gap"
    bounds: tuple[float, float]  # least and greatest guidance
    budget: int  # greatest number of images of the search
    spent: int  # images that the search generated
    images: int  # of one group in one evaluation
    steps: int  # of the sampler
    seed: int
    encoder: str  # identity of the encoder
    cohort: str  # name of the cohort
    cohort_hash: str  # of the tuning images
    split: str  # of the tuning images
    generator: str  # hash of the generator
    left_out: dict[str, str]  # groups that take the common guidance, with the reason
    equigen: str  # version
    against: Reference = "images"  # real images or their reconstructions by the autoencoder

    def for_rows(self, rows: pd.DataFrame, choice: Choice = "group") -> NDArray[np.float64]:
        """[N] guidance of each row of a plan; rows of other or unknown groups take the common guidance.

        Raises InputError for an unknown ``choice`` or a missing column of the attribute.
        """
        if choice not in get_args(Choice):
            problem = Problem(f"'{choice}'", f"use one of {', '.join(get_args(Choice))}")
            raise InputError("There is no such choice of guidance.", [problem])
        if choice != "group":
            return np.full(len(rows), self.common if choice == "common" else self.default)
        return np.array([self.groups.get(group, self.common) for group in group_names(rows, self.attribute)], float)

    def save(self, folder: str | Path) -> Path:
        """Write ``calibration.json`` into a folder."""
        path = Path(folder) / CALIBRATION_FILE
        write_json(path, asdict(self))
        return path


class Calibrated(Protocol):
    """An object with a chosen guidance, such as a ``Calibration``."""

    @property
    def guidance(self) -> Guidance:
        """The chosen guidance."""


def group_names(rows: pd.DataFrame, attribute: str) -> list[str]:
    """Group of each row [N], ``level & level`` for an intersection, "" where unknown.

    >>> group_names(pd.DataFrame({"attr.sex": ["F", None], "attr.age": ["old", "old"]}), "sex & age")
    ['F & old', '']
    """
    columns = [f"attr.{name}" for name in attribute_parts(attribute)]
    absent = [name for name in columns if name not in rows]
    if absent:
        problems = [Problem("is missing", "give the attribute's column", column=name) for name in absent]
        raise InputError(f"Groups of '{attribute}' cannot be told apart.", problems)
    complete = rows[columns].notna().all(axis=1)
    levels = rows[columns].astype(str).itertuples(index=False)
    return [INTERSECTION_SEPARATOR.join(row) if valid else "" for row, valid in zip(levels, complete, strict=True)]


def attribute_parts(attribute: str) -> list[str]:
    """Names of the attributes in an intersection; one name for a single attribute."""
    return [name.strip() for name in attribute.split(INTERSECTION_SEPARATOR.strip())]


def apply_guidance(rows: pd.DataFrame, calibration: Guidance | Calibrated, choice: Choice = "group") -> pd.DataFrame:
    """A copy of a plan with the guidance that was chosen for the group of each row.

    Args:
        rows: a plan (``equigen.plan``), with the columns ``attr.<name>`` of the calibrated attribute.
        calibration: the result of ``calibrate`` or ``load_calibration``.
        choice: "group" (groups without a calibration take the common guidance), "common" (one guidance for all) or
            "default" (the guidance without a calibration).

    Raises:
        InputError: a column of the attribute is missing, ``choice`` is unknown, or the rows are counterfactual pairs in
            the calibrated attribute, whose images may differ in nothing else.

    """
    guidance = calibration if isinstance(calibration, Guidance) else calibration.guidance
    if choice == "group":
        changed = set(rows["changed"].dropna().astype(str)) if "changed" in rows else set()
        for name in sorted(changed & set(attribute_parts(guidance.attribute))):
            message = (
                f"the pairs are to differ in {name} alone, and guidance by {guidance.attribute} would differ with it"
            )
            problem = Problem(message, "take one guidance for all: common, or a number")
            raise InputError("Guidance per group cannot be used for these counterfactual pairs.", [problem])
    return rows.assign(guidance=guidance.for_rows(rows, choice))


def set_guidance(
    rows: pd.DataFrame, guidance: Level | None, folder: Path | None, generator: str
) -> tuple[pd.DataFrame, Guidance | None]:
    """The plan with the guidance that ``generate`` uses, and the calibration that it comes from, None for none.

    Args:
        rows: a plan.
        guidance: a number for all rows; "calibrated", the guidance of each row's group; "common", the best one for all
            groups; None: "calibrated" where the folder has a ``calibration.json`` and the plan was made by ``plan``
            without a guidance, else the plan's guidance.
        folder: of the generator; None for a generator in memory, which has no calibration.
        generator: hash of the generator.

    Raises:
        InputError: another word, a number below 0, a calibration that does not exist or is of another generator, and
            the errors of ``apply_guidance``.

    """
    if guidance is None:
        default = rows.attrs.get(DEFAULT_MARK) and bool((rows["guidance"] == DEFAULT).all())
        if folder is None or not default or not (folder / CALIBRATION_FILE).is_file():
            return rows, None
        guidance = "calibrated"
    if guidance in ("calibrated", "common"):
        if folder is None:
            problem = Problem(f"guidance '{guidance}' of a generator in memory", "give the generator's folder")
            raise InputError("This generator is not calibrated.", [problem])
        calibration = load_calibration(folder, generator)
        return apply_guidance(rows, calibration, "common" if guidance == "common" else "group"), calibration
    if isinstance(guidance, str) or not 0 <= guidance < math.inf:
        problem = Problem(f"'{guidance}'", "give a number of 0 or more, calibrated, or common")
        raise InputError("The guidance cannot be used.", [problem])
    return rows.assign(guidance=float(guidance)), None


def load_calibration(folder: str | Path, generator: str | None = None) -> Guidance:
    """Read the ``calibration.json`` of a generator's folder.

    Args:
        folder: of a generator or of a calibration.
        generator: hash of the generator to use it with; None skips the check.

    Raises:
        InputError: the file is missing, damaged, or of a generator with another hash.

    """
    path = Path(folder) / CALIBRATION_FILE
    if not path.is_file():
        problem = Problem("there is no such file", "run `equigen calibrate` first", file=str(path))
        raise InputError("This generator is not calibrated.", [problem])
    try:
        record = {"against": "images", **read_json(path)}  # absent in files of earlier versions
        record = {field.name: record[field.name] for field in fields(Guidance)}
        record["groups"] = {str(name): float(value) for name, value in record["groups"].items()}
        low, high = map(float, record["bounds"])
        guidance = Guidance(**{**record, "common": float(record["common"]), "bounds": (low, high)})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        problem = Problem(f"cannot be read ({error})", "delete it and run `equigen calibrate` again", file=str(path))
        raise InputError("The calibration is damaged.", [problem]) from error
    if generator is not None and guidance.generator != generator:
        problem = Problem(
            f"was made for generator {guidance.generator}, this one is {generator}",
            "run `equigen calibrate` for this generator, delete the file, or name a guidance yourself",
            file=str(path),
        )
        raise InputError("The calibration belongs to another generator.", [problem])
    return guidance
