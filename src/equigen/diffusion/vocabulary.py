"""What a generator can be asked for: the fields of a cohort as token numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from equigen.cohort import Cohort, Manifest
from equigen.errors import InputError, Problem

DROPPED, UNKNOWN, FIRST = 0, 1, 2
ABSENT, PRESENT = "absent", "present"


class Vocabulary:
    """Fields (attributes, labels, one per finding of a multi-label) and the levels of each.

    A field's tokens are 0 dropped (for classifier-free guidance), 1 unknown, 2 and up its levels. ``fields`` maps a
    field's name to its levels: ``attr.sex`` -> [female, male], ``label.dx`` -> [...], ``label.findings=effusion`` ->
    [absent, present].
    """

    def __init__(self, fields: Mapping[str, list[str]]) -> None:
        self.fields = {name: list(levels) for name, levels in fields.items()}

    @classmethod
    def of(cls, cohort: Cohort | Manifest) -> Vocabulary:
        """The fields of a cohort, attributes first."""
        fields = {f"attr.{name}": list(spec.levels) for name, spec in cohort.attributes.items()}
        for name, spec in cohort.labels.items():
            if spec.kind == "multilabel":
                fields |= {f"label.{name}={finding}": [ABSENT, PRESENT] for finding in spec.levels}
            else:
                fields[f"label.{name}"] = list(spec.levels)
        return cls(fields)

    @property
    def sizes(self) -> list[int]:
        """Number of tokens of each field."""
        return [FIRST + len(levels) for levels in self.fields.values()]

    def encode(self, frame: pd.DataFrame) -> torch.Tensor:
        """Columns ``attr.*`` and ``label.*`` of readable level names -> token numbers [N, F] int64.

        A missing or empty cell is *unknown*; a multi-label column holds present findings separated by "|", and an empty
        cell there means that none is present. Raises InputError naming row and column for a missing column, or a level
        or finding that the generator does not know.
        """
        problems = [problem for column, known in self._known().items() for problem in _check(frame, column, known)]
        if problems:
            raise InputError("The conditions do not fit the generator.", problems)
        table = np.empty((len(frame), len(self.fields)), dtype=np.int64)
        for place, (field, levels) in enumerate(self.fields.items()):
            column, _, finding = field.partition("=")
            numbers = {level: FIRST + index for index, level in enumerate(levels)}
            codes, different = _different(frame[column])
            words = [_word(value, finding) for value in different]
            tokens = np.array([UNKNOWN if word is None else numbers[word] for word in words], dtype=np.int64)
            table[:, place] = tokens[codes]
        return torch.from_numpy(table)

    def _known(self) -> dict[str, tuple[list[str], bool]]:
        """Each column with the words that it may hold, and whether a cell may hold several."""
        known: dict[str, tuple[list[str], bool]] = {}
        for field, levels in self.fields.items():
            column, several, finding = field.partition("=")
            earlier = known.get(column, ([], True))[0]
            known[column] = ([*earlier, finding], True) if several else (levels, False)
        return known


def _check(frame: pd.DataFrame, column: str, known: tuple[list[str], bool]) -> list[Problem]:
    """What is wrong with one column."""
    levels, several = known
    if column not in frame.columns:
        return [Problem("is missing", f"add it, with levels {', '.join(levels)} or empty", column=column)]
    codes, different = _different(frame[column])
    cells = [str(value) if _given(value) else "" for value in different]
    words = [cell.split("|") if several else [cell] for cell in cells]
    strange = [[word for word in found if word and word not in levels] for found in words]
    mend = f"use {'some' if several else 'one'} of {', '.join(levels)}, or leave it empty"
    return [
        Problem(f"'{word}' is unknown to this generator", mend, row=int(row) + 2, column=column)
        for row in np.flatnonzero(np.isin(codes, [code for code, found in enumerate(strange) if found]))
        for word in strange[codes[row]]
    ]


def _different(cells: pd.Series) -> tuple[NDArray[np.intp], list[Any]]:
    """The different values of a column, and which of them each row [N] has; long columns have few."""
    codes, different = pd.factorize(cells, use_na_sentinel=False)
    return codes, list(different)


def _given(value: Any) -> bool:
    """Whether a cell holds anything, be it an empty text."""
    return not bool(pd.isna(value))


def _word(value: Any, finding: str) -> str | None:
    """One cell as a level name; None where it is unknown."""
    if not _given(value):
        return None
    if not finding:
        return str(value) or None
    return PRESENT if finding in str(value).split("|") else ABSENT
