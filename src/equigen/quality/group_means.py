"""Means in groups with their resamples: of images that stand alone, and of images that patients hold together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import random_table

from equigen.quality.cells import ResamplingSettings
from equigen.quality.rows import interval_row
from equigen.seeds import numpy_generator
from equigen.statistics import patient_bootstrap, patient_codes, permute_groups, wilson_interval

Array = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class CellMean:
    """Mean of a group: ``n`` images of ``patients``, their ``total``, and [R] resamples; None: too small."""

    n: int
    patients: int
    total: float
    draws: Array | None

    @property
    def value(self) -> float:
        """The mean."""
        return self.total / self.n if self.n else float("nan")


@dataclass(frozen=True)
class MeanDifference(CellMean):
    """A difference of two means, which is no total over n."""

    difference: float = float("nan")

    @property
    def value(self) -> float:
        """The difference."""
        return self.difference


@dataclass(frozen=True)
class GroupMeans:
    """All groups of one attribute; ``null`` [R] of each large one: its mean where group labels mean nothing."""

    cells: dict[str, CellMean]
    null: dict[str, Array] = field(default_factory=dict)

    def rejection_excess(self, real: GroupMeans) -> GroupMeans:
        """From acceptance here and refusal there: refusal here less refusal there."""
        cells: dict[str, CellMean] = {}
        for group, own in self.cells.items():
            other = real.cells[group]
            known = own.draws is not None and other.draws is not None
            draws = 1 - own.draws - other.draws if own.draws is not None and other.draws is not None else None
            value = 1 - own.value - other.value if known else float("nan")
            cells[group] = MeanDifference(own.n, other.patients, 0.0, draws, value)
        shared = [group for group in self.null if group in real.null]
        return GroupMeans(cells, {group: 1 - self.null[group] - real.null[group] for group in shared})


def patient_share_interval(cell: CellMean) -> tuple[float, float, str]:
    """95 % interval of a share over patients, and a word about it.

    By the bootstrap; where all or none count, and it has no width, Wilson's with as many cases as there are patients.
    """
    if cell.value in {0.0, 1.0}:
        low, high = wilson_interval(cell.patients if cell.value else 0, cell.patients)
        return low, high, "without exception, so the interval is Wilson's over patients"
    found = interval_row(cell.value, np.zeros(0) if cell.draws is None else cell.draws)
    nan = float("nan")
    ends = [nan if found[name] is None else float(found[name]) for name in ("ci_low", "ci_high")]
    return ends[0], ends[1], str(found["note"])


def independent_group_means(
    values: Array, codes: Codes, levels: list[str], settings: ResamplingSettings, purpose: str
) -> GroupMeans:
    """Means of [N] values (NaN does not count) of images that are each their own patient.

    The values are few different ones, so that resampling images is drawing counts of each value (multinomial), and
    permuting group labels is drawing a table with the same margins; both are exact at any N.

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
        own = values[(codes == index) & np.isfinite(values)]
        held = np.searchsorted(support, own)
        draws = None
        if len(own) >= settings.min_patients:
            counts[level] = np.bincount(held, minlength=len(support))
            rng = numpy_generator(settings.seed, purpose, index)
            draws = rng.multinomial(len(own), counts[level] / len(own), settings.replicates) @ support / len(own)
        cells[level] = CellMean(len(own), len(own), float(own.sum()), draws)
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
    """The same where a patient may have several images: whole patients are resampled and change groups.

    A replicate in which a group is empty gives it NaN.
    """
    known = np.isfinite(values)
    values, codes, patients = values[known], codes[known], patient_codes(patients[known])
    large = [index for index in range(len(levels)) if len(set(patients[codes == index])) >= settings.min_patients]
    inside = codes >= 0
    rng = numpy_generator(settings.seed, purpose)
    draws = np.full((settings.replicates, len(levels)), np.nan)
    if large:
        for row, chosen in zip(draws, patient_bootstrap(patients[inside], settings.replicates, rng), strict=True):
            row[:] = _means(values[inside][chosen], codes[inside][chosen], len(levels))
    cells = {}
    for index, level in enumerate(levels):
        own = codes == index
        cells[level] = CellMean(int(own.sum()), len(set(patients[own])), float(values[own].sum()),
                                 draws[:, index] if index in large else None)
    if len(large) < 2:
        return GroupMeans(cells)
    within = np.isin(codes, large)
    rng = numpy_generator(settings.seed, f"{purpose}/null")
    null = np.stack([_means(values[within], permute_groups(codes[within], patients[within], rng), len(levels))
                     for _ in range(settings.replicates)])
    return GroupMeans(cells, {levels[index]: null[:, index] for index in large})


def _means(values: Array, codes: Codes, size: int) -> Array:
    """Mean of the values of each code, NaN for one that has none."""
    counts = np.bincount(codes, minlength=size)
    sums = np.bincount(codes, values, size)
    return np.asarray(np.divide(sums, counts, out=np.full(size, np.nan), where=counts > 0), dtype=np.float64)
