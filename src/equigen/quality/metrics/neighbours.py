"""Exact nearest neighbours between two sets of features, computed by blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equigen.errors import InputError, Problem

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
QUERIES, REFERENCES = 1024, 4096  # rows in a block: 32 MiB of distances, 40 MiB for a block of 1 280 features
SPARE = 8  # candidates beyond k whose distances are computed again from the rows themselves
CLOSE = 1e-6  # of |a|² + |b|²: a smaller squared distance is computed again from the rows


def nearest_neighbours(
    query: NDArray[Any],
    reference: NDArray[Any],
    k: int,
    *,
    query_groups: NDArray[Any] | None = None,
    reference_groups: NDArray[Any] | None = None,
) -> tuple[Array, Rows]:
    """Return the k nearest reference rows of each query row by Euclidean distance, exact, in bounded memory.

    Squared distances come from inner products of blocks in float64 about the reference's mean,

        |q - r|² = |q|² + |r|² - 2 q·r,

    and those of the k + 8 nearest are computed again as the sum of (q - r)², so that an exact copy is at distance
    0 and a near copy does not suffer from cancellation. Equally far rows come in the order of their index.

    Args:
        query: [M, D] features, float32 or float64.
        reference: [N, D] features.
        k: neighbours per query, at least 1.
        query_groups: [M] code of each query (its patient); references of the same code are skipped.
        reference_groups: [N] codes on the same scale; give both or neither.

    Returns:
        Distances [M, k] ascending, and indices of reference rows [M, k]. Where fewer than k references remain
        for a query, the rest is at distance infinity with index -1.

    Raises:
        InputError: k below 1, different D, codes that do not fit, NaN or infinity.

    >>> distances, rows = nearest_neighbours(np.array([[0.0], [9.0]]), np.array([[1.0], [5.0], [7.0]]), 2)
    >>> distances.tolist(), rows.tolist()
    ([[1.0, 5.0], [2.0, 4.0]], [[0, 1], [2, 1]])

    """
    query, reference = check_features(query, "Query features"), check_features(reference, "Reference features")
    groups = _check_groups((query, query_groups), (reference, reference_groups))
    if k < 1 or query.shape[1] != reference.shape[1]:
        message = f"k is {k}, {query.shape[1]} and {reference.shape[1]} columns"
        problem = Problem(message, "give k of at least 1 and one encoder for both sides")
        raise InputError("Nearest neighbours cannot be found.", [problem])
    distances, indices = np.full((len(query), k), np.inf), np.full((len(query), k), -1, dtype=np.int64)
    centre = _mean_row(reference)
    for rows in blocks(len(query), QUERIES):
        group_block = None if groups is None else (groups[0][rows], groups[1])
        candidates = _candidates(query[rows], reference, k + SPARE, centre, group_block)
        distances[rows], indices[rows] = _exact_distances(query[rows], reference, candidates, k)
    return distances, indices


def blocks(count: int, size: int) -> Iterator[slice]:
    """Return slices that cut ``count`` rows into blocks of ``size``; the last may be shorter."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def check_features(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Return the features unchanged and uncopied; InputError unless they are [N, D] and finite."""
    array = np.asarray(values)
    if array.ndim != 2 or array.shape[1] == 0:
        problem = Problem(f"shape {array.shape}", "give [N, D] with one row per image")
        raise InputError(f"{name} must be a matrix.", [problem])
    bad = [
        rows.start + np.flatnonzero(~np.isfinite(array[rows]).all(axis=1)) for rows in blocks(len(array), REFERENCES)
    ]
    lost = np.concatenate(bad) if bad else np.zeros(0, dtype=np.int64)
    if len(lost):
        problem = Problem(f"{len(lost)} rows are not finite, the first is {lost[0]}", "look at these images")
        raise InputError(f"{name} hold NaN or infinity.", [problem])
    return array


