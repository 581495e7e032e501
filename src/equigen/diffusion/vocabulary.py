"""The conditions of a generator: the attributes and labels of a cohort as token numbers."""

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
    def from_cohort(cls, cohort: Cohort | Manifest) -> Vocabulary:
        """Return the vocabulary of a cohort, attributes first."""
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
        """Return token numbers [N, F] int64 of columns ``attr.*`` and ``label.*`` with level names.

        A missing or empty cell is *unknown*; a multi-label column holds present findings separated by "|", and an empty
        cell there means that none is present. Raises InputError naming row and column for a missing column, or a level
        or finding that the generator does not know.
        """
        columns: dict[str, tuple[list[str], bool]] = {}  # levels, and whether a cell may hold several
        for field, levels in self.fields.items():
            column, multilabel, finding = field.partition("=")
            earlier = columns.get(column, ([], True))[0]
            columns[column] = ([*earlier, finding], True) if multilabel else (levels, False)
        problems = [
            problem
            for column, (levels, multilabel) in columns.items()
            for problem in _column_problems(frame, column, levels, multilabel)
        ]
        if problems:
            raise InputError("The conditions do not fit the generator.", problems)
        table = np.empty((len(frame), len(self.fields)), dtype=np.int64)
        for position, (field, levels) in enumerate(self.fields.items()):
            column, _, finding = field.partition("=")
            numbers = {level: FIRST + index for index, level in enumerate(levels)}
            codes, distinct = _distinct_values(frame[column])
            names = [_level_name(value, finding) for value in distinct]
            tokens = np.array([UNKNOWN if name is None else numbers[name] for name in names], dtype=np.int64)
            table[:, position] = tokens[codes]
        return torch.from_numpy(table)


def _column_problems(frame: pd.DataFrame, column: str, levels: list[str], multilabel: bool) -> list[Problem]:
    """Return the problems of one column: it is missing, or holds an unknown level or finding."""
    if column not in frame.columns:
        return [Problem("is missing", f"add it, with levels {', '.join(levels)} or empty", column=column)]
    codes, distinct = _distinct_values(frame[column])
    cells = ["" if pd.isna(value) else str(value) for value in distinct]
    names = [cell.split("|") if multilabel else [cell] for cell in cells]
    unknown = [[name for name in cell_names if name and name not in levels] for cell_names in names]
    mend = f"use {'some' if multilabel else 'one'} of {', '.join(levels)}, or leave it empty"
    return [
        Problem(f"'{name}' is unknown to this generator", mend, row=int(row) + 2, column=column)
        for row in np.flatnonzero(np.isin(codes, [code for code, cell_names in enumerate(unknown) if cell_names]))
        for name in unknown[codes[row]]
    ]


def _distinct_values(cells: pd.Series) -> tuple[NDArray[np.intp], list[Any]]:
    """Return the index of each row's value [N], and the distinct values; long columns have few."""
    codes, distinct = pd.factorize(cells, use_na_sentinel=False)
    return codes, list(distinct)


def _level_name(value: Any, finding: str) -> str | None:
    """Return a cell's level name; None where it is unknown."""
    if pd.isna(value):
        return None
    if not finding:
        return str(value) or None
    return PRESENT if finding in str(value).split("|") else ABSENT
