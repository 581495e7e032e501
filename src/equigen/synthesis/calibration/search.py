"""Bayesian optimisation of the guidance: a Gaussian process a group, the objective, and the next evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equigen.synthesis.guidance import Objective

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


Indices = NDArray[np.int64]
TIE = 1e-3  # weight of the mean added to the worst group's excess, which only breaks ties


def cost(excess: Array, objective: Objective, gap_weight: float) -> Array:
    """Objective to minimise: excess KD of all groups [..., G] -> [...].

    ``worst``: max_g e_g plus ``TIE`` times the mean, to break ties. ``gap``: mean_g e_g + gap_weight times
    (max_g e_g - min_g e_g), METHODS section 3.

    >>> cost(np.array([1.0, 2.0, 6.0]), "gap", 2.0).item()
    13.0
    """
    mean = excess.mean(axis=-1)
    if objective == "worst":
        return np.asarray(excess.max(axis=-1) + TIE * mean)
    return np.asarray(mean + gap_weight * np.ptp(excess, axis=-1))


def best_per_group(curves: Array, objective: Objective, gap_weight: float) -> Indices:
    """Grid index of each group [G] that minimises the objective over all combinations of the curves [G, K].

    Exact without enumerating the K^G combinations; see ``_candidates``.
    """
    options = _candidates(curves)
    costs = cost(np.take_along_axis(curves, options.T, axis=1).T, objective, gap_weight)
    return np.asarray(options[int(np.argmin(costs))])


def best_common(curves: Array, objective: Objective, gap_weight: float) -> int:
    """Grid index that minimises the objective where all groups share it; curves [G, K]."""
    return int(np.argmin(cost(curves.T, objective, gap_weight)))


def front(curves: Array) -> Indices:
    """Grid indices [P, G] of the Pareto-optimal choices in mean and gap, by ascending mean; curves [G, K]."""
    options = _candidates(curves)
    values = np.take_along_axis(curves, options.T, axis=1).T
    means, gaps = values.mean(axis=1), np.ptp(values, axis=1)
    optimal, least = [], np.inf
    for index in np.lexsort((gaps, means)):
        if gaps[index] < least:
            optimal.append(int(index))
            least = float(gaps[index])
    return np.asarray(options[optimal])


def _candidates(curves: Array) -> Indices:
    """Combinations [L, G] that contain every optimum in mean, worst or gap.

    Let a be the lowest excess of a combination. Taking for each group its smallest excess of at least a minimises both
    the mean and the greatest excess given a. One combination for each a suffices, and a is a value of a curve.
    """
    combinations = []
    for lowest in np.unique(curves):
        allowed = np.where(curves >= lowest, curves, np.inf)
        indices = np.argmin(allowed, axis=1)
        if np.isfinite(np.take_along_axis(allowed, indices[:, None], axis=1)).all():
            combinations.append(indices)
    return np.unique(np.array(combinations, dtype=np.int64), axis=0)


INITIAL_POINTS = 4  # initial guidances of each group, evenly spaced over the bounds
GRID = 61  # candidate guidances: steps of 0.05 between 1 and 4
DEVIATIONS = 2  # half-width of the confidence bound in standard deviations: sqrt(beta) of UCB


@dataclass(frozen=True)
class Point:
    """One evaluation: the group's index, the guidance and the measured excess KD."""

    group: int
    guidance: float
    excess: float


@dataclass(frozen=True)
class Goal:
    """The objective to minimise and the bounds of the guidance."""

    objective: Objective
    gap_weight: float
    bounds: tuple[float, float]

    @property
    def grid(self) -> Array:
        """[K] candidate guidances."""
        return np.round(np.linspace(*self.bounds, GRID), 4)


def search(groups: int, evaluations: int, goal: Goal, measure: Callable[[int, float], float]) -> list[Point]:
    """Evaluate pairs (group, guidance) sequentially until ``evaluations`` are spent; deterministic given ``measure``.

    Every group is measured at ``INITIAL_POINTS`` guidances first. A group's excess depends on its own guidance alone,
    so each group has its own curve (``fit_curve``) instead of one process over all guidances together. Each further
    evaluation is of the group and guidance with the largest upper confidence bound of the gain in the objective
    (``gain_bound``; Astudillo and Frazier, ICML 2019, on objectives composed of several outcomes). On a grid in one
    dimension the bound is exact and cheap, so no numerical proposals (BoTorch) are needed.

    Args:
        groups: number of groups G.
        evaluations: number of evaluations, at least ``INITIAL_POINTS`` G.
        goal: the objective and the bounds.
        measure: (group, guidance) -> excess KD.

    """
    grid = goal.grid
    first = grid[np.linspace(0, GRID - 1, INITIAL_POINTS).round().astype(np.int64)]
    points = [Point(group, float(w), measure(group, float(w))) for w in first for group in range(groups)]
    while len(points) < evaluations:
        curves = fit_curves(points, groups, grid)
        means = np.stack([curve.mean for curve in curves])
        best = means[np.arange(groups), best_per_group(means, goal.objective, goal.gap_weight)]
        gains = np.stack([gain_bound(curve, group, best, goal) for group, curve in enumerate(curves)])
        for point in points:  # the same prompts and seeds would give the same number again
            gains[point.group, grid == point.guidance] = -np.inf
        group, position = map(int, np.unravel_index(int(np.argmax(gains)), gains.shape))
        guidance = float(grid[position])
        points.append(Point(group, guidance, measure(group, guidance)))
    return points


def fit_curves(points: Sequence[Point], groups: int, grid: Array) -> list[Curve]:
    """The curve of each group."""
    curves = []
    for group in range(groups):
        pairs = np.array([(point.guidance, point.excess) for point in points if point.group == group])
        curves.append(fit_curve(pairs[:, 0], pairs[:, 1], grid))
    return curves


def gain_bound(curve: Curve, group: int, best: Array, goal: Goal) -> Array:
    """[K] upper confidence bound of the decrease of the objective if ``group`` had each guidance of the grid.

    The group's excess takes the best value within ``DEVIATIONS`` standard deviations of its mean; the other groups
    keep ``best`` [G], the excess at the guidances that are currently best.
    """
    reach = DEVIATIONS * curve.deviation
    low, high, rest = curve.mean - reach, curve.mean + reach, np.delete(best, group)
    # The objective is piecewise linear in one group's excess, with corners at the least and greatest of the rest.
    corners = [low, high, np.clip(rest.min(), low, high), np.clip(rest.max(), low, high)]
    values = np.tile(best, (len(corners), len(curve.grid), 1))
    values[..., group] = corners
    current = float(cost(best, goal.objective, goal.gap_weight))
    return np.asarray(current - cost(values, goal.objective, goal.gap_weight).min(axis=0))