def squared_distances(a: NDArray[Any], b: NDArray[Any]) -> Array:
    """Return all squared Euclidean distances between [N, D] and [M, D] rows -> [N, M], 0 for exact copies.

    They come from inner products about the mean of ``a``; those below 1e-6 of |a|² + |b|² are summed from the
    rows themselves. The full matrix is in memory, so use it for sets of a few thousand rows.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    centre = _mean_row(first)
    x, y = first - centre, second - centre
    scale = np.einsum("nd,nd->n", x, x)[:, None] + np.einsum("md,md->m", y, y)
    result: Array = np.maximum(scale - 2 * (x @ y.T), 0.0)
    close = np.argwhere(result <= CLOSE * scale)
    for block in blocks(len(close), REFERENCES):
        i, j = close[block].T
        gap = first[i] - second[j]
        result[i, j] = np.einsum("pd,pd->p", gap, gap)
    return result


def nearest_angle(
    query: NDArray[Any],
    reference: NDArray[Any],
    *,
    query_groups: NDArray[Any] | None = None,
    reference_groups: NDArray[Any] | None = None,
) -> Array:
    """Return the cosine distance of each query row to its nearest reference, min_r 1 - |cos(q, r)|, in [0, 1].

    As in MiFID (Bai et al., KDD 2021). A row of zeros has no direction: such a reference is skipped, and such a
    query has NaN, as has one whose references are all skipped.

    Args:
        query: [M, D] features.
        reference: [N, D] features.
        query_groups: [M] codes; references of the same code are skipped.
        reference_groups: [N] codes on the same scale.

    Raises:
        InputError: codes that do not fit, NaN or infinity.

    """
    query, reference = check_features(query, "Query features"), check_features(reference, "Reference features")
    groups = _check_groups((query, query_groups), (reference, reference_groups))
    best = np.full(len(query), -np.inf)
    for rows in blocks(len(query), QUERIES):
        q, _ = _unit_rows(query[rows])
        for block in blocks(len(reference), REFERENCES):
            r, nonzero = _unit_rows(reference[block])
            cosine = np.abs(q @ r.T)
            cosine[:, ~nonzero] = -np.inf
            if groups is not None:
                cosine[groups[0][rows][:, None] == groups[1][block]] = -np.inf
            best[rows] = np.maximum(best[rows], cosine.max(axis=1))
    defined = np.isfinite(best) & np.asarray(query).any(axis=1)
    return np.where(defined, np.clip(1 - best, 0.0, 1.0), np.nan)


def _unit_rows(rows: NDArray[Any]) -> tuple[Array, NDArray[np.bool_]]:
    """Return the rows at unit length in float64, and a mask of those that are not zero."""
    values = np.asarray(rows, dtype=np.float64)
    length = np.linalg.norm(values, axis=1)
    return values / np.where(length > 0, length, 1.0)[:, None], length > 0


def _check_groups(
    query: tuple[NDArray[Any], NDArray[Any] | None], reference: tuple[NDArray[Any], NDArray[Any] | None]
) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Return the codes of both sets, None where neither has any; InputError where they do not fit the rows."""
    (rows_q, codes_q), (rows_r, codes_r) = query, reference
    if codes_q is None and codes_r is None:
        return None
    if codes_q is None or codes_r is None or len(codes_q) != len(rows_q) or len(codes_r) != len(rows_r):
        problem = Problem("codes on one side only, or not one per row", "give one code per row on both sides")
        raise InputError("Neighbours of one patient cannot be left out.", [problem])
    return np.asarray(codes_q), np.asarray(codes_r)


def _mean_row(rows: NDArray[Any]) -> Array:
    """Return the mean of the rows in float64, zeros where there is none."""
    return np.asarray(rows.mean(axis=0, dtype=np.float64)) if len(rows) else np.zeros(rows.shape[1])


def _candidates(
    query: NDArray[Any],
    reference: NDArray[Any],
    count: int,
    centre: Array,
    groups: tuple[NDArray[Any], NDArray[Any]] | None,
) -> Rows:
    """Return indices [m, <= count] of the nearest references by inner products, -1 where there is none."""
    q = np.asarray(query, dtype=np.float64) - centre
    distances: Array = np.zeros((len(q), 0))
    indices: Rows = np.zeros((len(q), 0), dtype=np.int64)
    for block in blocks(len(reference), REFERENCES):
        r = np.asarray(reference[block], dtype=np.float64) - centre
        # |q|² is the same for all references of one query, so it does not decide which is nearest
        squares = np.einsum("nd,nd->n", r, r) - 2 * (q @ r.T)
        if groups is not None:
            squares[groups[0][:, None] == groups[1][block]] = np.inf
        columns = _smallest(squares, count)
        distances = np.concatenate([distances, np.take_along_axis(squares, columns, axis=1)], axis=1)
        indices = np.concatenate([indices, columns + block.start], axis=1)
        columns = _smallest(distances, count)
        distances = np.take_along_axis(distances, columns, axis=1)
        indices = np.take_along_axis(indices, columns, axis=1)
    indices[~np.isfinite(distances)] = -1
    return indices


def _smallest(values: Array, count: int) -> Rows:
    """Return the columns of the ``count`` smallest values of each row, in any order."""
    if values.shape[1] <= count:
        return np.broadcast_to(np.arange(values.shape[1]), values.shape)
    return np.argpartition(values, count - 1, axis=1)[:, :count].astype(np.int64)


def _exact_distances(query: NDArray[Any], reference: NDArray[Any], candidates: Rows, k: int) -> tuple[Array, Rows]:
    """Return distances and indices [m, k] of the k nearest candidates, from the rows themselves; ties by index."""
    q, squares = np.asarray(query, dtype=np.float64), np.full(candidates.shape, np.inf)
    for column, rows in enumerate(candidates.T):  # one column at a time needs [m, D] of memory alone
        valid = rows >= 0
        gap = q[valid] - reference[rows[valid]]
        squares[valid, column] = np.einsum("md,md->m", gap, gap)
    order = np.lexsort((candidates, squares), axis=1)[:, :k]
    distances, indices = np.full((len(q), k), np.inf), np.full((len(q), k), -1, dtype=np.int64)
    distances[:, : order.shape[1]] = np.sqrt(np.take_along_axis(squares, order, axis=1))
    indices[:, : order.shape[1]] = np.take_along_axis(candidates, order, axis=1)
    return distances, indices
