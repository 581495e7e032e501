"""Bayesian optimisation: selects the group and the guidance of the next evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equigen.synthesis.calibration.choice import best_per_group, cost
from equigen.synthesis.calibration.curve import Curve, fit_curve
from equigen.synthesis.guidance import Objective

Array = NDArray[np.float64]
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
        group, guidance = next_point(points, groups, goal)
        points.append(Point(group, guidance, measure(group, guidance)))
    return points


def fit_curves(points: Sequence[Point], groups: int, grid: Array) -> list[Curve]:
    """The curve of each group."""
    curves = []
    for group in range(groups):
        pairs = np.array([(point.guidance, point.excess) for point in points if point.group == group])
        curves.append(fit_curve(pairs[:, 0], pairs[:, 1], grid))
    return curves


def next_point(points: Sequence[Point], groups: int, goal: Goal) -> tuple[int, float]:
    """The group and guidance to measure next."""
    curves = fit_curves(points, groups, goal.grid)
    means = np.stack([curve.mean for curve in curves])
    best = means[np.arange(groups), best_per_group(means, goal.objective, goal.gap_weight)]
    gains = np.stack([gain_bound(curve, group, best, goal) for group, curve in enumerate(curves)])
    for point in points:  # the same prompts and seeds would give the same number again
        gains[point.group, goal.grid == point.guidance] = -np.inf
    group, position = np.unravel_index(int(np.argmax(gains)), gains.shape)
    return int(group), float(goal.grid[position])


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
