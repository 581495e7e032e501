"""The search: which group is evaluated next, at which guidance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equigen.synthesis.calibration.choice import best_each, cost
from equigen.synthesis.calibration.curve import Curve, fit_curve
from equigen.synthesis.guidance import Objective

Array = NDArray[np.float64]
START = 4       # guidances at which each group is measured first, from end to end of the bounds
GRID = 61       # guidances among which is chosen: steps of 0.05 between 1 and 4
DEVIATIONS = 2  # how far off the curve's mean a group's excess is hoped to be: sqrt(beta) of UCB


@dataclass(frozen=True)
class Point:
    """One evaluation: the group's number, the guidance, and the excess KD found there."""

    group: int
    guidance: float
    excess: float


@dataclass(frozen=True)
class Goal:
    """What is minimised, and between which guidances."""

    objective: Objective
    gap_weight: float
    bounds: tuple[float, float]

    @property
    def grid(self) -> Array:
        """[K] guidances among which is chosen."""
        return np.round(np.linspace(*self.bounds, GRID), 4)


def search(
    groups: int, evaluations: int, goal: Goal, measure: Callable[[int, float], float]
) -> list[Point]:
    """Measure (group, guidance) one after the other until ``evaluations`` are spent; the same calls, the same points.

    First every group at ``START`` guidances. A group's excess depends on its own guidance alone, so each has a curve
    of its own (``fit_curve``) instead of one process over all guidances together. Then, again and again, the group and
    guidance with the largest upper confidence bound of what the objective would gain (``hoped_gain``; Astudillo and
    Frazier, ICML 2019, on objectives composed of several outcomes). Over a grid in one dimension that bound is exact
    and costs nothing, so BoTorch's proposals, half a second each, are not needed here.

    Args:
        groups: number of groups G.
        evaluations: how many, at least ``START`` G.
        goal: the objective and the bounds.
        measure: (group, guidance) -> excess KD.

    """
    grid = goal.grid
    first = grid[np.linspace(0, GRID - 1, START).round().astype(np.int64)]
    points = [Point(group, float(w), measure(group, float(w))) for w in first for group in range(groups)]
    while len(points) < evaluations:
        group, guidance = next_point(points, groups, goal)
        points.append(Point(group, guidance, measure(group, guidance)))
    return points


def fit_curves(points: Sequence[Point], groups: int, grid: Array) -> list[Curve]:
    """The curve of each group."""
    fitted = []
    for group in range(groups):
        own = np.array([(point.guidance, point.excess) for point in points if point.group == group])
        fitted.append(fit_curve(own[:, 0], own[:, 1], grid))
    return fitted


def next_point(points: Sequence[Point], groups: int, goal: Goal) -> tuple[int, float]:
    """The group and guidance to measure next."""
    curves = fit_curves(points, groups, goal.grid)
    means = np.stack([curve.mean for curve in curves])
    chosen = means[np.arange(groups), best_each(means, goal.objective, goal.gap_weight)]
    gains = np.stack([hoped_gain(curve, group, chosen, goal) for group, curve in enumerate(curves)])
    for point in points:  # the same prompts and seeds again would give the same number again
        gains[point.group, goal.grid == point.guidance] = -np.inf
    group, place = np.unravel_index(int(np.argmax(gains)), gains.shape)
    return int(group), float(goal.grid[place])


def hoped_gain(curve: Curve, group: int, chosen: Array, goal: Goal) -> Array:
    """[K] by how much the objective would fall if the group's excess were the best that its curve allows there.

    An upper confidence bound of the gain: the best value within ``DEVIATIONS`` standard deviations of the mean, with
    the excess of the other groups as they would now be chosen, ``chosen`` [G].
    """
    reach = DEVIATIONS * curve.deviation
    low, high, others = curve.mean - reach, curve.mean + reach, np.delete(chosen, group)
    # The objective is piecewise linear in one group's excess, with corners at the others' least and greatest.
    corners = [low, high, np.clip(others.min(), low, high), np.clip(others.max(), low, high)]
    values = np.tile(chosen, (len(corners), len(curve.grid), 1))
    values[..., group] = corners
    now = float(cost(chosen, goal.objective, goal.gap_weight))
    return np.asarray(now - cost(values, goal.objective, goal.gap_weight).min(axis=0))
