"""Metrics of a binary decision, computed for many weightings of the same rows at once.

Every function takes ``weights``: None (every row counts once), [N], or [N, R] with one column per bootstrap
replicate or group, and returns one value for each column. A row of weight 2 counts as two rows, so a cluster
bootstrap is a matrix of multiplicities, and a group is a column of zeros and ones. An undefined value (no positive,
no negative, no weight) is NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from equigen.statistics import Ranking, quotient

Floats = NDArray[np.float64]
BINS = 10  # equal-width bins of the expected calibration error

HIGHER_IS_BETTER = {
    "auc": True,
    "pr_auc": True,
    "accuracy": True,
    "balanced_accuracy": True,
    "brier": False,
    "ece": False,
    "sensitivity": True,
    "specificity": True,
    "high_risk_sensitivity": True,
}


SUPPORT = {  # the class whose number of patients limits the precision of a metric; all patients for the others
    "auc": "both",
    "pr_auc": "both",
    "balanced_accuracy": "both",
    "sensitivity": "positives",
    "high_risk_sensitivity": "positives",
    "specificity": "negatives",
}
FOLLOWS_PREVALENCE = {"pr_auc", "accuracy", "brier", "ece", "dpd"}  # these differ between groups of unequal prevalence


def _columns(truth: NDArray[Any], weights: NDArray[Any] | None) -> tuple[Floats, bool]:
    """Weights as [N, R] float64, and whether they are a single weighting."""
    if weights is None:
        return np.ones((len(truth), 1)), True
    array = np.asarray(weights, dtype=np.float64)
    return (array[:, None], True) if array.ndim == 1 else (array, False)


def _sums(truth: NDArray[Any], score: NDArray[Any], weights: Floats, threshold: float) -> dict[str, Floats]:
    """All metrics that are quotients of weighted sums, from one matrix product."""
    y, p = np.asarray(truth, dtype=np.float64), np.asarray(score, dtype=np.float64)
    flags = (p >= threshold).astype(np.float64)
    bins = np.minimum((p * BINS).astype(np.int64), BINS - 1)
    residuals = (bins[:, None] == np.arange(BINS)) * (y - p)[:, None]
    features = np.column_stack([np.ones_like(y), y, flags, y * flags, (p - y) ** 2, residuals])
    total, positive, flagged, hit, error = (sums := features.T @ weights)[:5]
    negative = total - positive
    sensitivity = quotient(hit, positive)
    specificity = quotient(negative - (flagged - hit), negative)
    return {
        "accuracy": quotient(hit + negative - (flagged - hit), total),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "brier": quotient(error, total),
        "ece": quotient(np.abs(sums[5:]).sum(axis=0), total),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "selection_rate": quotient(flagged, total),
    }


def calibration_parts(truth: NDArray[Any], score: NDArray[Any], weights: NDArray[Any]) -> tuple[Floats, Floats]:
    """Residual of each bin over the total weight [BINS, R], and share of each bin in the first column's weight [BINS].

    The residual is the weighted sum of truth less probability; the expected calibration error is the sum of its
    absolute values. Weights are [N, R].
    """
    y, p = np.asarray(truth, dtype=np.float64), np.asarray(score, dtype=np.float64)
    inside = np.minimum((p * BINS).astype(np.int64), BINS - 1)[:, None] == np.arange(BINS)
    sums, total = (inside * (y - p)[:, None]).T @ weights, weights.sum(axis=0)
    shares: Floats = inside.T @ weights[:, 0] / total[0]
    return quotient(sums, np.broadcast_to(total, sums.shape)), shares


def measure(
    truth: NDArray[Any], score: NDArray[Any], weights: NDArray[Any] | None = None, *, threshold: float = 0.5
) -> dict[str, Floats]:
    """All metrics of one set of rows for every column of weights.

    Args:
        truth: [N] 0 or 1.
        score: [N] probability of 1, in [0, 1].
        weights: None, [N] or [N, R] multiplicities.
        threshold: a row is called positive when its score is at least this.

    Returns:
        auc, pr_auc, accuracy, balanced_accuracy, brier, ece, sensitivity, specificity, selection_rate, each
        [R].

    """
    columns, _ = _columns(truth, weights)
    ranking = Ranking(truth, score, columns)
    return {"auc": ranking.auc(), "pr_auc": ranking.pr_auc(), **_sums(truth, score, columns, threshold)}


def _squeeze(values: Floats, single: bool) -> Floats:
    """The value as a 0-d array for a single weighting."""
    return values[0] if single else values


def auc(truth: NDArray[Any], score: NDArray[Any], weights: NDArray[Any] | None = None) -> Floats:
    """Area under the ROC curve: P(score of a positive > score of a negative) + half of P(equal).

    Source: Hanley and McNeil, Radiology 143, 1982. NaN where one class is missing.

    >>> float(auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.4, 0.8])))
    0.875
    """
    columns, single = _columns(truth, weights)
    return _squeeze(Ranking(truth, score, columns).auc(), single)


def pr_auc(truth: NDArray[Any], score: NDArray[Any], weights: NDArray[Any] | None = None) -> Floats:
    """Average precision, sum_k (R_k - R_(k-1)) P_k over falling thresholds, without interpolation.

    Source: scikit-learn's ``average_precision_score``. NaN where there is no positive.

    >>> round(float(pr_auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))), 4)
    0.8333
    """
    columns, single = _columns(truth, weights)
    return _squeeze(Ranking(truth, score, columns).pr_auc(), single)


def accuracy(
    truth: NDArray[Any], score: NDArray[Any], weights: NDArray[Any] | None = None, *, threshold: float = 0.5
) -> Floats:
    """Share of rows on the right side of the threshold.

    >>> float(accuracy(np.array([0, 1, 1, 1]), np.array([0.1, 0.9, 0.2, 0.5])))
    0.75
    """
    return _quotient("accuracy", truth, score, weights, threshold)


def balanced_accuracy(
    truth: NDArray[Any], score: NDArray[Any], weights: NDArray[Any] | None = None, *, threshold: float = 0.5
) -> Floats:
    """(sensitivity + specificity) / 2; NaN where one class is missing.

    >>> float(balanced_accuracy(np.array([0, 1, 1, 1, 1]), np.array([0.1, 0.9, 0.2, 0.5, 0.3])))
    0.75
    """
    return _quotient("balanced_accuracy", truth, score, weights, threshold)


def sensitivity(
    truth: NDArray[Any], score: NDArray[Any], weights: NDArray[Any] | None = None, *, threshold: float = 0.5
) -> Floats:
    """Share of the positives called positive (score >= threshold); NaN where there is none.

    >>> float(sensitivity(np.array([0, 1, 1]), np.array([0.1, 0.9, 0.2])))
    0.5
    """
    return _quotient("sensitivity", truth, score, weights, threshold)


def specificity(
    truth: NDArray[Any], score: NDArray[Any], weights: NDArray[Any] | None = None, *, threshold: float = 0.5
) -> Floats:
    """Share of the negatives called negative (score < threshold); NaN where there is none.

    >>> float(specificity(np.array([0, 0, 1]), np.array([0.1, 0.5, 0.2])))
    0.5
    """
    return _quotient("specificity", truth, score, weights, threshold)


def brier(truth: NDArray[Any], score: NDArray[Any], weights: NDArray[Any] | None = None) -> Floats:
    """Mean squared distance of probability and truth (Brier, Mon. Weather Rev. 78, 1950); lower is better.

    >>> float(brier(np.array([0, 1]), np.array([0.5, 1.0])))
    0.125
    """
    return _quotient("brier", truth, score, weights, 0.5)


def ece(truth: NDArray[Any], score: NDArray[Any], weights: NDArray[Any] | None = None) -> Floats:
    """Expected calibration error, sum_b (n_b / n) |mean truth - mean probability| over 10 equal-width bins.

    Source: Naeini et al., AAAI 2015, on the probability of the positive class. Lower is better. It is
    biased upwards in small samples, so gaps are compared with their null band.

    >>> round(float(ece(np.array([0, 1, 1, 1]), np.array([0.25, 0.25, 0.95, 0.95]))), 6)
    0.15
    """
    return _quotient("ece", truth, score, weights, 0.5)


def _quotient(
    name: str, truth: NDArray[Any], score: NDArray[Any], weights: NDArray[Any] | None, threshold: float
) -> Floats:
    """One metric of ``_sums``."""
    columns, single = _columns(truth, weights)
    return _squeeze(_sums(truth, score, columns, threshold)[name], single)


def _group_values(
    name: str, truth: NDArray[Any], score: NDArray[Any], groups: NDArray[Any], threshold: float
) -> Floats:
    """One metric of ``_sums`` in each group, [G]."""
    members = np.asarray(groups)[:, None] == np.unique(np.asarray(groups))[None, :]
    return _quotient(name, truth, score, members.astype(np.float64), threshold)


def dpd(truth: NDArray[Any], score: NDArray[Any], groups: NDArray[Any], *, threshold: float = 0.5) -> float:
    """Demographic parity difference, max_g P(called positive | g) - min_g P(called positive | g).

    Source: fairlearn's ``demographic_parity_difference``. ``truth`` is unused.

    >>> dpd(np.zeros(4), np.array([0.9, 0.8, 0.9, 0.1]), np.array([0, 0, 1, 1]))
    0.5
    """
    return float(np.ptp(_group_values("selection_rate", truth, score, groups, threshold)))


def deodds(truth: NDArray[Any], score: NDArray[Any], groups: NDArray[Any], *, threshold: float = 0.5) -> float:
    """Equalised odds difference, the larger of the groups' gaps in true- and false-positive rate.

    Source: fairlearn's ``equalized_odds_difference`` (worst case). NaN where a group has one class only.

    >>> deodds(np.array([1, 0, 1, 0]), np.array([0.9, 0.1, 0.9, 0.8]), np.array([0, 0, 1, 1]))
    1.0
    """
    gaps = [np.ptp(_group_values(name, truth, score, groups, threshold)) for name in ("sensitivity", "specificity")]
    return float(np.max(gaps))
