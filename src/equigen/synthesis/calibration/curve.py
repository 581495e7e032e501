"""Gaussian process regression of one group's excess KD on guidance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LENGTHS = (0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0)  # of the range of guidance
NUGGETS = (1e-4, 1e-3, 1e-2, 0.1)  # variance of the noise over that of the process


@dataclass(frozen=True)
class Curve:
    """Mean and standard deviation [K] of a group's excess KD at each guidance of ``grid`` [K]."""

    grid: Array
    mean: Array
    deviation: Array


def fit_curve(guidance: Array, excess: Array, grid: Array) -> Curve:
    """Gaussian process with an unknown constant mean through (guidance, excess): ordinary kriging.

        y ~ N(m 1, s² (R + v I)),   R_ij = matern_{5/2}(|x_i - x_j| / l)
        mean(x) = m + r' C⁻¹ (y - m 1),   var(x) = s² (1 - r' C⁻¹ r + (1 - 1' C⁻¹ r)² / (1' C⁻¹ 1)),   C = R + v I

    with m and s² in closed form (s² over n - 1) and (l, v) of greatest restricted likelihood on a grid.
    Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, sections 2.2, 2.7 and 5.4.
    All guidances of a group are measured on the same prompts and seeds, so the deviation is that of the interpolation;
    it does not include the variation between prompts, seeds or real images.

    Args:
        guidance: [n] different values, n >= 2.
        excess: [n].
        grid: [K], ascending; its range is the unit of ``LENGTHS``.

    """
    span = float(grid[-1] - grid[0])
    fits = [_Fit.estimate(guidance / span, excess, length, nugget) for length in LENGTHS for nugget in NUGGETS]
    best = max(fits, key=lambda fit: fit.likelihood)
    return Curve(grid, *best.predict(grid / span))


def matern(distance: Array, length: float) -> Array:
    """Matérn correlation with smoothness 5/2: (1 + a + a²/3) exp(-a), a = sqrt(5) d / l."""
    scaled = np.sqrt(5.0) * distance / length
    return np.asarray((1 + scaled + scaled * scaled / 3) * np.exp(-scaled))


@dataclass(frozen=True)
class _Fit:
    """The process at one (l, v), with the closed-form estimates of its mean and variance."""

    points: Array
    length: float
    inverse: Array
    centre: float
    variance: float
    residual: Array
    likelihood: float

    @classmethod
    def estimate(cls, points: Array, values: Array, length: float, nugget: float) -> _Fit:
        covariance = matern(np.abs(points[:, None] - points), length) + nugget * np.eye(len(points))
        inverse = np.linalg.inv(covariance)
        total = float(inverse.sum())
        centre = float(inverse.sum(axis=0) @ values) / total
        residual = values - centre
        # Equal values have no variance; the smallest positive number keeps the logarithm finite.
        variance = max(float(residual @ inverse @ residual) / (len(values) - 1), np.finfo(float).tiny)
        determinant = float(np.linalg.slogdet(covariance)[1])
        likelihood = -0.5 * ((len(values) - 1) * np.log(variance) + determinant + np.log(total))
        return cls(points, length, np.asarray(inverse, dtype=np.float64), centre, variance, residual, float(likelihood))

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Mean and standard deviation at new points."""
        correlation = matern(np.abs(points[:, None] - self.points), self.length)
        weighted = correlation @ self.inverse
        explained = np.einsum("kn,kn->k", weighted, correlation)
        unknown_mean = (1 - weighted.sum(axis=1)) ** 2 / float(self.inverse.sum())
        variance = self.variance * np.maximum(0.0, 1 - explained + unknown_mean)
        return self.centre + weighted @ self.residual, np.sqrt(variance)
