"""What a judge is asked: which level of a diagnosis or of an attribute an image shows."""

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
BLOCK = 4096  # rows looked at together
JOIN = "|"  # joins the findings of a multi-label cell
LEAST = 10  # patients that a class needs at least, whatever the setting: three folds inside five have to hold some


@dataclass(frozen=True)
class Annotated:
    """Images of one side: float features [N, D], a table of N rows, and [N] patients.

    ``frame`` holds ``label.<name>`` and ``attr.<name>`` (level names, None unknown; a multi-label cell joins
    the present findings by "|", "" is none), of generated images what was asked for. Columns ``oracle.<name>``,
    where there are any, hold the level that an oracle reads off each image, None where it sees nothing.
    """

    features: NDArray[Any]
    frame: pd.DataFrame
    patients: NDArray[Any]

    def check(self, side: str) -> None:
        """Raise InputError where features, rows and patients differ in number, or a feature is not finite."""
        counts = f"{len(self.features)} features, {len(self.frame)} rows, {len(self.patients)} patients"
        if self.features.ndim != 2 or not len(self.features) == len(self.frame) == len(self.patients):
            raise InputError(f"The {side} images cannot be judged.", [Problem(counts, "give one of each an image")])
        starts = range(0, len(self.features), BLOCK)
        finite = [np.isfinite(self.features[start : start + BLOCK]).all(axis=1) for start in starts]
        bad = np.flatnonzero(~np.concatenate([*finite, np.ones(0, dtype=bool)]))
        if len(bad):
            message = f"{len(bad)} rows of features are not finite, the first is {bad[0]}"
            raise InputError(f"The {side} images cannot be judged.", [Problem(message, "look at these images")])


@dataclass(frozen=True)
class Question:
    """Which of ``levels`` an image shows; for a finding of a multi-label column, whether it is present."""

    column: str
    levels: list[str]
    finding: str | None = None

    @property
    def name(self) -> str:
        """The column, with its finding where it is of several labels."""
        return self.column if self.finding is None else f"{self.column} {self.finding}"

    def truth(self, frame: pd.DataFrame) -> Codes:
        """[N] index of each row's level; -1 where it is unknown or no level that a judge knows."""
        if self.column not in frame.columns:
            return np.full(len(frame), -1, dtype=np.int64)
        values = frame[self.column]
        if self.finding is not None:
            present = [self.finding in str(value).split(JOIN) for value in values]
            return np.where(values.notna(), np.array(present, dtype=np.int64), -1).astype(np.int64)
        index = {level: code for code, level in enumerate(self.levels)}
        known = values.notna()
        pairs = zip(values, known, strict=True)
        return np.array([index.get(str(value), -1) if is_known else -1 for value, is_known in pairs], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Answers:
    """What one judge says of both sides.

    ``real`` [N, L] and ``generated`` [M, L] probabilities; ``truth`` [N] and ``asked`` [M] levels, -1 unknown.
    """

    question: Question
    real: Array
    generated: Array
    truth: Codes
    asked: Codes


@dataclass(frozen=True)
class Judged:
    """All answers on one generated set, with words about the judges.

    ``notes`` by kind of column ("label", "attr"): a kind of which the tables hold no column is not in it.
    ``oracle``: for each name that an oracle reads off the images too, its levels for the real images (None
    where they were not read) and for the generated ones.
    """

    answers: list[Answers]
    notes: dict[str, str]
    oracle: dict[str, tuple[pd.Series | None, pd.Series]] = field(default_factory=dict)


def questions_of(
    source: Annotated, columns: Sequence[str], kinds: Mapping[str, str], levels: Mapping[str, Sequence[str]],
    min_patients: int,
) -> tuple[list[Question], list[str]]:
    """The questions that a judge can learn from real images, and in words which it cannot.

    A column is multi-label where ``kinds`` says so, or, where it is silent, a cell of a label joins findings by
    "|" or is empty. A class needs ``min_patients`` patients, and 10 in any case; a finding needs as many with
    as without it.
    """
    asked, words = [], []
    least = max(min_patients, LEAST)
    for column in columns:
        if column not in source.frame.columns:
            words.append(f"no judge of {column}: the real images have no such column")
            continue
        for question in questions_about(column, source.frame[column], kinds, levels):
            kept, missing = _learnable(question, source, least)
            words += [f"{question.name}: {level} left out, fewer than {least} patients show it" for level in missing]
            if kept is not None:
                asked.append(kept)
            else:
                words.append(f"no judge of {question.name}: fewer than two levels with {least} patients")
    return asked, words


def questions_about(
    column: str, values: pd.Series, kinds: Mapping[str, str], levels: Mapping[str, Sequence[str]]
) -> list[Question]:
    """The questions that one column poses: one, or one for each finding where it is multi-label.

    ``kinds`` and ``levels`` as in ``questions_of``; levels that are not given are those of the cells, sorted.
    """
    cells = values.dropna().astype(str)
    many = _is_multilabel(column, cells, kinds)
    found = sorted({part for cell in cells for part in (cell.split(JOIN) if many else [cell]) if part})
    whole = Question(column, list(levels.get(column) or found))
    return [Question(column, [f"no {name}", name], name) for name in whole.levels] if many else [whole]


def _is_multilabel(column: str, cells: pd.Series, kinds: Mapping[str, str]) -> bool:
    if not column.startswith("label."):
        return False
    kind = kinds.get(column, kinds.get(column.removeprefix("label.")))
    if kind is not None:
        return kind == "multilabel"
    return bool(cells.str.contains(JOIN, regex=False).any() or cells.eq("").any())


def _learnable(question: Question, source: Annotated, least: int) -> tuple[Question | None, list[str]]:
    """The question with the levels that enough patients show (None where fewer than two), and the others."""
    truth = question.truth(source.frame)
    counts = [len(np.unique(source.patients[truth == code])) for code in range(len(question.levels))]
    kept = [level for level, count in zip(question.levels, counts, strict=True) if count >= least]
    missing = [level for level in question.levels if level not in kept]
    if len(kept) < 2:
        return None, missing
    return Question(question.column, kept, question.finding), missing
