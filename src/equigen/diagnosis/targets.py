"""Encoding of diagnoses: targets from level names, and yes-no tasks from probabilities."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.cohort import LabelSpec
from equigen.errors import InputError, Problem

Array = NDArray[np.float32]
JOIN = "|"
HIGH_RISK = "high_risk"


def outputs(spec: LabelSpec) -> list[str]:
    """Names of a network's outputs: the positive level of a binary label, every level of any other."""
    return [spec.levels[1]] if spec.kind == "binary" else list(spec.levels)


def encode(values: pd.Series, spec: LabelSpec) -> Array:
    """Targets [N, K] of 0 and 1 from level names; NaN in a row of unknown diagnosis.

    binary: K = 1, the positive level; multiclass: one-hot; multilabel: one column a finding, from cells with the
    present findings joined by "|" ("" = none).

    Raises:
        InputError: unknown levels, with their rows (2 is the first).

    """
    names = outputs(spec)
    allowed, column_of = set(spec.levels), {name: column for column, name in enumerate(names)}
    targets = np.full((len(values), len(names)), np.nan, dtype=np.float32)
    problems = []
    for row, value in enumerate(values):
        if pd.isna(value):
            continue
        levels = [level for level in str(value).split(JOIN) if level] if spec.kind == "multilabel" else [str(value)]
        unknown = [level for level in levels if level not in allowed]
        problems += [
            Problem(
                f"'{level}' is no level",
                f"levels are {', '.join(spec.levels[:12])}",
                row=row + 2,
                column=str(values.name),
            )
            for level in unknown
        ]
        targets[row] = 0
        for level in levels:
            if level in column_of:
                targets[row, column_of[level]] = 1
    if problems:
        raise InputError("Diagnoses that the cohort's label does not have.", problems)
    return targets


def tasks(label: str, spec: LabelSpec, targets: Array, probability: Array) -> Iterator[tuple[str, Array, Array]]:
    """Yes-no tasks of a label: name, truth [N] (NaN unknown) and probability [N].

    binary: ``<label>``; otherwise ``<label>:<level>`` for each level, one against the rest; for a multiclass label with
    high-risk levels also ``<label>:high_risk``, the sum of their probabilities.
    """
    if spec.kind == "binary":
        yield label, targets[:, 0], probability[:, 0]
        return
    for column, level in enumerate(outputs(spec)):
        yield f"{label}:{level}", targets[:, column], probability[:, column]
    if spec.high_risk and spec.kind == "multiclass":
        risky = [spec.levels.index(level) for level in spec.high_risk]
        total = np.clip(probability[:, risky].sum(axis=1), 0, 1)
        yield f"{label}:{HIGH_RISK}", targets[:, risky].sum(axis=1), total
