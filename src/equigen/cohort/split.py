"""Splitting by patient so that every diagnosis x group is shared out as the whole is."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.cohort.spec import SPLITS
from equigen.errors import InputError, Problem
from equigen.seeds import numpy_generator


def strata(frame: pd.DataFrame) -> pd.DataFrame:
    """What should be shared out evenly, as 0/1 columns: [N, F] float64, indexed like ``frame``.

    Columns are the images, each level of each label and attribute, and each label level x attribute level;
    unknown counts as a level.
    """
    labels = {
        name: _indicators(frame[name], split="|") for name in frame.columns if name.startswith("label.")
    }
    attributes = {name: _indicators(frame[name]) for name in frame.columns if name.startswith("attr.")}
    found: dict[str, NDArray[np.float64]] = {"images": np.ones(len(frame))}
    for name, levels in {**labels, **attributes}.items():
        found.update({f"{name}={level}": column for level, column in levels.items()})
    for (label, rows), (attribute, columns) in product(labels.items(), attributes.items()):
        for (row, left), (column, right) in product(rows.items(), columns.items()):
            if (both := left * right).any():
                found[f"{label}={row}&{attribute}={column}"] = both
    return pd.DataFrame(found, index=frame.index)


def _indicators(values: pd.Series, split: str | None = None) -> dict[str, NDArray[np.float64]]:
    """Level -> 0/1 over rows; a multilabel cell counts for each of its findings, an unknown one for "?"."""
    cells = [["?"] if pd.isna(value) else value.split(split) if split else [value] for value in values]
    levels = sorted({level for cell in cells for level in cell})
    return {level: np.array([float(level in cell) for cell in cells]) for level in levels}


def split_patients(
    units: pd.Series, features: pd.DataFrame, shares: dict[str, float], seed: int
) -> pd.Series:
    """Assign every unit (a patient, or patients who must stay together) to a split: iterative stratification.

    Units come in the order of the rarest stratum they hold, large ones first, then at random (after Sechidis,
    Tsoumakas and Vlahavas 2011, with whole patients in place of images). Each goes to the split that raises
    least

        sum_sf (n_sf - share_s T_f)^2 / (share_s T_f)

    where n_sf is what split s holds of stratum f, in images and in units, and T_f the total; that is to the
    least sum_f c_f (2 n_sf + c_f) / (share_s T_f) for a unit that holds c_f. The numbers of units are exact
    (share x units, rounded by largest remainder). The result depends on the seed and the units, not on the
    order of rows.

    Args:
        units: unit of each row.
        features: [N, F] of ``strata``, same index.
        shares: fraction of units for each split; sums to 1.
        seed: of the random order.

    Returns:
        Split name of each row, same index.

    Raises:
        InputError: fewer units than splits with a share above 0.

    """
    names = [name for name in SPLITS if shares.get(name, 0) > 0]
    share = np.array([shares[name] for name in names])
    held = features.groupby(units.to_numpy()).sum().sort_index()
    images = held.to_numpy(dtype=np.float64)
    counts = np.concatenate([images, images > 0], axis=1)  # [U, 2 F]: images, and units that have any
    quota = _quotas(len(held), share, names)
    total = counts.sum(axis=0)
    wanted = np.outer(share, total)  # [S, 2 F]
    filled = np.zeros_like(wanted)
    chosen = np.empty(len(held), dtype=np.int64)
    for unit in _rarest_first(counts, total, held["images"].to_numpy(dtype=np.float64), seed):
        has = np.flatnonzero(counts[unit])
        own = counts[unit, has]
        cost = ((2 * filled[:, has] + own) * own / wanted[:, has]).sum(axis=1)
        best = int(np.argmin(np.where(quota > 0, cost, np.inf)))
        chosen[unit], quota[best] = best, quota[best] - 1
        filled[best] += counts[unit]
    by_unit = dict(zip(held.index, (names[index] for index in chosen), strict=True))
    return units.map(by_unit)


def _rarest_first(
    counts: NDArray[np.float64], total: NDArray[np.float64], sizes: NDArray[np.float64], seed: int
) -> NDArray[np.int64]:
    """Unit indices by the size of the rarest stratum they hold, then the largest first, then at random."""
    rarity = np.where(counts > 0, total, np.inf).min(axis=1)
    shuffled = numpy_generator(seed, "split").permutation(len(counts))
    return shuffled[np.lexsort((-sizes[shuffled], rarity[shuffled]))]


def _quotas(units: int, shares: NDArray[np.float64], names: list[str]) -> NDArray[np.int64]:
    """Units per split by largest remainder, at least one each."""
    if units < len(names):
        problem = Problem(
            f"{units} patients cannot fill {len(names)} splits ({', '.join(names)})",
            "add patients, or set a fraction to 0",
        )
        raise InputError("Too few patients to split.", [problem])
    quota = np.floor(shares * units + 1e-9).astype(np.int64)
    remainder = shares * units - quota
    for index in np.argsort(-remainder, kind="stable")[: units - int(quota.sum())]:
        quota[index] += 1
    while (quota == 0).any():
        quota[int(np.argmax(quota))] -= 1
        quota[int(np.argmin(quota))] += 1
    return quota
