"""From features to estimates: a metric in each cell with its replicates, floor and null values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equigen.quality.cells import Cell, Rows, covering_subsamples
from equigen.quality.floors import exceedance_p_value
from equigen.quality.metric_inputs import Array, CellKey, Estimate, MeasurementPlan, MetricResult, WeightedMetric
from equigen.quality.metrics.distances import Influence
from equigen.quality.resamples import Pool

__all__ = [
    "Array",
    "CellKey",
    "Estimate",
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
STACKED = 2**25  # multiplicities of one side in memory at a time, 256 MiB


def measure_weighted(
    metric: str, kind: str, value: WeightedMetric, floor: FloorMetric | None, plan: MeasurementPlan, note: str = "",
    null: NullMetric | None = None,
) -> MetricResult:
    """Measure a metric that takes multiplicities, exactly so in each replicate and permutation.

    Args:
        metric: its name in the table.
        kind: "lower", "higher" or "share".
        value: rows of both sides and multiplicities [R, n] and [R, m] -> [R], NaN where undefined.
        floor: what two halves of a cell's real images give, or one value for each split; None for none.
        plan: cells and draws.
        note: words for each row of the metric.
        null: a cheaper way to the same null values; None calls ``value`` on the pool.

    """
    estimates: dict[CellKey, Estimate] = {}
    for cell in plan.cells:
        if cell.reason is None:
            weights = [np.concatenate([np.ones((1, side.shape[1])), side]) for side in plan.weights(cell)]
            values = value(cell.real, cell.generated, *weights)
            base, error = _mean_and_error(floor(cell)) if floor is not None else (None, 0.0)
            estimates[cell.attribute, cell.group] = Estimate(float(values[0]), values[1:], base, 0.0, error)
        plan.bar.advance()
    pools = plan.draws.null.items()
    chance = {name: null(pool) if null is not None else pool_values(value, pool) for name, pool in pools}
    return MetricResult(metric, kind, estimates, chance, note)


def pool_values(value: WeightedMetric, pool: Pool) -> Array:
    """[R, G]: ``value`` of the rows that each permutation gives to each group; several groups in one call."""
    count = len(pool.real_groups)
    step = max(1, STACKED // max(1, pool.size * max(len(pool.real), len(pool.generated))))
    parts = []
    for start in range(0, count, step):
        stacked = [
            np.concatenate([side[start : start + step] == group for group in range(pool.size)]).astype(np.float64)
            for side in (pool.real_groups, pool.generated_groups)
        ]
        parts.append(value(pool.real, pool.generated, *stacked).reshape(pool.size, -1).T)
    return np.concatenate(parts)


def measure_with_influences(
    metrics: list[tuple[str, str]], plug: InfluenceMetric, floor: Callable[[Cell], Any] | None, plan: MeasurementPlan,
    notes: list[str],
) -> list[MetricResult]:
    """Measure metrics that have influence functions at matched n, over subsamples, in every eligible cell.

    ``plug`` gives one ``Influence`` for each of ``metrics`` (name and kind), and ``floor`` one value, or an array
    with a value for each half split; it depends on the real side alone (``Plan.memory``). Replicates and null
    values are to first order: the mean influence of the rows that were drawn; for the null the influences of the
    whole set.
    """
    estimates: list[dict[CellKey, Estimate]] = [{} for _ in metrics]
    null: list[dict[str, Array]] = [{} for _ in metrics]
    names = ", ".join(name for name, _ in metrics)
    for cell in plan.cells:
        if cell.reason is None:
            parts = subsample_means(plug, cell, plan, metrics[0][0])
            bases = [None] * len(metrics)
            if floor is not None:
                bases = plan.compute_for_halves("floor of " + names, cell, partial(floor, cell))
            for index, (part, base) in enumerate(zip(parts, bases, strict=True)):
                weights = [multiplicities / images for multiplicities, images
                           in zip(plan.weights(cell), images_per_patient(cell, plan), strict=True)]
                replicates = first_order_replicates(part.influence(expected_overlap(cell, plan)), *weights)
                noise = plan.rng(f"monte-carlo/{metrics[index][0]}", cell).standard_normal(len(replicates))
                replicates = replicates + part.error * noise  # an estimate has that of its few subsamples too
                centre, spread = _mean_and_error(base) if base is not None else (None, 0.0)
                place = cell.attribute, cell.group
                estimates[index][place] = Estimate(part.value, replicates, centre, part.error, spread)
            if cell.attribute == "*":
                null = _first_order_null(parts, plug, cell, plan)
        plan.bar.advance()
    null = [_with_error(chance, own, plan) for chance, own in zip(null, estimates, strict=True)]
    zipped = zip(metrics, estimates, null, notes, strict=True)
    return [MetricResult(*name, own, chance, note) for name, own, chance, note in zipped]


def _with_error(null: dict[str, Array], estimates: dict[CellKey, Estimate], plan: MeasurementPlan) -> dict[str, Array]:
    """Null values with the subsampling error that the groups' estimates have too."""
    result = {}
    for attribute, values in null.items():
        cells = plan.eligible(attribute)
        errors = [estimates[attribute, cell.group].mc_value for cell in cells]
        noise = [plan.rng("monte-carlo/null", cell).standard_normal(len(values)) for cell in cells]
        result[attribute] = values + np.stack(noise, axis=1) * np.array(errors)
    return result


