"""Split a cohort by patient: the split of a patient depends on the seed and the patient's id only."""

from __future__ import annotations

import numpy as np
import pandas as pd

from equigen.cohort.spec import SPLITS
from equigen.errors import InputError, Problem
from equigen.seeds import derive_seed


def unit_position(seed: int, unit: str) -> float:
    """Return the position of a unit in [0, 1), from SHA-256 of the seed and the unit's id."""
    return derive_seed(seed, f"split/{unit}") / 2.0**63


def split_patients(units: pd.Series, shares: dict[str, float], seed: int) -> tuple[pd.Series, list[Problem]]:
    """Return the split of each row, and a problem for each split that its share would have left empty.

    A unit (a patient, or patients who must stay together) has the position ``unit_position(seed, unit)``; train, val
    and test are intervals of [0, 1) in that order, as long as their shares. The split of a unit thus depends on no
    other column, row or patient, and a patient of two cohorts with one seed is in the same split in both. In return
    shares and strata are those of a simple random sample, not exact (a share q of n units has the standard deviation
    sqrt(q (1 - q) / n)).

    Only if a split would have no unit, the nearest unit of a split with at least two is moved there.

    Args:
        units: unit of each row.
        shares: fraction of units for each split; sums to 1.
        seed: of the positions.

    Returns:
        Split name of each row, same index; problems as warnings.

    Raises:
        InputError: fewer units than splits with a share above 0.

    """
    names = [name for name in SPLITS if shares.get(name, 0) > 0]
    patients = sorted(set(units))
    if len(patients) < len(names):
        message = f"{len(patients)} patients cannot fill {len(names)} splits ({', '.join(names)})"
        raise InputError("Too few patients to split.", [Problem(message, "add patients, or set a fraction to 0")])
    positions = np.array([unit_position(seed, unit) for unit in patients])
    ends = np.cumsum([shares[name] for name in names])
    assigned = np.minimum(np.searchsorted(ends, positions, side="right"), len(names) - 1)
    problems = []
    for empty in np.flatnonzero(np.bincount(assigned, minlength=len(names)) == 0):
        low, high = 0.0 if empty == 0 else float(ends[empty - 1]), float(ends[empty])
        distance = np.maximum(low - positions, positions - high)  # to the interval of the empty split
        movable = np.bincount(assigned)[assigned] > 1  # their split has another unit
        nearest = int(np.argmin(np.where(movable, distance, np.inf)))
        assigned[nearest] = empty
        share = f"{100 * shares[names[empty]]:g} % of {len(patients)} patients"
        message = (
            f"split '{names[empty]}' ({share}) would be empty, so patient '{patients[nearest]}', the nearest, is in it"
        )
        problems.append(Problem(message, "use more patients; with more of them this patient may be on another side"))
    return units.map(dict(zip(patients, (names[index] for index in assigned), strict=True))), problems


def absent_levels(frame: pd.DataFrame) -> list[Problem]:
    """Return a problem for each level without a patient in a split, though it has enough patients.

    Enough are as many patients as splits; splits are not stratified, so a rare level may miss a split.
    """
    names = [name for name in SPLITS if (frame["split"] == name).any()]
    problems = []
    for column in [name for name in frame.columns if name.startswith(("label.", "attr."))]:
        cell_levels = frame[column].map(lambda cell: set() if cell is None or pd.isna(cell) else set(cell.split("|")))
        for level in sorted(set().union(*cell_levels) - {""}):
            rows = cell_levels.map(lambda names, level=level: level in names)
            patients = frame[rows].groupby("split")["patient"].nunique()
            empty_splits = [name for name in names if name not in patients]
            total = int(frame.loc[rows, "patient"].nunique())
            if empty_splits and total >= len(names):
                message = f"no patient of {column}={level} is in {' or '.join(empty_splits)}, of {total} patients"
                problems.append(Problem(message, "try another split.seed, or give the split as a column"))
    return problems
