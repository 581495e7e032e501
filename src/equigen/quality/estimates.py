"""From features to estimates: each metric in each cell with its replicates, floor and null values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from equigen.progress import Bar
from equigen.quality.cells import Cell, Draws, Rows, Settings, cover
from equigen.quality.distances import (
    Array,
    Influence,
    cross_mean,
    frechet_influence,
    frechet_of_inner,
    kernel_of_inner,
    pair_mean,
    without_clusters,
)
from equigen.quality.scores import inception_influence
from equigen.seeds import numpy_generator

Key = tuple[str, str]


@dataclass(frozen=True)
class Estimate:
    """A value with its bootstrap replicates [R] and its floor (None where the metric has none)."""

    value: float
    replicates: Array
    floor: float | None = None


@dataclass(frozen=True)
class Measured:
    """One metric in all eligible cells.

    ``null`` gives for each attribute [R, G] what its eligible groups, in the order of the cells, would show
    if group labels meant nothing. ``kind`` is "lower", "higher" (both relative when equity-scaled), "share".
    """

    metric: str
    kind: str
    estimates: dict[Key, Estimate]
    null: dict[str, Array]
    note: str = ""


@dataclass(frozen=True)
class Inner:
    """Inner products x·y of all rows of both sides, from which FD and KD of any subset follow."""

    rr: Array
    rg: Array
    gg: Array
    dimension: int


def inner_products(real: Array, generated: Array) -> Inner:
    """Inner products of float64 features; the origin stays where it is, since KD's kernel depends on it."""
    r, g = real, generated
    return Inner(r @ r.T, r @ g.T, g @ g.T, real.shape[1])


Plug = Callable[[Rows, Rows], Influence]
Floor = Callable[[Cell], float]


