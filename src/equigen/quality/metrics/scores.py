"""Inception score of class probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from equigen.errors import InputError, Problem
from equigen.quality.cells import Cell, Rows, covering_subsamples
from equigen.quality.estimates import measure_with_influences
from equigen.quality.metric_inputs import MeasurementPlan, MetricResult
from equigen.quality.metrics.influence import Array, Influence, centred_values, feature_matrix

NOTE = "the floor is the score of the real images at n, and higher is better; interval and null band to first order"


def inception_score(probabilities: NDArray[Any]) -> float:
    """Return the Inception score, IS = exp( mean_i KL( p(y|x_i) || p(y) ) ), with p(y) the mean of the rows.

    Source: Salimans et al., NeurIPS 2016, section 4; one split. Between 1 and the number of classes; it grows
    with n, so compare only at equal n.

    Args:
        probabilities: [N, C] class probabilities, each row summing to one.

    Raises:
        InputError: no row, a value outside [0, 1], or rows that do not sum to one.

    >>> round(inception_score(np.eye(4)), 6)
    4.0

    """
    entropy, mixture = _entropies(_check_probabilities(probabilities, least=1))
    return float(np.exp(_entropy(mixture) - entropy.mean()))


def inception_influence(probabilities: NDArray[Any]) -> Influence:
    """Return the Inception score with the jackknife influence of each row, psi_i = (n - 1) (IS - IS without i).

    The derivative at the sample makes intervals too narrow at small n, where the mean of the rows is itself
    uncertain; the jackknife does not (Efron and Stein, Ann. Stat. 9, 1981).

    Raises:
        InputError: fewer than two rows, or no probabilities.

    """
    p = _check_probabilities(probabilities, least=2)
    n, (entropy, mixture) = len(p), _entropies(p)
    score = float(np.exp(_entropy(mixture) - entropy.mean()))
    log_scores = _entropy(np.maximum((n * mixture - p) / (n - 1), 0)) - (n * entropy.mean() - entropy) / (n - 1)
    return Influence(score, np.zeros(0), centred_values((n - 1) * (score - np.exp(log_scores))))


def _check_probabilities(probabilities: NDArray[Any], least: int) -> Array:
    """Return the class probabilities as float64; InputError unless rows are at least ``least`` and sum to one."""
    p = feature_matrix(probabilities, "Class probabilities")
    if len(p) < least or p.min() < 0 or np.abs(p.sum(axis=1) - 1).max() > 1e-3:
        problem = Problem(f"shape {p.shape}", f"give {least} or more rows of probabilities that sum to one")
        raise InputError("The Inception score needs class probabilities.", [problem])
    return p


def _entropies(p: Array) -> tuple[Array, Array]:
    """Return the entropy of each row [N], and the mean of the rows [C]."""
    return _entropy(p), p.mean(axis=0)


def _entropy(p: Array) -> Array:
    """Return the entropy along the last axis in nats, with 0 log 0 = 0."""
    return np.asarray(entr(p).sum(axis=-1), dtype=np.float64)


def measure_inception(real: NDArray[np.float32], generated: NDArray[np.float32], plan: MeasurementPlan) -> MetricResult:
    """Measure IS at n in every eligible cell; its floor is the IS of the cell's real images at n."""

    def influences(_: Rows, rows: Rows) -> list[Influence]:
        return [inception_influence(generated[rows])]

    def floor(cell: Cell) -> list[Array]:
        samples = covering_subsamples(plan.patients(cell)[0], plan.n, plan.settings.repeats, plan.rng("is/real", cell))
        return [np.array([inception_influence(real[cell.real[rows]]).value for rows in samples])]

    return measure_with_influences([("is", "higher")], influences, floor, plan, [NOTE])[0]
