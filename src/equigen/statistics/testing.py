"""Permutation p-values and their correction for several tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equigen.errors import InputError, Problem
from equigen.statistics.intervals import check_finite

TIE = 1e-12  # a permutation that gives back the observed grouping must count as equal despite rounding


def p_value(observed: float, null: NDArray[np.float64], *, scale: float = 0.0) -> float:
    """One-sided permutation p-value, (1 + #{null >= observed}) / (1 + n), never zero.

    Source: Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010. Values within a relative 1e-12
    are equal; where the observed value is a difference, ``scale`` is the size of what was subtracted.

    Raises:
        InputError: the observed value or one of the null values is not finite, or there is no null value.

    >>> p_value(2.0, np.array([0.0, 1.0, 2.0]))
    0.5

    """
    values = check_finite(null, "a p-value")
    target = float(check_finite(np.array([observed]), "a p-value")[0])
    reached = int(np.sum(values >= target - TIE * max(1e-300, abs(target), abs(scale))))
    return (1 + reached) / (1 + len(values))


def two_sided_p_value(draws: NDArray[np.float64]) -> float:
    """Two-sided p-value of "no difference" from bootstrap replicates of a difference.

        p = min(1, 2 min(1 + #{d <= 0}, 1 + #{d >= 0}) / (1 + R))

    The smallest level at which the percentile interval leaves zero out (Efron and Tibshirani, An Introduction to
    the Bootstrap, 1993, section 15.4), with the +1 correction, so it is never zero.

    Args:
        draws: [R] replicates of the difference; NaN is refused.

    Raises:
        InputError: no values, or a value that is not finite.

    >>> two_sided_p_value(np.array([1.0, 2.0, 3.0]))
    0.5

    """
    values = check_finite(draws, "a p-value")
    least = min(int(np.sum(values <= 0)), int(np.sum(values >= 0)))
    return min(1.0, 2 * (1 + least) / (1 + len(values)))


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Holm-adjusted p-values: p(k) -> max over j <= k of min(1, (m - j + 1) p(j)), in the order given.

    Source: Holm, Scand. J. Stat. 6, 1979. Controls the family-wise error under any dependence.

    Raises:
        InputError: a value is not finite or not in [0, 1]. An empty family gives an empty array.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(3).tolist()
    [0.03, 0.06, 0.06]

    """
    if len(p_values) == 0:
        return np.zeros(0)
    values = check_finite(p_values, "Holm's correction")
    if values.min() < 0 or values.max() > 1:
        problem = Problem(f"values from {values.min()} to {values.max()}", "check the test they come from")
        raise InputError("A p-value lies in [0, 1].", [problem])
    order = np.argsort(values, kind="stable")
    stepped = np.minimum(1.0, values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(stepped)
    return adjusted
