"""Kernel distance (KD) of two sets and in every cell; the kernel matrix is computed in tiles, never stored in full."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from equigen.errors import InputError, Problem
from equigen.quality.cells import Cell, Rows
from equigen.quality.estimates import measure_weighted
from equigen.quality.metric_inputs import Array, MeasurementPlan, MetricResult
from equigen.quality.metrics.influence import check_sets
from equigen.quality.resamples import Pool
from equigen.statistics import quotient, split_halves

TILE = 1024  # rows of a tile: 8 MiB in float64; of a symmetric matrix half the tiles are enough
WORK = 1e12  # floating-point operations for one attribute's null band; larger pools get fewer permutations
SPLITS = 100  # random halvings of the real images that a floor averages over
LEAST = 99  # fewest permutations of a large pool
UNBIASED = "unbiased at any n"
Once = Callable[[str, Sequence[NDArray[Any]], Callable[[], Array]], Array]  # ``MeasurementPlan.compute_once``


@dataclass(frozen=True)
class KernelData:
    """Features [N, D] and [M, D] of both sets, and patient codes on one scale.

    Pairs of one patient are left out, also between real and generated images (a reconstruction and its original).
    ``shift`` is subtracted from every kernel value: KD does not depend on it, and rounding errors become smaller.
    """

    real: NDArray[Any]
    generated: NDArray[Any]
    real_patients: Rows
    generated_patients: Rows
    shift: float


def kernel_data(
    real: NDArray[Any],
    generated: NDArray[Any],
    real_patients: NDArray[Any],
    generated_patients: NDArray[Any],
) -> KernelData:
    """Code the patients of both sets on one scale, and take the median kernel of 64 real rows for the shift."""
    codes = np.unique(np.concatenate([real_patients, generated_patients]), return_inverse=True)[1].astype(np.int64)
    sample = _kernel(real[:64].astype(np.float64), real[:64].astype(np.float64)).ravel()
    shift = float(np.sort(sample)[len(sample) // 2]) if len(sample) else 0.0
    return KernelData(real, generated, codes[: len(real)], codes[len(real) :], shift)


def kernel_distance(real: NDArray[Any], generated: NDArray[Any], clusters: NDArray[Any] | None = None) -> float:
    """Return the unbiased squared maximum mean discrepancy with the polynomial kernel (KD; KID on Inception features).

        KD = mean_{i≠j} k(r_i, r_j) + mean_{i≠j} k(g_i, g_j) - 2 mean_{i,j} k(r_i, g_j)

    Source: Gretton et al., JMLR 13, 2012, lemma 6; Bińkowski et al., ICLR 2018. Unbiased at any n, so it may
    be negative. With ``clusters``, pairs of real rows of one cluster (patient) are left out as well: they are
    more alike than two independent rows, and would bias the first mean upwards.

    Args:
        real: [N, D] features.
        generated: [M, D] features.
        clusters: [N] cluster of each real row; None takes each row for its own.

    Raises:
        InputError: fewer than two rows or clusters, different D, NaN or infinity.

    >>> kernel_distance(np.array([[0.0], [1.0]]), np.array([[1.0], [0.0]]))
    -3.5

    """
    r, g = check_sets(real, generated, least=2)
    codes = np.arange(len(r)) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    if codes.max() < 1:
        problem = Problem("all real rows are of one cluster", "give images of at least two patients")
        raise InputError("The kernel distance needs pairs of different clusters.", [problem])
    return unweighted_kernel_value(kernel_data(r, g, codes, len(r) + np.arange(len(g))))


def unweighted_kernel_value(data: KernelData, once: Once | None = None) -> float:
    """Return KD of all rows of both sets, each counted once. ``once`` caches the term of the real rows."""
    rows = np.arange(len(data.real)), np.arange(len(data.generated))
    weights = np.ones((1, len(data.real))), np.ones((1, len(data.generated)))
    return float(kernel_value(data, *rows, *weights, once)[0])


def measure_kernel(data: KernelData, plan: MeasurementPlan, note: str = UNBIASED) -> MetricResult:
    """Measure KD in every eligible cell, on all of its rows.

    KD is unbiased, so its mean over all subsamples of n is its value on all rows. KD, replicates and null values
    are exact. The floor is KD between the full halves of the cell's real images.
    """

    def value(real: Rows, generated: Rows, weights_real: Array, weights_generated: Array) -> Array:
        return kernel_value(data, real, generated, weights_real, weights_generated, plan.compute_once)

    def floor(cell: Cell) -> Array:
        return plan.compute_for_halves(
            "floor of kd", cell, lambda: kernel_halves(data, cell, draw_half_splits(data, cell, plan))
        )

    def null(pool: Pool) -> Array:
        return kernel_null(data, pool, plan.compute_once)

    return measure_weighted("kd", "lower", value, floor, plan, note, null)


def kernel_value(
    data: KernelData,
    real: Rows,
    generated: Rows,
    weights_real: Array,
    weights_generated: Array,
    once: Once | None = None,
) -> Array:
    """Return KD of some rows for multiplicities [R, n] and [R, m] -> [R]; NaN where fewer than two patients remain.

    The first replicate is computed in float64 throughout, the others in float32 products summed over tiles in
    float64, which agree to about 1e-7 of the kernel's spread. ``once`` caches the term of the real rows.
    """
    r = _weighted(data.real, data.real_patients, real, weights_real)
    g = _weighted(data.generated, data.generated_patients, generated, weights_generated)

    def mean(a: _Weighted, b: _Weighted) -> Array:
        return _kernel_mean(a, b, data.shift)

    real_mean = once("kd of real rows", [real], lambda: mean(r, r)) if once else mean(r, r)
    return _clear_rounding(real_mean + mean(g, g) - 2 * mean(r, g), data.shift)


def draw_half_splits(data: KernelData, cell: Cell, plan: MeasurementPlan) -> list[tuple[Rows, Rows]]:
    """Draw 100 random halvings of the cell's real rows, by patient.

    A few would give a noisy floor where patients have many images each.
    """
    rng, codes = plan.rng("halves of kd", cell), data.real_patients[cell.real]
    return [split_halves(codes, rng) for _ in range(SPLITS)]


def kernel_halves(data: KernelData, cell: Cell, half_splits: list[tuple[Rows, Rows]]) -> Array:
    """Return KD between the two halves of each split of the cell's real rows, from one pass over their kernel.

    With S the sum over all pairs and S_a, S_b those within the halves, the sum across is (S - S_a - S_b) / 2.
    """
    weights = np.zeros((1 + 2 * len(half_splits), len(cell.real)))
    weights[0] = 1.0
    for index, halves in enumerate(half_splits):
        for half, indices in enumerate(halves):
            weights[1 + 2 * index + half, indices] = 1.0
    real, total = _Rows(data.real[cell.real], data.real_patients[cell.real]), np.zeros(len(weights))
    for rows, columns, times in _tiles(len(cell.real), len(cell.real), symmetric=True):
        tile = _tile(real, real, rows, columns, data.shift, np.float64)
        total += times * np.einsum("rm,rm->r", weights[:, rows] @ tile, weights[:, columns])
    pairs = pair_counts(real.codes, real.codes, weights, weights)
    within = total[1:].reshape(-1, 2), pairs[1:].reshape(-1, 2)
    across = (total[0] - within[0].sum(axis=1)) / (pairs[0] - within[1].sum(axis=1))
    return _clear_rounding((within[0] / within[1]).sum(axis=1) - 2 * across, data.shift)


@dataclass(frozen=True)
class _Rows:
    """Features [n, D] of some rows and [n] codes of their patients."""

    values: NDArray[Any]
    codes: Rows


@dataclass(frozen=True)
class _Weighted(_Rows):
    """Rows with multiplicities [R, n], in float64 and in float32."""

    weights: Array
    single: NDArray[np.float32]


def _weighted(values: NDArray[Any], codes: Rows, rows: Rows, weights: Array) -> _Weighted:
    """Return some rows of the features with their multiplicities."""
    return _Weighted(values[rows], codes[rows], weights, weights.astype(np.float32))


def _kernel_mean(a: _Weighted, b: _Weighted, shift: float) -> Array:
    """Return the weighted mean of k - shift over pairs of rows of different patients, for each replicate."""
    total = np.zeros(len(a.weights))
    for rows, columns, times in _tiles(len(a.values), len(b.values), a is b):
        tile = _tile(a, b, rows, columns, shift, np.float64)
        total[0] += times * float(a.weights[0, rows] @ tile @ b.weights[0, columns])
        products = a.single[1:, rows] @ tile.astype(np.float32)
        total[1:] += times * np.einsum("rm,rm->r", products, b.weights[1:, columns])
    pairs = pair_counts(a.codes, b.codes, a.weights, b.weights)
    return quotient(total, pairs)


def pair_counts(codes_a: Rows, codes_b: Rows, weights_a: Array, weights_b: Array) -> Array:
    """Count pairs of rows of different patients under the multiplicities [R, n] and [R, m] -> [R]."""
    shared_patients = np.intersect1d(codes_a, codes_b)
    shared = _patient_sums(weights_a, codes_a, shared_patients) * _patient_sums(weights_b, codes_b, shared_patients)
    return np.asarray(weights_a.sum(axis=1) * weights_b.sum(axis=1) - shared.sum(axis=1))


def _patient_sums(weights: Array, codes: Rows, patients: Rows) -> Array:
    """Return the sum of the multiplicities [R, n] over the rows of each patient -> [R, P]."""
    rows = np.flatnonzero(np.isin(codes, patients))
    positions = np.searchsorted(patients, codes[rows])
    member = csr_array((np.ones(len(rows)), (rows, positions)), shape=(len(codes), len(patients)))
    return np.asarray(weights @ member, dtype=np.float64)


def _tiles(rows: int, columns: int, symmetric: bool) -> Iterator[tuple[slice, slice, int]]:
    """Yield rows, columns and multiplicity of each tile; of a symmetric matrix the upper triangle alone."""
    for top in range(0, rows, TILE):
        for start in range(top if symmetric else 0, columns, TILE):
            yield slice(top, top + TILE), slice(start, start + TILE), 2 if symmetric and start > top else 1


def _tile(a: _Rows, b: _Rows, rows: slice, columns: slice, shift: float, dtype: type) -> NDArray[Any]:
    """Return one tile of the kernel less its shift, zero where both rows are of one patient."""
    x: NDArray[Any] = a.values[rows].astype(dtype)
    tile = _kernel(x, x if a is b and rows == columns else b.values[columns].astype(dtype))
    tile -= dtype(shift)
    if np.isin(a.codes[rows], b.codes[columns]).any():
        tile[a.codes[rows][:, None] == b.codes[columns]] = 0
    return tile


def _kernel(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Return the kernel of KID, k(x, y) = (x·y / d + 1)³, in the precision of its arguments."""
    base = np.asarray(a @ b.T)
    base /= a.shape[1]
    base += 1
    square = base * base
    base *= square
    return base


