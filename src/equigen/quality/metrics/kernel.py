"""KD of all cells from features alone: kernels in tiles, never a matrix of all rows with all rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from equigen.quality.cells import Cell, Rows
from equigen.quality.estimates import measure_weighted
from equigen.quality.metric_inputs import Array, Measured, Plan
from equigen.quality.resamples import Pool
from equigen.statistics import split_halves

TILE = 1024  # rows of a tile: 8 MiB in float64; of a symmetric matrix half the tiles are enough
WORK = 1e12  # floating-point operations spent on one attribute's null band, beyond which permutations are fewer
SPLITS = 100  # halves of the real images that a floor is the mean of
LEAST = 99  # permutations there always are (fewer where fewer are asked for)
UNBIASED = "unbiased at any n"
Once = Callable[[str, Sequence[NDArray[Any]], Callable[[], Array]], Array]  # ``Plan.once``


@dataclass(frozen=True)
class KernelData:
    """Features float32 [N, D] and [M, D], and patient codes of both sides on one scale.

    Pairs of one patient are left out, across the two sides (a reconstruction beside its original) too.
    ``shift`` is subtracted from every kernel: KD does not feel it, rounding does.
    """

    real: NDArray[np.float32]
    generated: NDArray[np.float32]
    real_patients: Rows
    generated_patients: Rows
    shift: float


def kernel_data(
    real: NDArray[np.float32], generated: NDArray[np.float32], real_patients: NDArray[Any],
    generated_patients: NDArray[Any],
) -> KernelData:
    """Bring both sides' patients to one scale, and choose the shift: the median kernel of a few real rows."""
    together = np.unique(np.concatenate([real_patients, generated_patients]), return_inverse=True)[1].astype(np.int64)
    few = _kernel(real[:64].astype(np.float64), real[:64].astype(np.float64)).ravel()
    shift = float(np.sort(few)[len(few) // 2]) if len(few) else 0.0
    return KernelData(real, generated, together[: len(real)], together[len(real) :], shift)


def measure_kernel(data: KernelData, plan: Plan, note: str = UNBIASED) -> Measured:
    """KD in every eligible cell; unbiased, its mean over all subsamples of n is its value on all rows.

    KD, replicates and null values are exact. The floor is KD between whole halves of the cell's real images,
    which is its mean over all subsamples of n of both halves.
    """
    def value(real: Rows, generated: Rows, weights_real: Array, weights_generated: Array) -> Array:
        return kernel_value(data, real, generated, weights_real, weights_generated, plan.once)

    def floor(cell: Cell) -> Array:
        return plan.from_halves("floor of kd", cell, lambda: kernel_halves(data, cell, splits(data, cell, plan)))

    def null(pool: Pool) -> Array:
        return kernel_null(data, pool, plan.once)

    return measure_weighted("kd", "lower", value, floor, plan, note, null)


def kernel_value(
    data: KernelData, real: Rows, generated: Rows, weights_real: Array, weights_generated: Array,
    once: Once | None = None,
) -> Array:
    """KD of some rows for multiplicities [R, n] and [R, m] -> [R]; NaN where fewer than two patients are left.

    The first replicate is computed in float64 throughout, the others in float32 products whose sums over tiles
    are float64: to about 1e-7 of the kernel's spread the same. ``once`` looks up what the real rows alone give.
    """
    r = _weighted(data.real, data.real_patients, real, weights_real)
    g = _weighted(data.generated, data.generated_patients, generated, weights_generated)
    own = once("kd of real rows", [real], lambda: _mean(r, r, data.shift)) if once else _mean(r, r, data.shift)
    return _settled(own + _mean(g, g, data.shift) - 2 * _mean(r, g, data.shift), data.shift)


def splits(data: KernelData, cell: Cell, plan: Plan) -> list[tuple[Rows, Rows]]:
    """Half splits of the cell's real rows, by patient.

    All are measured in one pass; a few would give a noisy floor where patients have many images each.
    """
    rng, codes = plan.rng("halves of kd", cell), data.real_patients[cell.real]
    return [split_halves(codes, rng) for _ in range(SPLITS)]


def kernel_halves(data: KernelData, cell: Cell, halved: list[tuple[Rows, Rows]]) -> Array:
    """KD between the two halves of each split of the cell's real rows, from one pass over their kernel.

    With S the sum over all pairs and S_a, S_b those within the halves, the sum across is (S - S_a - S_b) / 2.
    """
    weights = np.zeros((1 + 2 * len(halved), len(cell.real)))
    weights[0] = 1.0
    for index, halves in enumerate(halved):
        for part, rows in enumerate(halves):
            weights[1 + 2 * index + part, rows] = 1.0
    own, total = _Rows(data.real[cell.real], data.real_patients[cell.real]), np.zeros(len(weights))
    for left, right, times in _tiles(len(cell.real), len(cell.real), symmetric=True):
        tile = _tile(own, own, left, right, data.shift, np.float64)
        total += times * np.einsum("rm,rm->r", weights[:, left] @ tile, weights[:, right])
    pairs = pair_counts(own.codes, own.codes, weights, weights)
    within = total[1:].reshape(-1, 2), pairs[1:].reshape(-1, 2)
    across = (total[0] - within[0].sum(axis=1)) / (pairs[0] - within[1].sum(axis=1))
    return _settled((within[0] / within[1]).sum(axis=1) - 2 * across, data.shift)


@dataclass(frozen=True)
class _Rows:
    """Features [n, D] of some rows and [n] codes of their patients."""

    values: NDArray[np.float32]
    codes: Rows


@dataclass(frozen=True)
class _Weighted(_Rows):
    """The same with their multiplicities [R, n], and again in float32."""

    weights: Array
    single: NDArray[np.float32]


def _weighted(values: NDArray[np.float32], codes: Rows, rows: Rows, weights: Array) -> _Weighted:
    return _Weighted(values[rows], codes[rows], weights, weights.astype(np.float32))


def _mean(a: _Weighted, b: _Weighted, shift: float) -> Array:
    """Weighted mean of k - shift over pairs of rows of different patients, for all replicates."""
    total = np.zeros(len(a.weights))
    for left, right, times in _tiles(len(a.values), len(b.values), a is b):
        tile = _tile(a, b, left, right, shift, np.float64)
        total[0] += times * float(a.weights[0, left] @ tile @ b.weights[0, right])
        products = a.single[1:, left] @ tile.astype(np.float32)
        total[1:] += times * np.einsum("rm,rm->r", products, b.weights[1:, right])
    pairs = pair_counts(a.codes, b.codes, a.weights, b.weights)
    return np.asarray(np.divide(total, pairs, out=np.full(len(total), np.nan), where=pairs > 0.5))


def pair_counts(codes_a: Rows, codes_b: Rows, weights_a: Array, weights_b: Array) -> Array:
    """[R] how many pairs of rows of different patients the multiplicities [R, n] and [R, m] hold."""
    both = np.intersect1d(codes_a, codes_b)
    shared = _by_patient(weights_a, codes_a, both) * _by_patient(weights_b, codes_b, both)
    return np.asarray(weights_a.sum(axis=1) * weights_b.sum(axis=1) - shared.sum(axis=1))


def _by_patient(weights: Array, codes: Rows, patients: Rows) -> Array:
    """[R, P] sum of the multiplicities [R, n] over the rows of each of some patients."""
    rows = np.flatnonzero(np.isin(codes, patients))
    at = np.searchsorted(patients, codes[rows])
    member = csr_array((np.ones(len(rows)), (rows, at)), shape=(len(codes), len(patients)))
    return np.asarray(weights @ member, dtype=np.float64)


def _tiles(rows: int, columns: int, symmetric: bool) -> Iterator[tuple[slice, slice, int]]:
    """Tiles of a kernel matrix; of a symmetric one the upper triangle, tiles off its diagonal counting twice."""
    for top in range(0, rows, TILE):
        for start in range(top if symmetric else 0, columns, TILE):
            yield slice(top, top + TILE), slice(start, start + TILE), 2 if symmetric and start > top else 1


def _tile(a: _Rows, b: _Rows, left: slice, right: slice, shift: float, kind: type) -> NDArray[Any]:
    """Kernel less its shift, and zero where both rows are of one patient."""
    x: NDArray[Any] = a.values[left].astype(kind)
    tile = _kernel(x, x if a is b and left == right else b.values[right].astype(kind))
    tile -= kind(shift)
    if np.isin(a.codes[left], b.codes[right]).any():
        tile[a.codes[left][:, None] == b.codes[right]] = 0
    return tile


def _kernel(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """k(x, y) = (x·y / d + 1)³ in the precision of its arguments; half the work where both are one array."""
    base = np.asarray(a @ b.T)
    base /= a.shape[1]
    base += 1
    square = base * base
    base *= square
    return base


def _settled(values: Array, shift: float) -> Array:
    """Zero in place of what is rounding alone, so that equal sets tie exactly."""
    return np.where(np.abs(values) < 1e-13 * max(1.0, abs(shift)), 0.0, values)


def kernel_null(data: KernelData, pool: Pool, once: Once | None = None) -> Array:
    """[R, G]: KD of the rows that each permutation gives to each group, exactly, all groups in one pass.

    The last group's products are those of all rows less the other groups'. Very large pools get fewer
    permutations than asked for (``WORK``), never less than 99. ``once`` looks up what the real rows alone give.
    """
    rows = max(len(pool.real), len(pool.generated))
    count = int(min(len(pool.real_groups), max(LEAST, WORK / (4.0 * rows * rows * max(1, pool.size - 1)))))
    r = _Grouped(data.real[pool.real], data.real_patients[pool.real], pool.real_groups[:count])
    g = _Grouped(data.generated[pool.generated], data.generated_patients[pool.generated],
                 pool.generated_groups[:count])

    def mean(a: _Grouped, b: _Grouped) -> Array:
        return _null_mean(a, b, pool.size, data.shift)

    own = once("null of kd of real rows", [pool.real, r.groups], lambda: mean(r, r)) if once else mean(r, r)
    return _settled(own + mean(g, g) - 2 * mean(r, g), data.shift)


@dataclass(frozen=True)
class _Grouped(_Rows):
    """Rows, and the group that each of R permutations gives them to [R, n]."""

    groups: NDArray[np.int16]


def _null_mean(a: _Grouped, b: _Grouped, size: int, shift: float) -> Array:
    total = np.zeros((len(a.groups), size))
    for left, right, times in _tiles(len(a.values), len(b.values), a is b):
        tile = _tile(a, b, left, right, shift, np.float32)
        rest = tile.sum(axis=0, dtype=np.float32)[None, :]
        for group in range(size):
            products = rest
            if group < size - 1:
                products = (a.groups[:, left] == group).astype(np.float32) @ tile
                rest = rest - products
            total[:, group] += times * np.einsum("rm,rm->r", products, b.groups[:, right] == group)
    pairs = _null_pairs(a, b, size)
    return np.asarray(np.divide(total, pairs, out=np.full(total.shape, np.nan), where=pairs > 0.5))


def _null_pairs(a: _Grouped, b: _Grouped, size: int) -> Array:
    """[R, G] how many pairs of rows of different patients each permutation gives to each group."""
    pairs = np.empty((len(a.groups), size))
    for start in range(0, len(pairs), 50):
        part = slice(start, start + 50)
        for group in range(size):
            weights = [(side.groups[part] == group).astype(np.float64) for side in (a, b)]
            pairs[part, group] = pair_counts(a.codes, b.codes, *weights)
    return pairs
