"""Means and quotients of arrays that are NaN where nothing defines them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def quotient(numerator: NDArray[Any], denominator: NDArray[Any]) -> Array:
    """Quotient of two arrays of one shape, NaN where the denominator is not above 0.

    >>> quotient(np.array([1.0, 1.0]), np.array([4.0, 0.0])).tolist()
    [0.25, nan]
    """
    undefined = np.full(np.shape(numerator), np.nan)
    return np.asarray(np.divide(numerator, denominator, out=undefined, where=np.asarray(denominator) > 0))


def defined_mean(values: Array, axis: int) -> Array:
    """Mean of the finite values along an axis, NaN where there is none.

    >>> defined_mean(np.array([[1.0, np.nan], [3.0, np.nan]]), axis=0).tolist()
    [2.0, nan]
    """
    finite = np.isfinite(values)
    return quotient(np.where(finite, values, 0.0).sum(axis=axis), finite.sum(axis=axis))


def weighted_mean(scores: Array, weights: Array) -> Array:
    """Mean of scores [n] for each row of weights [R, n] -> [R]; a score of NaN does not count, NaN without weight.

    >>> weighted_mean(np.array([1.0, 3.0, np.nan]), np.array([[1.0, 1.0, 5.0], [0.0, 0.0, 1.0]])).tolist()
    [2.0, nan]
    """
    weights = weights[:, np.isfinite(scores)]
    return quotient(weights @ scores[np.isfinite(scores)], weights.sum(axis=1))