def _clear_rounding(values: Array, shift: float) -> Array:
    """Return the values with those of rounding size set to zero, so that equal sets tie exactly."""
    return np.where(np.abs(values) < 1e-13 * max(1.0, abs(shift)), 0.0, values)


def kernel_null(data: KernelData, pool: Pool, once: Once | None = None) -> Array:
    """Return the exact KD of each group under each permutation of the group labels -> [R, G].

    The last group's products are those of all rows less the other groups'. Very large pools get fewer
    permutations than requested (``WORK``), but at least 99. ``once`` caches the term of the real rows.
    """
    size = max(len(pool.real), len(pool.generated))
    count = int(min(len(pool.real_groups), max(LEAST, WORK / (4.0 * size * size * max(1, pool.size - 1)))))
    r = _Grouped(data.real[pool.real], data.real_patients[pool.real], pool.real_groups[:count])
    g = _Grouped(data.generated[pool.generated], data.generated_patients[pool.generated], pool.generated_groups[:count])

    def mean(a: _Grouped, b: _Grouped) -> Array:
        return _null_mean(a, b, pool.size, data.shift)

    real_mean = once("null of kd of real rows", [pool.real, r.groups], lambda: mean(r, r)) if once else mean(r, r)
    return _clear_rounding(real_mean + mean(g, g) - 2 * mean(r, g), data.shift)


@dataclass(frozen=True)
class _Grouped(_Rows):
    """Rows with their group code under each of R permutations [R, n]."""

    groups: NDArray[np.int16]


def _null_mean(a: _Grouped, b: _Grouped, size: int, shift: float) -> Array:
    """Return the mean of k - shift over pairs within each group under each permutation -> [R, G]."""
    total = np.zeros((len(a.groups), size))
    for rows, columns, times in _tiles(len(a.values), len(b.values), a is b):
        tile = _tile(a, b, rows, columns, shift, np.float32)
        rest = tile.sum(axis=0, dtype=np.float32)[None, :]
        for group in range(size):
            products = rest
            if group < size - 1:
                products = (a.groups[:, rows] == group).astype(np.float32) @ tile
                rest = rest - products
            total[:, group] += times * np.einsum("rm,rm->r", products, b.groups[:, columns] == group)
    pairs = np.empty(total.shape)
    for start in range(0, len(pairs), 50):  # in blocks of permutations, to bound memory
        block = slice(start, start + 50)
        for group in range(size):
            weights = [(rows.groups[block] == group).astype(np.float64) for rows in (a, b)]
            pairs[block, group] = pair_counts(a.codes, b.codes, *weights)
    return quotient(total, pairs)
