"""Areas under the ROC and the precision-recall curve for many weightings of the same rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from equigen.errors import InputError, Problem
from equigen.statistics.means import quotient

Array = NDArray[np.float64]
WEIGHTS_IN_MEMORY = 4_000_000  # weights in memory at a time; more rows mean fewer replicates at a time


class Ranking:
    """Rows by falling score, sorted once, with the cumulative weights of the positives.

    Args:
        truth: [N] 1 for the positive class.
        score: [N] finite, higher for the positive class.
        weights: [N, R] not negative, one column a weighting. A row of weight 2 counts as two rows, so a cluster
            bootstrap is a matrix of multiplicities and a group is a column of zeros and ones.

    """

    def __init__(self, truth: NDArray[Any], score: NDArray[Any], weights: NDArray[Any]) -> None:
        order = np.argsort(-np.asarray(score, dtype=np.float64), kind="stable")
        positive = np.asarray(truth)[order] == 1
        ascending = -np.asarray(score, dtype=np.float64)[order]
        self._positive_keys, self._negative_keys = ascending[positive], ascending[~positive]
        self._positive = np.asarray(weights[order[positive]], dtype=np.float64)
        self._negative = np.asarray(weights[order[~positive]], dtype=np.float64)
        self._sums = _cumulative_sums(self._positive)

    def auc(self) -> Array:
        """Area under the ROC curve [R], NaN where the positives or the negatives have no weight.

            AUC_r = sum_ij w_ri w_rj [1(s_i > s_j) + 1(s_i = s_j) / 2] / (sum_i w_ri · sum_j w_rj)

        over positives i and negatives j. Source: Hanley and McNeil, Radiology 143, 1982.
        """
        above = self._sums[np.searchsorted(self._positive_keys, self._negative_keys, side="left")]
        not_below = self._sums[np.searchsorted(self._positive_keys, self._negative_keys, side="right")]
        pairs = np.einsum("nr,nr->r", self._negative, above + not_below) / 2
        return quotient(pairs, self._sums[-1] * self._negative.sum(axis=0))

    def pr_auc(self) -> Array:
        """Average precision [R], the mean over positives of the precision at their score; NaN without a positive.

        Source: scikit-learn's ``average_precision_score``, without interpolation.
        """
        true = self._sums[np.searchsorted(self._positive_keys, self._positive_keys, side="right")]
        false = _cumulative_sums(self._negative)[
            np.searchsorted(self._negative_keys, self._positive_keys, side="right")
        ]
        flagged = true + false
        precision = np.divide(true, flagged, out=np.zeros_like(true), where=flagged > 0)
        return quotient(np.einsum("nr,nr->r", self._positive, precision), self._sums[-1])


def _cumulative_sums(values: Array) -> Array:
    """Sums of the first 0, 1, .. N rows, [N + 1, R]."""
    sums = np.zeros((len(values) + 1, values.shape[1]))
    np.cumsum(values, axis=0, out=sums[1:])
    return sums


def weighted_auc(truth: NDArray[Any], score: NDArray[Any], weights: NDArray[Any]) -> Array:
    """Area under the ROC curve for each row of weights, as ``Ranking.auc`` for each column.

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
    step = max(1, WEIGHTS_IN_MEMORY // max(1, len(values)))
    blocks = [table[start : start + step] for start in range(0, len(table), step)]
    return np.concatenate([np.zeros(0), *(Ranking(truth, values, block.T).auc() for block in blocks)])
