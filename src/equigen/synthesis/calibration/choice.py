"""The objective of a calibration, its exact minimum over the groups' curves, and the Pareto front of mean and gap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equigen.synthesis.guidance import Objective

Array = NDArray[np.float64]
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