def _first_order_null(
    parts: list[SubsampleMean], plug: InfluenceMetric, whole: Cell, plan: MeasurementPlan
) -> list[dict[str, Array]]:
    """For each metric, the group means of the influences under permutation, about the value of the whole set.

    Influences are those of the whole set, or of the pool where it holds rows that a limited whole set does not,
    scaled to the overlap of each group's own subsamples.
    """
    result: list[dict[str, Array]] = [{} for _ in parts]
    for attribute, pool in plan.draws.null.items():
        inside = np.isin(pool.real, whole.real).all() and np.isin(pool.generated, whole.generated).all()
        everything = whole if inside else pool_cell(attribute, pool)
        own = parts if inside else subsample_means(plug, everything, plan, "null")
        at = [np.searchsorted(everything.real, pool.real), np.searchsorted(everything.generated, pool.generated)]
        columns: list[list[Array]] = [[] for _ in parts]
        each = [per[own] for per, own in zip(images_per_patient(everything, plan), at, strict=True)]
        for group, cell in enumerate(plan.eligible(attribute)):
            weights = [(side == group) / per
                       for side, per in zip((pool.real_groups, pool.generated_groups), each, strict=True)]
            for index, part in enumerate(own):
                psi = part.influence(expected_overlap(cell, plan))
                local = Influence(parts[index].value, psi.real[at[0]] if len(psi.real) else psi.real,
                                  psi.generated[at[1]] if len(psi.generated) else psi.generated)
                columns[index].append(first_order_replicates(local, *weights))
        for index, column in enumerate(columns):
            result[index][attribute] = np.stack(column, axis=1)
    return result


def pool_cell(attribute: str, pool: Pool) -> Cell:
    """All rows of a pool as one cell, in ascending order."""
    return Cell(attribute, "*", -1, np.sort(pool.real), np.sort(pool.generated), 0, [], None)


def images_per_patient(cell: Cell, plan: MeasurementPlan) -> tuple[Array, Array]:
    """How many of the cell's rows are of the same patient as each row, on both sides.

    Divided by it, multiplicities count patients, of each of whom a subsample holds one image.
    """
    first, second = (np.bincount(codes)[codes].astype(np.float64) for codes in plan.patients(cell))
    return first, second


def subsample_overlap(cell: Cell, plan: MeasurementPlan) -> float:
    """Of the other images of a subsample that holds a given one, the share that another such one holds too.

    It is the share of patients in common times the chance that the same image of a patient is drawn. Two images of
    one patient are alike, so that this is too little, and what follows from it errs on the wide side.
    """
    shares = []
    for codes in plan.patients(cell):
        counts = np.bincount(codes)
        shares.append(min(1.0, (plan.n - 1) / max(1, len(counts) - 1)) * float(np.mean(1 / counts)))
    return float(np.mean(shares))


