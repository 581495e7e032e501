"""Checked feature matrices, and values with the influence of each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equigen.errors import InputError, Problem

Array = NDArray[np.float64]


def feature_matrix(features: NDArray[Any], name: str = "features") -> Array:
    """Return the features as float64 [N, D].

    Raises:
        InputError: they are not two-dimensional, or not finite; the first such row is named.

    """
    array = np.asarray(features, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        problem = Problem(f"shape {array.shape}", "give [N, D] with one row per image")
        raise InputError(f"{name} must be a matrix.", [problem])
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        problem = Problem(f"{len(bad)} rows are not finite, the first is {bad[0]}", "look at these images")
        raise InputError(f"{name} hold NaN or infinity.", [problem])
    return array


def check_sets(real: NDArray[Any], generated: NDArray[Any], least: int) -> tuple[Array, Array]:
    """Return both feature matrices as float64; InputError for fewer than ``least`` rows or different widths."""
    r, g = feature_matrix(real, "Real features"), feature_matrix(generated, "Generated features")
    problems = [
        Problem(f"{len(rows)} {name} rows", f"give at least {least}")
        for rows, name in ((r, "real"), (g, "generated"))
        if len(rows) < least
    ]
    if r.shape[1] != g.shape[1]:
        problems.append(Problem(f"{r.shape[1]} and {g.shape[1]} columns", "use one encoder for both sides"))
    if problems:
        raise InputError("The two sets of features cannot be compared.", problems)
    return r, g


@dataclass(frozen=True)
class Influence:
    """A value with the first-order influence psi_i of each row: weights w_i in place of 1/n add sum w_i psi_i.

    ``real`` [N] and ``generated`` [M] sum to zero; ``real`` is empty for a metric of generated images alone.
    """

    value: float
    real: Array
    generated: Array


def centred_values(values: Array) -> Array:
    """Return the values less their mean."""
    return np.asarray(values - values.mean(), dtype=np.float64)
