"""What a generator can be asked for: the fields of a cohort as token numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from equigen.cohort import Cohort
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
    def of(cls, cohort: Cohort) -> Vocabulary:
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

        A missing value is *unknown*; a multi-label column holds present findings separated by "|".
        Raises InputError naming row and column for a missing column or a level that the generator does not know.
        """
        columns, problems = [], []
        for field, levels in self.fields.items():
            column, _, finding = field.partition("=")
            if column not in frame.columns:
                problems.append(
                    Problem("is missing", f"add it, with levels {', '.join(levels)} or empty", column=column)
                )
                continue
            numbers = {level: FIRST + index for index, level in enumerate(levels)}
            words = [_word(value, finding) for value in frame[column]]
            unknown = [row for row, word in enumerate(words) if word is not None and word not in numbers]
            problems += [
                Problem(
                    f"'{words[row]}' is unknown to this generator",
                    f"use one of {', '.join(levels)}, or leave it empty",
                    row=row + 2,
                    column=column,
                )
                for row in unknown
            ]
            columns.append(
                np.array([UNKNOWN if word is None else numbers.get(word, UNKNOWN) for word in words])
            )
        if problems:
            raise InputError("The conditions do not fit the generator.", problems)
        return (
            torch.from_numpy(np.stack(columns, axis=1).astype(np.int64))
            if columns
            else torch.zeros(len(frame), 0, dtype=torch.int64)
        )


def _word(value: Any, finding: str) -> str | None:
    """One cell as a level name; None where it is missing."""
    if value is None or (isinstance(value, float) and np.isnan(value)) or value is pd.NA:
        return None
    if not finding:
        return str(value)
    return PRESENT if finding in str(value).split("|") else ABSENT
