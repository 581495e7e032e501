"""Area under the ROC curve for many weightings of the same rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from equigen.errors import InputError, Problem

Array = NDArray[np.float64]
WEIGHTS_IN_MEMORY = 4_000_000  # weights in memory at a time; more rows mean fewer replicates at a time


def weighted_auc(truth: NDArray[Any], score: NDArray[Any], weights: NDArray[Any]) -> Array:
    """Area under the ROC curve for each row of weights.

        AUC_r = sum_ij w_ri w_rj [1(s_i > s_j) + 1(s_i = s_j) / 2] / (sum_i w_ri · sum_j w_rj)

    over positives i and negatives j. A row of weight 2 counts as two rows, so a cluster bootstrap is a matrix
    of multiplicities and a group is a row of zeros and ones. Source: Hanley and McNeil, Radiology 143, 1982.
    Rows are sorted once for all R weightings.

    Args:
        truth: [n] 0 or 1.
        score: [n] finite, higher for the positive class.
        weights: [R, n] not negative.

    Returns:
        [R] in [0, 1]; NaN where the positives or the negatives have no weight.

    Raises:
        InputError: lengths differ, or a score is not finite.

    >>> weighted_auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.4, 0.8]), np.array([[1, 1, 1, 1]])).tolist()
    [0.875]

    """
    values, table = np.asarray(score, dtype=np.float64), np.asarray(weights)
    if table.ndim != 2 or not len(truth) == len(values) == table.shape[1]:
        shapes = f"{len(truth)} truths, {len(values)} scores, weights {table.shape}"
        raise InputError("An AUC needs one truth, score and weight a row.", [Problem(shapes, "give [n] and [R, n]")])
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise InputError("An AUC needs finite scores.", [Problem(f"{bad} scores are not", "leave these rows out")])
    order = np.argsort(values, kind="stable")
    positive, ranked = np.asarray(truth)[order] == 1, values[order]
    first, last = (np.searchsorted(ranked, ranked[positive], side=side) for side in ("left", "right"))
    step = max(1, WEIGHTS_IN_MEMORY // max(1, len(values)))
    blocks = [table[start : start + step] for start in range(0, len(table), step)]
    areas = [_areas(block[:, order].astype(np.float64), positive, first, last) for block in blocks]
    return np.concatenate([np.zeros(0), *areas])


def _areas(weights: Array, positive: NDArray[np.bool_], first: NDArray[np.int64], last: NDArray[np.int64]) -> Array:
    """AUC of rows in ascending order of score; the ties of a positive are the rows from ``first`` to ``last``."""
    below = np.zeros((len(weights), len(positive) + 1))  # weight of the negatives among the first 0, 1, .. n rows
    np.cumsum(weights * ~positive, axis=1, out=below[:, 1:])
    positives = weights[:, positive]
    pairs = np.einsum("rn,rn->r", positives, below[:, first] + below[:, last]) / 2
    total = positives.sum(axis=1) * below[:, -1]
    area: Array = np.divide(pairs, total, out=np.full(len(weights), np.nan), where=total > 0)
    return area
