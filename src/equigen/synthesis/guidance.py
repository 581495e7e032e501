"""Guidance chosen per group: what `calibrate` saves with a generator, and how a plan takes it up."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.errors import InputError, Problem
from equigen.files import read_json, write_json
from equigen.quality import BETWEEN

Objective = Literal["worst", "gap"]
Against = Literal["images", "reconstructions"]
Which = Literal["group", "common", "default"]
FILE = "calibration.json"
DEFAULT = 2.0  # the guidance of `plan` and of `equigen generate`, which a calibration is held against


@dataclass(frozen=True)
class Guidance:
    """What was chosen for one generator, and on what: the content of ``calibration.json``."""

    attribute: str                # an attribute, or an intersection such as "sex & age"
    groups: dict[str, float]      # guidance of each group that could be measured
    common: float                 # the best single guidance for all groups, by the same objective and data
    default: float                # what a generator without a calibration takes
    objective: Objective          # "worst" or "gap"
    gap_weight: float             # multiple of the gap in the objective "gap"
    bounds: tuple[float, float]   # least and greatest guidance
    budget: int                   # images that the search was allowed to make
    spent: int                    # images that it made
    images: int                   # images of one group in one evaluation
    steps: int                    # of the sampler
    seed: int
    encoder: str                  # identity of the encoder
    cohort: str                   # name of the cohort
    cohort_hash: str              # of the rows tuned on
    split: str                    # of the rows tuned on
    generator: str                # hash of the generator
    left_out: dict[str, str]      # groups without a guidance of their own, and why; they take the common one
    equigen: str                  # version
    against: Against = "images"   # what was measured against: real images, or these as the autoencoder keeps them

    def of(self, rows: pd.DataFrame, which: Which = "group") -> NDArray[np.float64]:
        """[N] guidance of each row of a plan; rows of other or unknown groups take the common one.

        Raises InputError for an unknown ``which``, or a column of the attribute that is missing.
        """
        if which not in get_args(Which):
            problem = Problem(f"'{which}'", f"use one of {', '.join(get_args(Which))}")
            raise InputError("There is no such choice of guidance.", [problem])
        if which != "group":
            return np.full(len(rows), self.common if which == "common" else self.default)
        return np.array([self.groups.get(group, self.common) for group in group_names(rows, self.attribute)], float)

    def save(self, folder: str | Path) -> Path:
        """Write ``calibration.json`` into a folder."""
        path = Path(folder) / FILE
        write_json(path, asdict(self))
        return path


class Calibrated(Protocol):
    """Whatever has a chosen guidance: a ``Calibration``."""

    @property
    def guidance(self) -> Guidance:
        """What was chosen."""


def group_names(rows: pd.DataFrame, attribute: str) -> list[str]:
    """[N] group of each row; of an intersection ``level & level``. "" where it is unknown.

    >>> group_names(pd.DataFrame({"attr.sex": ["F", None], "attr.age": ["old", "old"]}), "sex & age")
    ['F & old', '']
    """
    columns = [f"attr.{name}" for name in attribute_parts(attribute)]
    absent = [name for name in columns if name not in rows]
    if absent:
        problems = [Problem("is missing", "give the attribute's column", column=name) for name in absent]
        raise InputError(f"Groups of '{attribute}' cannot be told apart.", problems)
    known = rows[columns].notna().all(axis=1)
    parts = rows[columns].astype(str).itertuples(index=False)
    return [BETWEEN.join(words) if whole else "" for words, whole in zip(parts, known, strict=True)]


def attribute_parts(attribute: str) -> list[str]:
    """Names of the attributes of which an intersection is made; one for a plain attribute."""
    return [part.strip() for part in attribute.split(BETWEEN.strip())]


def apply_guidance(
    rows: pd.DataFrame, calibration: Guidance | Calibrated, which: Which = "group"
) -> pd.DataFrame:
    """A copy of a plan in which each row has the guidance that was chosen for its group.

    Args:
        rows: a plan (``equigen.plan``), with the columns ``attr.<name>`` of the calibrated attribute.
        calibration: what ``calibrate`` returned or ``load_calibration`` read.
        which: "group" (groups that it does not know take the common guidance), "common" (the same for all) or
            "default" (what it was held against).

    Raises:
        InputError: a column of the attribute is missing, ``which`` is unknown, or the rows are counterfactual pairs in
            the calibrated attribute, whose images may differ in nothing else.

    """
    chosen = calibration if isinstance(calibration, Guidance) else calibration.guidance
    if which == "group":
        check_pairs(rows, chosen.attribute)
    return rows.assign(guidance=chosen.of(rows, which))


def check_pairs(rows: pd.DataFrame, attribute: str) -> None:
    """InputError where guidance by ``attribute`` would be changed within counterfactual pairs too."""
    changed = set(rows["changed"].dropna().astype(str)) if "changed" in rows else set()
    for name in sorted(changed & set(attribute_parts(attribute))):
        found = f"the pairs are to differ in {name} alone, and guidance by {attribute} would differ with it"
        problem = Problem(found, "take one guidance for all: common, or a number")
        raise InputError("Guidance per group cannot be used for these counterfactual pairs.", [problem])


def load_calibration(folder: str | Path, generator: str | None = None) -> Guidance:
    """Read the ``calibration.json`` of a generator's folder.

    Args:
        folder: a generator, or the folder in which a calibration was made.
        generator: hash of the generator that it is to be used for; None does not ask.

    Raises:
        InputError: there is none, it is damaged, or it was made for a generator with another hash.

    """
    path = Path(folder) / FILE
    if not path.is_file():
        problem = Problem("there is no such file", "run `equigen calibrate` first", file=str(path))
        raise InputError("This generator is not calibrated.", [problem])
    try:
        found = _from_json(read_json(path))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        problem = Problem(f"cannot be read ({error})", "delete it and run `equigen calibrate` again", file=str(path))
        raise InputError("The calibration is damaged.", [problem]) from error
    if generator is not None and found.generator != generator:
        problem = Problem(
            f"was made for generator {found.generator}, this one is {generator}",
            "run `equigen calibrate` for this generator, delete the file, or name a guidance yourself",
            file=str(path),
        )
        raise InputError("The calibration belongs to another generator.", [problem])
    return found


def _from_json(values: dict[str, Any]) -> Guidance:
    whole = {"against": "images", **values}  # files of earlier versions do not say it
    chosen = {field.name: whole[field.name] for field in fields(Guidance)}
    groups = {str(name): float(value) for name, value in chosen["groups"].items()}
    low, high = map(float, chosen["bounds"])
    return Guidance(**{**chosen, "groups": groups, "common": float(chosen["common"]), "bounds": (low, high)})
