"""Targets of judges, the diagnoses and attributes that they predict, and their predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.errors import InputError, Problem

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
BLOCK = 4096  # rows checked at a time
JOIN = "|"  # joins the findings of a multi-label cell
LEAST = 10  # fewest patients of a class: three folds inside five each need some


@dataclass(frozen=True)
class AnnotatedFeatures:
    """A set of images: float features [N, D], a table of N rows, and [N] patients.

    ``frame`` holds ``label.<name>`` and ``attr.<name>`` (level names, None unknown; a multi-label cell joins
    the present findings by "|", "" is none), for generated images the requested ones. Optional columns
    ``oracle.<name>`` hold the level that an oracle predicts, None where it detects nothing.
    """

    features: NDArray[Any]
    frame: pd.DataFrame
    patients: NDArray[Any]

    def check(self, name: str) -> None:
        """Raise InputError where features, rows and patients differ in number, or a feature is not finite."""
        counts = f"{len(self.features)} features, {len(self.frame)} rows, {len(self.patients)} patients"
        if self.features.ndim != 2 or not len(self.features) == len(self.frame) == len(self.patients):
            raise InputError(f"The {name} images cannot be judged.", [Problem(counts, "give one of each an image")])
        starts = range(0, len(self.features), BLOCK)
        finite = [np.isfinite(self.features[start : start + BLOCK]).all(axis=1) for start in starts]
        bad = np.flatnonzero(~np.concatenate([*finite, np.ones(0, dtype=bool)]))
        if len(bad):
            message = f"{len(bad)} rows of features are not finite, the first is {bad[0]}"
            raise InputError(f"The {name} images cannot be judged.", [Problem(message, "look at these images")])


@dataclass(frozen=True)
class Target:
    """A variable to predict: one of the ``levels`` of a column, or the presence of one ``finding`` of it."""

    column: str
    levels: list[str]
    finding: str | None = None

    @property
    def name(self) -> str:
        """The column, followed by the finding of a multi-label column."""
        return self.column if self.finding is None else f"{self.column} {self.finding}"

    def truth(self, frame: pd.DataFrame) -> Codes:
        """Return the index of each row's level [N], -1 where it is unknown or not among the levels."""
        if self.column not in frame.columns:
            return np.full(len(frame), -1, dtype=np.int64)
        values = frame[self.column]
        if self.finding is not None:
            present = [self.finding in str(value).split(JOIN) for value in values]
            return np.where(values.notna(), np.array(present, dtype=np.int64), -1).astype(np.int64)
        index = {level: code for code, level in enumerate(self.levels)}
        defined = values.notna()
        cells = zip(values, defined, strict=True)
        return np.array([index.get(str(value), -1) if is_known else -1 for value, is_known in cells], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class JudgePredictions:
    """Predictions of one judge for real and generated images.

    ``real`` [N, L] and ``generated`` [M, L]: probabilities; ``truth`` [N] and ``requested`` [M]: levels, -1 unknown.
    """

    target: Target
    real: Array
    generated: Array
    truth: Codes
    requested: Codes


@dataclass(frozen=True)
class SetPredictions:
    """Predictions of each judge for one generated set (``judges``), with notes about the judges.

    ``notes``: by kind of column ("label", "attr"), for the kinds of which the tables have columns. ``oracle``: for
    each name that an oracle predicts too, its levels of the real (None where there are none) and generated images.
    """

    judges: list[JudgePredictions]
    notes: dict[str, str]
    oracle: dict[str, tuple[pd.Series | None, pd.Series]] = field(default_factory=dict)


def select_targets(
    source: AnnotatedFeatures,
    columns: Sequence[str],
    kinds: Mapping[str, str],
    levels: Mapping[str, Sequence[str]],
    min_patients: int,
) -> tuple[list[Target], list[str]]:
    """Return the targets that a judge can learn from real images, and a note on each that it cannot.

    A label column is multi-label where ``kinds`` says so, or, without a kind, where a cell joins findings by "|" or
    is empty. A class needs ``min_patients`` patients, and at least 10; a finding needs as many with as without it.
    """
    targets, notes = [], []
    least = max(min_patients, LEAST)
    for column in columns:
        if column not in source.frame.columns:
            notes.append(f"no judge of {column}: the real images have no such column")
            continue
        for target in column_targets(column, source.frame[column], kinds, levels):
            truth = target.truth(source.frame)
            counts = [len(np.unique(source.patients[truth == code])) for code in range(len(target.levels))]
            frequent = [level for level, count in zip(target.levels, counts, strict=True) if count >= least]
            notes += [
                f"{target.name}: {level} left out, fewer than {least} patients show it"
                for level in target.levels
                if level not in frequent
            ]
            if len(frequent) >= 2:
                targets.append(Target(target.column, frequent, target.finding))
            else:
                notes.append(f"no judge of {target.name}: fewer than two levels with {least} patients")
    return targets, notes


def column_targets(
    column: str, values: pd.Series, kinds: Mapping[str, str], levels: Mapping[str, Sequence[str]]
) -> list[Target]:
    """Return the targets of one column: one, or one for each finding where it is multi-label.

    ``kinds`` and ``levels`` are those of ``select_targets``; the default levels are those of the cells, sorted.
    """
    cells = values.dropna().astype(str)
    multilabel = False
    if column.startswith("label."):
        kind = kinds.get(column, kinds.get(column.removeprefix("label.")))
        joined = bool(cells.str.contains(JOIN, regex=False).any() or cells.eq("").any())
        multilabel = joined if kind is None else kind == "multilabel"
    names = {name for cell in cells for name in (cell.split(JOIN) if multilabel else [cell]) if name}
    order = list(levels.get(column) or sorted(names))
    if multilabel:
        return [Target(column, [f"no {name}", name], name) for name in order]
    return [Target(column, order)]
