"""Permutation p-values and their correction for several tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equigen.errors import InputError, Problem
from equigen.statistics.intervals import finite

TIE = 1e-12  # a permutation that gives back the observed grouping must count as equal despite rounding


def p_value(observed: float, null: NDArray[np.float64]) -> float:
    """One-sided permutation p-value, (1 + #{null >= observed}) / (1 + n), never zero.

    Source: Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010. Values within a relative 1e-12
    are equal.

    Raises:
        InputError: the observed value or one of the null values is not finite, or there is no null value.

    >>> p_value(2.0, np.array([0.0, 1.0, 2.0]))
    0.5

    """
    values = finite(null, "a p-value")
    target = float(finite(np.array([observed]), "a p-value")[0])
    reached = int(np.sum(values >= target - TIE * max(1e-300, abs(target))))
    return (1 + reached) / (1 + len(values))


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
    values = finite(p_values, "Holm's correction")
    if values.min() < 0 or values.max() > 1:
        problem = Problem(f"values from {values.min()} to {values.max()}", "check the test they come from")
        raise InputError("A p-value lies in [0, 1].", [problem])
    order = np.argsort(values, kind="stable")
    stepped = np.minimum(1.0, values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(stepped)
    return adjusted
