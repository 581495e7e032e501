"""The split of a cohort: a patient's side follows from the seed and the patient's id, and from nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.cohort.spec import SPLITS
from equigen.errors import InputError, Problem
from equigen.seeds import derive_seed


def position(seed: int, unit: str) -> float:
    """Where a unit lies between 0 (included) and 1 (excluded): SHA-256 of the seed and the unit's id."""
    return derive_seed(seed, f"split/{unit}") / 2.0**63


def split_patients(units: pd.Series, shares: dict[str, float], seed: int) -> tuple[pd.Series, list[Problem]]:
    """Split of each row, and a problem to tell for each split that its share alone would have left empty.

    A unit (a patient, or patients who must stay together) lies at ``position(seed, unit)``; train, val and test are
    intervals of [0, 1) in that order, as long as their shares. So no other column, no other row and no other patient
    decides about a unit, and a patient of two cohorts with one seed is on one side in both. The price: shares and
    strata are those of a simple random sample, not exact (a share q of n units has the standard deviation
    sqrt(q (1 - q) / n)).

    Only where a split would have no unit, the nearest unit of a split with at least two goes there.

    Args:
        units: unit of each row.
        shares: fraction of units for each split; sums to 1.
        seed: of the positions.

    Returns:
        Split name of each row, same index; what to tell.

    Raises:
        InputError: fewer units than splits with a share above 0.

    """
    names = [name for name in SPLITS if shares.get(name, 0) > 0]
    held = sorted(set(units))
    _check_enough(len(held), names)
    places = np.array([position(seed, unit) for unit in held])
    ends = np.cumsum([shares[name] for name in names])
    chosen = np.minimum(np.searchsorted(ends, places, side="right"), len(names) - 1)
    problems = []
    for empty in np.flatnonzero(np.bincount(chosen, minlength=len(names)) == 0):
        nearest = _nearest(places, chosen, 0.0 if empty == 0 else float(ends[empty - 1]), float(ends[empty]))
        chosen[nearest] = empty
        share = f"{100 * shares[names[empty]]:g} % of {len(held)} patients"
        message = (
            f"split '{names[empty]}' ({share}) would be empty, so patient '{held[nearest]}', the nearest, is in it"
        )
        problems.append(Problem(message, "use more patients; with more of them this patient may be on another side"))
    return units.map(dict(zip(held, (names[index] for index in chosen), strict=True))), problems


def _check_enough(units: int, names: list[str]) -> None:
    if units < len(names):
        problem = Problem(
            f"{units} patients cannot fill {len(names)} splits ({', '.join(names)})",
            "add patients, or set a fraction to 0",
        )
        raise InputError("Too few patients to split.", [problem])


def _nearest(places: NDArray[np.float64], chosen: NDArray[np.int64], low: float, high: float) -> int:
    """The unit nearest to [low, high) of those whose split has another one."""
    distance = np.maximum(low - places, places - high)
    spare = np.bincount(chosen)[chosen] > 1
    return int(np.argmin(np.where(spare, distance, np.inf)))


def absent_levels(frame: pd.DataFrame) -> list[Problem]:
    """A problem to tell for each label or attribute level that a split has no patient of, though there are enough.

    Enough are as many patients as splits; the split does not look at levels, so a rare one may miss a split.
    """
    names = [name for name in SPLITS if (frame["split"] == name).any()]
    problems = []
    for column in [name for name in frame.columns if name.startswith(("label.", "attr."))]:
        for level, rows in _levels(frame[column]):
            patients = frame[rows].groupby("split")["patient"].nunique()
            total, absent = int(frame.loc[rows, "patient"].nunique()), [name for name in names if name not in patients]
            if absent and total >= len(names):
                message = f"no patient of {column}={level} is in {' or '.join(absent)}, of {total} patients"
                problems.append(Problem(message, "try another split.seed, or give the split as a column"))
    return problems


def _levels(cells: pd.Series) -> Iterator[tuple[str, pd.Series]]:
    """(level, rows that have it) of a column; a multilabel cell has several levels."""
    held = cells.map(lambda cell: set() if cell is None or pd.isna(cell) else set(cell.split("|")) - {""})
    for level in sorted(set().union(*held)):
        yield level, held.map(lambda cell, level=level: level in cell)