@dataclass(frozen=True)
class Plan:
    """What all metrics share: the cells, the resampling draws, the one n, the settings, the progress bar."""

    cells: list[Cell]
    draws: Draws
    n: int
    settings: Settings
    bar: Bar

    def rng(self, purpose: str, cell: Cell) -> np.random.Generator:
        """A generator for one purpose in one cell."""
        return numpy_generator(self.settings.seed, f"quality/{purpose}/{cell.attribute}/{cell.group}")

    def weights(self, cell: Cell) -> tuple[Array, Array]:
        """Bootstrap multiplicities of the cell's rows on both sides."""
        return self.draws.real[:, cell.real], self.draws.generated[:, cell.generated]

    def half_samples(self, cell: Cell) -> list[tuple[Rows, Rows]]:
        """Pairs of n real rows from two halves that share no patient; each split of the cell uses all rows."""
        rng, pairs = self.rng("floor", cell), []
        for halves in cell.halves:
            least = max(-(-len(half) // self.n) for half in halves)
            samples = [[half[rows] for rows in cover(len(half), self.n, least, rng)] for half in halves]
            pairs += [(cell.real[first], cell.real[second]) for first, second in zip(*samples, strict=False)]
        return pairs


def null_values(
    value: Callable[[Array, Array], Array], cells: list[Cell], draws: Draws
) -> dict[str, Array]:
    """[R, G] per attribute: ``value`` of the rows that each permutation gives to each eligible group.

    ``value`` takes multiplicities of the real [R, N] and the generated rows [R, M].
    """
    result = {}
    for name, (real, generated) in draws.null.items():
        codes = [cell.code for cell in cells if cell.attribute == name and cell.reason is None]
        values = [value(*((side == code).astype(np.float64) for side in (real, generated))) for code in codes]
        result[name] = np.stack(values, axis=-1) if values else np.zeros((len(real), 0))
    return result


def averaged(plug: Plug, cell: Cell, plan: Plan, metric: str) -> Influence:
    """Mean of a metric over subsamples of n rows of both sides, with the mean influence of every row.

    So many subsamples are drawn that every row of both sides is used ``repeats`` times or more: the mean
    influence of a row must not carry the noise of those it was drawn with.
    """
    rng, sides = plan.rng(metric, cell), (cell.real, cell.generated)
    least = plan.settings.repeats * max(-(-len(rows) // plan.n) for rows in sides)
    samples = [cover(len(rows), plan.n, least, rng)[:least] for rows in sides]
    values, sums = [], [np.zeros((2, len(rows))) for rows in sides]
    for chosen in zip(*samples, strict=True):
        part = plug(cell.real[chosen[0]], cell.generated[chosen[1]])
        values.append(part.value)
        for total, rows, psi in zip(sums, chosen, (part.real, part.generated), strict=True):
            if len(psi):
                total[0, rows] += psi
                total[1, rows] += 1
    psi_real, psi_generated = (total[0] / np.maximum(total[1], 1) for total in sums)
    return Influence(float(np.mean(values)), psi_real, psi_generated)


def first_order(part: Influence, real: Array, generated: Array) -> Array:
    """Replicates to first order: value + weighted mean influence of both sides, multiplicities [R, .] -> [R].

    NaN where a side that matters has no row.
    """
    shifts = [_weighted(psi, weights) for psi, weights in ((part.real, real), (part.generated, generated))]
    return np.asarray(part.value + shifts[0] + shifts[1], dtype=np.float64)


def _weighted(psi: Array, weights: Array) -> Array:
    if not psi.any():
        return np.zeros(len(weights))
    total = weights.sum(axis=1)
    mean: Array = np.divide(weights @ psi, total, out=np.full(len(total), np.nan), where=total > 0)
    return mean


def measure_plug(
    name: tuple[str, str], plug: Plug, floor: Floor | None, plan: Plan, note: str = ""
) -> Measured:
    """Measure a metric that has an influence function (FD, IS) at n in every eligible cell.

    ``name`` is the metric and its kind. The null values are to first order too: group means of the influences
    of the whole set, under permutation of the groups.
    """
    estimates: dict[Key, Estimate] = {}
    null: dict[str, Array] = {}
    for cell in plan.cells:
        if cell.reason is None:
            part = averaged(plug, cell, plan, name[0])
            replicates = first_order(part, *plan.weights(cell))
            base = floor(cell) if floor is not None else None
            estimates[cell.attribute, cell.group] = Estimate(part.value, replicates, base)
            if cell.attribute == "*":
                null = null_values(partial(first_order, part), plan.cells, plan.draws)
        plan.bar.advance()
    return Measured(*name, estimates, null, note)


def measure_frechet(inner: Inner, plan: Plan, note: str = "") -> Measured:
    """FD at n in every eligible cell; its floor is the FD of two halves of the cell's real images."""
    def plug(real: Rows, generated: Rows) -> Influence:
        return frechet_influence(inner.rr[np.ix_(real, real)], inner.rg[np.ix_(real, generated)],
                                 inner.gg[np.ix_(generated, generated)])

    def floor(cell: Cell) -> float:
        halves = plan.half_samples(cell)
        return float(np.mean([
            frechet_of_inner(*(inner.rr[np.ix_(x, y)] for x, y in ((a, a), (a, b), (b, b))))
            for a, b in halves
        ]))
    return measure_plug(("fd", "lower"), plug, floor, plan, note)


def measure_inception(
    real: NDArray[np.float32], generated: NDArray[np.float32], plan: Plan, note: str = ""
) -> Measured:
    """IS at n in every eligible cell; the IS of the cell's real images at n stands in the floor's place."""
    def plug(_: Rows, rows: Rows) -> Influence:
        return inception_influence(generated[rows])

    def floor(cell: Cell) -> float:
        samples = cover(len(cell.real), plan.n, plan.settings.repeats, plan.rng("is/real", cell))
        return float(np.mean([inception_influence(real[cell.real[rows]]).value for rows in samples]))
    return measure_plug(("is", "higher"), plug, floor, plan, note)


@dataclass(frozen=True)
class Kernels:
    """Kernel matrices with zero where both rows are of one patient, and the patients' codes of both sides."""

    rr: Array
    rg: Array
    gg: Array
    real: Rows
    generated: Rows


def kernels(inner: Inner, real: Rows, generated: Rows) -> Kernels:
    """Kernels of KD from the inner products; ``real`` and ``generated`` are patient codes on one scale.

    Pairs of one patient across the two sides (a reconstruction beside its original) are left out too.
    """
    rr, rg, gg = (kernel_of_inner(part, inner.dimension) for part in (inner.rr, inner.rg, inner.gg))
    rg[real[:, None] == generated[None, :]] = 0.0
    return Kernels(without_clusters(rr, real), rg, without_clusters(gg, generated), real, generated)


def kernel_value(parts: Kernels, real: Array, generated: Array) -> Array:
    """KD for multiplicities [R, N] of the real and [R, M] of the generated rows -> [R]."""
    within = pair_mean(parts.rr, real, parts.real) + pair_mean(parts.gg, generated, parts.generated)
    return np.asarray(within - 2 * cross_mean(parts.rg, real, generated, parts.real, parts.generated))


def _part(parts: Kernels, real: Rows, generated: Rows) -> Kernels:
    return Kernels(parts.rr[np.ix_(real, real)], parts.rg[np.ix_(real, generated)],
                   parts.gg[np.ix_(generated, generated)], parts.real[real], parts.generated[generated])


def measure_kernel(parts: Kernels, plan: Plan) -> Measured:
    """KD in every eligible cell; unbiased, its mean over all subsamples of n is its value on all rows."""
    estimates: dict[Key, Estimate] = {}
    for cell in plan.cells:
        if cell.reason is None:
            own = _part(parts, cell.real, cell.generated)
            value = kernel_value(own, np.ones((1, len(cell.real))), np.ones((1, len(cell.generated))))
            replicates, floor = kernel_value(own, *plan.weights(cell)), _kernel_floor(parts, cell)
            estimates[cell.attribute, cell.group] = Estimate(float(value[0]), replicates, floor)
        plan.bar.advance()
    null = null_values(partial(kernel_value, parts), plan.cells, plan.draws)
    return Measured("kd", "lower", estimates, null)


def _kernel_floor(parts: Kernels, cell: Cell) -> float:
    """KD between whole halves, which is its mean over all subsamples of n of both halves."""
    values = []
    for a, b in ((cell.real[first], cell.real[second]) for first, second in cell.halves):
        rr, rg, gg = (parts.rr[np.ix_(x, y)] for x, y in ((a, a), (a, b), (b, b)))
        half = Kernels(rr, rg, gg, parts.real[a], parts.real[b])
        values.append(float(kernel_value(half, np.ones((1, len(a))), np.ones((1, len(b))))[0]))
    return float(np.mean(values))