def expected_overlap(cell: Cell, plan: MeasurementPlan) -> float:
    """The same for two of the subsamples that are averaged, which are one and the same once in ``repeats`` times."""
    overlap = subsample_overlap(cell, plan)
    return overlap + (1 - overlap) / plan.settings.repeats


@dataclass(frozen=True)
class InfluenceVariance:
    """Mean influences of the patients of one side, [P], and their variance taken apart (``influence_variance``).

    ``patients`` [N] is the patient of each row.
    """

    psi: Array
    linear: float
    pairs: float
    patients: Rows

    def scaled(self, overlap: float) -> Array:
        """[N] influences with the variance that a mean over subsamples of this overlap has: V1 + f V2."""
        observed = float(np.mean(self.psi * self.psi)) if len(self.psi) else 0.0
        scale = np.sqrt((self.linear + overlap * self.pairs) / observed) if observed > 0 else 1.0
        return np.asarray(self.psi[self.patients] * scale)


@dataclass(frozen=True)
class SubsampleMean:
    """Mean of a metric over subsamples, its Monte-Carlo standard error, and both sides' influences."""

    value: float
    error: float
    sides: tuple[InfluenceVariance, InfluenceVariance]

    def influence(self, overlap: float) -> Influence:
        """Value and influences as of a mean over subsamples of this overlap."""
        return Influence(self.value, self.sides[0].scaled(overlap), self.sides[1].scaled(overlap))


def subsample_means(plug: InfluenceMetric, cell: Cell, plan: MeasurementPlan, purpose: str) -> list[SubsampleMean]:
    """Means of metrics over subsamples of n rows of both sides, with the mean influence of every patient.

    So many subsamples are drawn that every patient of both sides is used ``repeats`` times or more.
    """
    patients, overlap = plan.patients(cell), subsample_overlap(cell, plan)
    samples = subsample_pairs(patients, plan, plan.rng(purpose, cell))
    drawn = [plug(cell.real[real], cell.generated[generated]) for real, generated in samples]
    values = np.array([[part.value for part in parts] for parts in drawn])
    rounds = [part.mean(axis=0) for part in np.array_split(values, plan.settings.repeats)]
    errors = np.std(rounds, axis=0, ddof=1) / np.sqrt(len(rounds)) if len(rounds) > 1 else np.zeros(values.shape[1])
    merged = []
    for index in range(values.shape[1]):
        sides = [
            influence_variance(codes, [(chosen[side], (parts[index].real, parts[index].generated)[side])
                              for chosen, parts in zip(samples, drawn, strict=True)], overlap)
            for side, codes in enumerate(patients)
        ]
        merged.append(SubsampleMean(float(values[:, index].mean()), float(errors[index]), (sides[0], sides[1])))
    return merged


def influence_variance(patients: Rows, parts: list[tuple[Rows, Array]], overlap: float) -> InfluenceVariance:
    """Mean influence of each patient over subsamples, and what its variance is made of.

    ``patients`` [N] are codes of the rows; ``parts`` hold rows of a subsample, one a patient, with their influences.
    The influence of a patient depends on those it was drawn with. In the Hoeffding decomposition of a value on n
    patients let V1 be n times the variance of its linear part and V2 that of its pairs. An influence by the jackknife
    has the variance V1 + 2 V2 (Efron and Stein, Ann. Stat. 9, 1981), its mean over subsamples V1 + 2 f V2, and
    n times the mean of the value over subsamples V1 + f V2, where f (``subsample_overlap``; ``expected_overlap`` for
    the few that are drawn) is the share of others that two subsamples with an image in common have in common: averaging
    takes most of the pairs' noise out. V2 follows from how much one image's influence differs between subsamples,
    2 (1 - f) V2. Where images are in one subsample alone nothing can be told apart, and all is taken for linear,
    which errs on the wide side.
    """
    drawn = [part for part in parts if len(part[1])]
    if not drawn:
        return InfluenceVariance(np.zeros(int(patients.max()) + 1), 0.0, 0.0, patients)
    rows, psi = (np.concatenate(column) for column in zip(*drawn, strict=True))
    mean, noise, count = _within(patients[rows], psi, int(patients.max()) + 1)
    observed = float(np.mean(mean * mean))
    within = _within(rows, psi, len(patients))[1]
    if observed == 0 or overlap >= 1 or within is None or noise is None:
        return InfluenceVariance(mean, observed, 0.0, patients)
    between = max(0.0, observed - noise * float(np.mean(1 / np.maximum(count, 1))))
    pairs = within / (2 * (1 - overlap))
    return InfluenceVariance(mean, max(0.0, between - 2 * overlap * pairs), pairs, patients)


