"""Estimates of a metric in each cell, with bootstrap replicates, floor and null values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equigen.quality.cells import Cell, Rows, covering_subsamples
from equigen.quality.floors import exceedance_p_value
from equigen.quality.metric_inputs import Array, CellEstimate, CellKey, MeasurementPlan, MetricResult, WeightedMetric
from equigen.quality.metrics.influence import Influence
from equigen.quality.resamples import Pool
from equigen.statistics import weighted_mean

__all__ = [
    "Array",
    "CellEstimate",
    "CellKey",
    "FloorMetric",
    "InfluenceMetric",
    "MeasurementPlan",
    "MetricResult",
    "NullMetric",
    "WeightedMetric",
    "first_order_replicates",
    "measure_mean",
    "measure_weighted",
    "measure_with_influences",
    "subsample_means",
]
InfluenceMetric = Callable[[Rows, Rows], list[Influence]]
FloorMetric = Callable[[Cell], float | Array]  # an array holds one value for each half split
NullMetric = Callable[[Pool], Array]  # a pool of permuted labels -> [R, G]
WEIGHTS_IN_MEMORY = 2**25  # multiplicities of one set in memory at a time, 256 MiB


def measure_weighted(
    metric: str,
    kind: str,
    value: WeightedMetric,
    floor: FloorMetric | None,
    plan: MeasurementPlan,
    note: str = "",
    null: NullMetric | None = None,
) -> MetricResult:
    """Measure a metric of weighted images, evaluated exactly in each replicate and permutation.

    Args:
        metric: its name in the table.
        kind: "lower", "higher" or "share".
        value: real and generated rows and multiplicities [R, n] and [R, m] -> [R], NaN where undefined.
        floor: the metric between two halves of a cell's real images, or one value for each split; None for none.
        plan: cells and draws.
        note: of each row of the metric.
        null: a faster way to compute the null values; None calls ``value`` on the pool.

    """
    estimates: dict[CellKey, CellEstimate] = {}
    for cell in plan.cells:
        if cell.reason is None:
            weights = [np.concatenate([np.ones((1, draws.shape[1])), draws]) for draws in plan.weights(cell)]
            values = value(cell.real, cell.generated, *weights)
            base, error = _mean_and_error(floor(cell)) if floor is not None else (None, 0.0)
            estimates[cell.attribute, cell.group] = CellEstimate(float(values[0]), values[1:], base, 0.0, error)
        plan.bar.advance()
    pools = plan.draws.null.items()
    chance = {name: null(pool) if null is not None else pool_values(value, pool) for name, pool in pools}
    return MetricResult(metric, kind, estimates, chance, note)


def pool_values(value: WeightedMetric, pool: Pool) -> Array:
    """[R, G] values of the rows of each group under each permutation; several groups are computed in one call."""
    count = len(pool.real_groups)
    step = max(1, WEIGHTS_IN_MEMORY // max(1, pool.size * max(len(pool.real), len(pool.generated))))
    parts = []
    for start in range(0, count, step):
        stacked = [
            np.concatenate([groups[start : start + step] == group for group in range(pool.size)]).astype(np.float64)
            for groups in (pool.real_groups, pool.generated_groups)
        ]
        parts.append(value(pool.real, pool.generated, *stacked).reshape(pool.size, -1).T)
    return np.concatenate(parts)


def measure_with_influences(
    metrics: list[tuple[str, str]],
    metric: InfluenceMetric,
    floor: Callable[[Cell], Any] | None,
    plan: MeasurementPlan,
    notes: list[str],
) -> list[MetricResult]:
    """Measure metrics that have influence functions at matched n, over subsamples, in every eligible cell.

    ``metric`` returns one ``Influence`` for each of ``metrics`` (name and kind), and ``floor`` one value, or an array
    with a value for each half split; the floor depends on real images alone (``MeasurementPlan.cache``). Replicates
    and null values are first-order expansions: the mean influence of the rows that were drawn; for the null the
    influences on the value of all images.
    """
    estimates: list[dict[CellKey, CellEstimate]] = [{} for _ in metrics]
    null: list[dict[str, Array]] = [{} for _ in metrics]
    names = ", ".join(name for name, _ in metrics)
    for cell in plan.cells:
        if cell.reason is None:
            means = subsample_means(metric, cell, plan, metrics[0][0])
            floors = [None] * len(metrics)
            if floor is not None:
                floors = plan.compute_for_halves("floor of " + names, cell, partial(floor, cell))
            weights = [
                multiplicities / images
                for multiplicities, images in zip(plan.weights(cell), images_per_patient(cell, plan), strict=True)
            ]
            for index, (mean, halves) in enumerate(zip(means, floors, strict=True)):
                replicates = first_order_replicates(mean.influence(expected_overlap(cell, plan)), *weights)
                noise = plan.rng(f"monte-carlo/{metrics[index][0]}", cell).standard_normal(len(replicates))
                replicates = replicates + mean.error * noise  # the estimate has the error of its few subsamples too
                centre, spread = _mean_and_error(halves) if halves is not None else (None, 0.0)
                estimates[index][cell.attribute, cell.group] = CellEstimate(
                    mean.value, replicates, centre, mean.error, spread
                )
            if cell.attribute == "*":
                null = _first_order_null(means, metric, cell, plan)
        plan.bar.advance()
    for values, cells in zip(null, estimates, strict=True):  # with the subsampling error of the estimates
        for attribute in values:
            eligible = plan.eligible(attribute)
            errors = [cells[attribute, cell.group].mc_value for cell in eligible]
            noises = [plan.rng("monte-carlo/null", cell).standard_normal(len(values[attribute])) for cell in eligible]
            values[attribute] = values[attribute] + np.stack(noises, axis=1) * np.array(errors)
    zipped = zip(metrics, estimates, null, notes, strict=True)
    return [MetricResult(*name, cells, values, note) for name, cells, values, note in zipped]


def _first_order_null(
    means: list[SubsampleMean], metric: InfluenceMetric, overall: Cell, plan: MeasurementPlan
) -> list[dict[str, Array]]:
    """Group means of the influences under permutation, about the value of all images, for each metric.

    Influences are those on the value of all images, or of the pool where it holds rows that a limited cell of all
    images does not, scaled to the overlap of each group's own subsamples.
    """
    result: list[dict[str, Array]] = [{} for _ in means]
    for attribute, pool in plan.draws.null.items():
        inside = np.isin(pool.real, overall.real).all() and np.isin(pool.generated, overall.generated).all()
        cell = overall if inside else pool_cell(attribute, pool)
        pool_means = means if inside else subsample_means(metric, cell, plan, "null")
        real, generated = np.searchsorted(cell.real, pool.real), np.searchsorted(cell.generated, pool.generated)
        images = images_per_patient(cell, plan)
        columns: list[list[Array]] = [[] for _ in means]
        for group, eligible in enumerate(plan.eligible(attribute)):
            weights = (
                (pool.real_groups == group) / images[0][real],
                (pool.generated_groups == group) / images[1][generated],
            )
            for index, mean in enumerate(pool_means):
                influence = mean.influence(expected_overlap(eligible, plan))
                local = Influence(
                    means[index].value,
                    influence.real[real] if len(influence.real) else influence.real,
                    influence.generated[generated] if len(influence.generated) else influence.generated,
                )
                columns[index].append(first_order_replicates(local, *weights))
        for index, column in enumerate(columns):
            result[index][attribute] = np.stack(column, axis=1)
    return result


def pool_cell(attribute: str, pool: Pool) -> Cell:
    """Cell of all rows of a pool, in ascending order."""
    return Cell(attribute, "*", -1, np.sort(pool.real), np.sort(pool.generated), 0, [], None)


def images_per_patient(cell: Cell, plan: MeasurementPlan) -> tuple[Array, Array]:
    """Number of images of each row's patient among the cell's real, and among its generated, rows.

    Multiplicities divided by it count patients, of each of whom a subsample holds one image.
    """
    first, second = (np.bincount(codes)[codes].astype(np.float64) for codes in plan.patients(cell))
    return first, second


def subsample_overlap(cell: Cell, plan: MeasurementPlan) -> float:
    """Expected share of images that two subsamples with one image in common have in common besides it.

    It is the share of patients in common times the probability that the same image of a patient is drawn. Two images
    of one patient are alike, so the share is a lower bound, and the intervals derived from it are conservative.
    """
    shares = []
    for codes in plan.patients(cell):
        counts = np.bincount(codes)
        shares.append(min(1.0, (plan.n - 1) / max(1, len(counts) - 1)) * float(np.mean(1 / counts)))
    return float(np.mean(shares))


def expected_overlap(cell: Cell, plan: MeasurementPlan) -> float:
    """Overlap of two of the subsamples that are averaged, which are identical once in ``repeats`` times."""
    overlap = subsample_overlap(cell, plan)
    return overlap + (1 - overlap) / plan.settings.repeats


@dataclass(frozen=True)
class InfluenceVariance:
    """Mean influences of patients, [P], and the components of their variance (``influence_variance``).

    ``linear`` and ``pairs`` are V1 and V2; ``patients`` [N] is the patient of each row.
    """

    psi: Array
    linear: float
    pairs: float
    patients: Rows

    def scaled(self, overlap: float) -> Array:
        """[N] influences, scaled to the variance of a mean over subsamples of this overlap f: V1 + f V2."""
        observed = float(np.mean(self.psi * self.psi)) if len(self.psi) else 0.0
        scale = np.sqrt((self.linear + overlap * self.pairs) / observed) if observed > 0 else 1.0
        return np.asarray(self.psi[self.patients] * scale)


@dataclass(frozen=True)
class SubsampleMean:
    """Mean of a metric over subsamples, its Monte-Carlo standard error, and influences of real and generated images."""

    value: float
    error: float
    real: InfluenceVariance
    generated: InfluenceVariance

    def influence(self, overlap: float) -> Influence:
        """Value and influences of a mean over subsamples of this overlap."""
        return Influence(self.value, self.real.scaled(overlap), self.generated.scaled(overlap))


def subsample_means(metric: InfluenceMetric, cell: Cell, plan: MeasurementPlan, purpose: str) -> list[SubsampleMean]:
    """Means of metrics over subsamples of n real and n generated rows, with the mean influence of every patient.

    There are as many subsamples as it takes to use every patient ``repeats`` times.
    """
    patients, overlap = plan.patients(cell), subsample_overlap(cell, plan)
    samples = subsample_pairs(patients, plan, plan.rng(purpose, cell))
    influences = [metric(cell.real[real], cell.generated[generated]) for real, generated in samples]
    values = np.array([[influence.value for influence in sample] for sample in influences])
    rounds = [chunk.mean(axis=0) for chunk in np.array_split(values, plan.settings.repeats)]
    errors = np.std(rounds, axis=0, ddof=1) / np.sqrt(len(rounds)) if len(rounds) > 1 else np.zeros(values.shape[1])
    means = []
    for index in range(values.shape[1]):
        pairs = list(zip(samples, (sample[index] for sample in influences), strict=True))
        real = influence_variance(patients[0], [(rows[0], influence.real) for rows, influence in pairs], overlap)
        generated = influence_variance(
            patients[1], [(rows[1], influence.generated) for rows, influence in pairs], overlap
        )
        means.append(SubsampleMean(float(values[:, index].mean()), float(errors[index]), real, generated))
    return means


def influence_variance(patients: Rows, samples: list[tuple[Rows, Array]], overlap: float) -> InfluenceVariance:
    """Mean influence of each patient over subsamples, and the components of its variance.

    ``patients`` [N] are codes of the rows; ``samples`` hold the rows of a subsample, one of each patient, with their
    influences. The influence of a patient depends on the other patients of a subsample. In the Hoeffding
    decomposition of a value on n patients let V1 be n times the variance of its linear part and V2 that of its pairs.
    An influence by the jackknife has the variance V1 + 2 V2 (Efron and Stein, Ann. Stat. 9, 1981), its mean over
    subsamples V1 + 2 f V2, and n times the mean of the value over subsamples V1 + f V2, where f
    (``subsample_overlap``; ``expected_overlap`` for the few that are drawn) is the share of other images that two
    subsamples with an image in common share: averaging removes most of the pairs' noise. V2 is estimated from the
    variance of one image's influence between subsamples, 2 (1 - f) V2. Where each image is in a single subsample the
    components cannot be separated, and the variance counts as linear, which is conservative.
    """
    samples = [sample for sample in samples if len(sample[1])]
    if not samples:
        return InfluenceVariance(np.zeros(int(patients.max()) + 1), 0.0, 0.0, patients)
    rows, psi = (np.concatenate(column) for column in zip(*samples, strict=True))
    mean, noise, count = _variance_within(patients[rows], psi, int(patients.max()) + 1)
    observed = float(np.mean(mean * mean))
    within = _variance_within(rows, psi, len(patients))[1]
    if observed == 0 or overlap >= 1 or within is None or noise is None:
        return InfluenceVariance(mean, observed, 0.0, patients)
    between = max(0.0, observed - noise * float(np.mean(1 / np.maximum(count, 1))))
    pairs = within / (2 * (1 - overlap))
    return InfluenceVariance(mean, max(0.0, between - 2 * overlap * pairs), pairs, patients)


def _variance_within(codes: Rows, values: Array, size: int) -> tuple[Array, float | None, NDArray[Any]]:
    """Mean of the values of each code, variance about it pooled over codes (None: each has one value), counts."""
    total, count = np.bincount(codes, values, size), np.bincount(codes, minlength=size)
    mean = total / np.maximum(count, 1)
    spare = int(np.maximum(count - 1, 0).sum())
    return mean, float(np.sum((values - mean[codes]) ** 2)) / spare if spare else None, count


def subsample_pairs(
    patients: tuple[Rows, Rows], plan: MeasurementPlan, rng: np.random.Generator
) -> list[tuple[Rows, Rows]]:
    """Pairs of n real and n generated positions that use every patient ``repeats`` times or more."""
    least = plan.settings.repeats * max(-(-(int(codes.max()) + 1) // plan.n) for codes in patients)
    samples = [covering_subsamples(codes, plan.n, least, rng)[:least] for codes in patients]
    return list(zip(*samples, strict=True))


def first_order_replicates(influence: Influence, real: Array, generated: Array) -> Array:
    """[R] first-order replicates for multiplicities [R, .]: value + weighted mean influences of both sets of rows.

    NaN where rows that have an influence have no weight.
    """
    shifts = [
        weighted_mean(psi, weights) if psi.any() else np.zeros(len(weights))
        for psi, weights in ((influence.real, real), (influence.generated, generated))
    ]
    return np.asarray(influence.value + shifts[0] + shifts[1], dtype=np.float64)


def measure_mean(
    metric: str, kind: str, generated: Array, real: Array | None, plan: MeasurementPlan, note: str = ""
) -> MetricResult:
    """Measure the mean of a score over the generated images of each cell; its floor is the mean over real images.

    ``generated`` [M] and ``real`` [N] (None: no floor) are the scores of the images; an image whose score is NaN
    does not count. A mean is its own first-order expansion, so everything is exact.
    """

    def value(_: Rows, rows: Rows, __: Array, weights: Array) -> Array:
        return weighted_mean(generated[rows], weights)

    def floor(cell: Cell) -> float:
        scores = np.zeros(0) if real is None else real[cell.real]
        return float(weighted_mean(scores, np.ones((1, len(scores))))[0])

    result = measure_weighted(metric, kind, value, None if real is None else floor, plan, note)
    if real is None:
        return result
    sign = 1.0 if kind == "lower" else -1.0
    tested = {}
    for cell in plan.cells:
        key = cell.attribute, cell.group
        if key in result.estimates:
            codes = plan.patients(cell)
            samples = (sign * generated[cell.generated], codes[1]), (sign * real[cell.real], codes[0])
            p = exceedance_p_value(*samples, plan.rng(f"floor/{metric}", cell))
            tested[key] = replace(result.estimates[key], p_floor=p)
    return replace(result, estimates={**result.estimates, **tested})


def _mean_and_error(values: float | Array | list[float]) -> tuple[float, float]:
    array = np.atleast_1d(np.asarray(values, dtype=np.float64))
    error = float(array.std(ddof=1) / np.sqrt(len(array))) if len(array) > 1 else 0.0
    return float(array.mean()), error
