"""Group means with their resamples, of independent images and of images clustered by patient."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import random_table

from equigen.quality.cells import ResamplingSettings
from equigen.quality.rows import interval_row
from equigen.seeds import numpy_generator
from equigen.statistics import Estimate, group_permutations, patient_bootstrap, patient_codes, quotient, wilson_interval

Array = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class CellMean(Estimate):
    """Mean of a group of ``n`` images of ``patients``, which sum to ``total``; no replicates where it is too small."""

    n: int
    patients: int
    total: float

    @property
    def is_large(self) -> bool:
        """Whether the group has replicates."""
        return len(self.replicates) > 0


def _cell_mean(total: float, n: int, patients: int, replicates: Array | None) -> CellMean:
    """Mean of n values from their sum, NaN without any."""
    return CellMean(
        total / n if n else float("nan"), np.zeros(0) if replicates is None else replicates, n, patients, total
    )


@dataclass(frozen=True)
class GroupMeans:
    """Means of the groups of one attribute; ``null`` [R] of each large group: its means under permuted labels."""

    cells: dict[str, CellMean]
    null: dict[str, Array] = field(default_factory=dict)

    def rejection_excess(self, real: GroupMeans) -> GroupMeans:
        """Rejection rates of generated less those of real images, of acceptance here and rejection in ``real``."""
        cells: dict[str, CellMean] = {}
        for group, accepted in self.cells.items():
            rejected = real.cells[group]
            replicates, value = np.zeros(0), float("nan")
            if accepted.is_large and rejected.is_large:
                replicates = 1 - accepted.replicates - rejected.replicates
                value = 1 - accepted.value - rejected.value
            cells[group] = CellMean(value, replicates, accepted.n, rejected.patients, float("nan"))
        shared = [group for group in self.null if group in real.null]
        return GroupMeans(cells, {group: 1 - self.null[group] - real.null[group] for group in shared})


def patient_share_interval(cell: CellMean) -> tuple[float, float, str]:
    """95 % interval of a share over patients, and a note.

    The percentile interval of the bootstrap; for a share of 0 or 1, where that has no width, Wilson's interval with
    as many cases as there are patients.
    """
    if cell.value in {0.0, 1.0}:
        low, high = wilson_interval(cell.patients if cell.value else 0, cell.patients)
        return low, high, "without exception, so the interval is Wilson's over patients"
    row = interval_row(cell)
    low, high = (float("nan") if row[name] is None else float(row[name]) for name in ("ci_low", "ci_high"))
    return low, high, str(row["note"])


def independent_group_means(
    values: Array, codes: Codes, levels: list[str], settings: ResamplingSettings, purpose: str
) -> GroupMeans:
    """Means of [N] values (NaN does not count) of images that are each their own patient.

    The values have few levels, so resampling images is drawing counts of each value (multinomial), and permuting
    group labels is drawing a table with the same margins; both are exact at any N.

    Args:
        values: [N].
        codes: [N] index in ``levels``, -1 unknown.
        levels: of the groups.
        settings: replicates, seed, and the least number of images.
        purpose: of the random draws.

    """
    cells, counts = {}, {}
    support = np.unique(values[np.isfinite(values)])
    for index, level in enumerate(levels):
        members = values[(codes == index) & np.isfinite(values)]
        draws = None
        if len(members) >= settings.min_patients:
            counts[level] = np.bincount(np.searchsorted(support, members), minlength=len(support))
            rng, shares = numpy_generator(settings.seed, purpose, index), counts[level] / len(members)
            draws = rng.multinomial(len(members), shares, settings.replicates) @ support / len(members)
        cells[level] = _cell_mean(float(members.sum()), len(members), len(members), draws)
    if len(counts) < 2:
        return GroupMeans(cells)
    table = np.stack(list(counts.values()))
    rng = numpy_generator(settings.seed, f"{purpose}/null")
    tables = random_table(table.sum(axis=1), table.sum(axis=0)).rvs(settings.replicates, random_state=rng)
    means = tables @ support / table.sum(axis=1)
    return GroupMeans(cells, {level: means[:, index] for index, level in enumerate(counts)})


def clustered_group_means(
    values: Array, codes: Codes, levels: list[str], patients: NDArray[Any], settings: ResamplingSettings, purpose: str
) -> GroupMeans:
    """Means of [N] values of images clustered by patient: all images of a patient are resampled and permuted together.

    Arguments as in ``independent_group_means``. A replicate in which a group is empty gives it NaN.
    """
    defined = np.isfinite(values)
    values, codes, patients = values[defined], codes[defined], patient_codes(patients[defined])
    large = [index for index in range(len(levels)) if len(set(patients[codes == index])) >= settings.min_patients]
    grouped = codes >= 0
    rng = numpy_generator(settings.seed, purpose)
    draws = np.full((settings.replicates, len(levels)), np.nan)
    if large:
        for row, sample in zip(draws, patient_bootstrap(patients[grouped], settings.replicates, rng), strict=True):
            row[:] = _group_means(values[grouped][sample], codes[grouped][sample], len(levels))
    cells = {}
    for index, level in enumerate(levels):
        mask = codes == index
        replicates = draws[:, index] if index in large else None
        cells[level] = _cell_mean(float(values[mask].sum()), int(mask.sum()), len(set(patients[mask])), replicates)
    if len(large) < 2:
        return GroupMeans(cells)
    mask = np.isin(codes, large)
    rng = numpy_generator(settings.seed, f"{purpose}/null")
    null = np.stack(
        [
            _group_means(values[mask], labels, len(levels))
            for labels in group_permutations(codes[mask], patients[mask], settings.replicates, rng)
        ]
    )
    return GroupMeans(cells, {levels[index]: null[:, index] for index in large})


def _group_means(values: Array, codes: Codes, size: int) -> Array:
    """Mean of the values of each code, NaN for a code without values."""
    counts = np.bincount(codes, minlength=size)
    sums = np.bincount(codes, values, size)
    return quotient(sums, counts)