def _within(codes: Rows, values: Array, size: int) -> tuple[Array, float | None, NDArray[Any]]:
    """Mean of the values of each code, variance about it pooled over codes (None: each has one value), counts."""
    total, count = np.bincount(codes, values, size), np.bincount(codes, minlength=size)
    mean = total / np.maximum(count, 1)
    spare = int(np.maximum(count - 1, 0).sum())
    return mean, float(np.sum((values - mean[codes]) ** 2)) / spare if spare else None, count


def subsample_pairs(
    patients: tuple[Rows, Rows], plan: MeasurementPlan, rng: np.random.Generator
) -> list[tuple[Rows, Rows]]:
    """Pairs of n positions of both sides; every patient of both is used ``repeats`` times or more."""
    least = plan.settings.repeats * max(-(-(int(codes.max()) + 1) // plan.n) for codes in patients)
    both = [covering_subsamples(codes, plan.n, least, rng)[:least] for codes in patients]
    return list(zip(*both, strict=True))


def first_order_replicates(part: Influence, real: Array, generated: Array) -> Array:
    """Replicates to first order: value + weighted mean influence of both sides, multiplicities [R, .] -> [R].

    NaN where a side that matters has no row.
    """
    shifts = [weighted_mean(psi, weights) if psi.any() else np.zeros(len(weights))
              for psi, weights in ((part.real, real), (part.generated, generated))]
    return np.asarray(part.value + shifts[0] + shifts[1], dtype=np.float64)


def weighted_mean(scores: Array, weights: Array) -> Array:
    """Mean of [n] scores under multiplicities [R, n] -> [R]; a score of NaN does not count; NaN for no row."""
    known = np.isfinite(scores)
    total = weights[:, known].sum(axis=1)
    mean: Array = np.divide(weights[:, known] @ scores[known], total, out=np.full(len(total), np.nan), where=total > 0)
    return mean


def measure_mean(
    metric: str, kind: str, generated: Array, real: Array | None, plan: MeasurementPlan, note: str = ""
) -> MetricResult:
    """Mean of a score over the generated images of each cell; its floor is the mean over the real ones.

    ``generated`` [M] and ``real`` [N] (None: no floor) hold the score of each image of a side; an image whose
    score is NaN does not count. A mean is its own first-order expansion, so everything is exact.
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
        place = cell.attribute, cell.group
        if place in result.estimates:
            codes = plan.patients(cell)
            sides = (sign * generated[cell.generated], codes[1]), (sign * real[cell.real], codes[0])
            p = exceedance_p_value(*sides, plan.rng(f"floor/{metric}", cell))
            tested[place] = replace(result.estimates[place], p_floor=p)
    return replace(result, estimates={**result.estimates, **tested})


def _mean_and_error(values: float | Array | list[float]) -> tuple[float, float]:
    array = np.atleast_1d(np.asarray(values, dtype=np.float64))
    error = float(array.std(ddof=1) / np.sqrt(len(array))) if len(array) > 1 else 0.0
    return float(array.mean()), error
