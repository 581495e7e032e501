"""Which guidance for each group: the objective, its exact minimum over the groups' curves, the front behind it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equigen.synthesis.guidance import Objective

Array = NDArray[np.float64]
Places = NDArray[np.int64]
TIE = 1e-3  # weight of the mean beside the worst group: it decides only between choices that are equal in the worst


def cost(excess: Array, objective: Objective, gap_weight: float) -> Array:
    """What is minimised, from excess KD [..., G] of all groups -> [...].

    ``worst``: max_g e_g (and, to break ties, a thousandth of the mean). ``gap``: mean_g e_g + gap_weight times
    (max_g e_g - min_g e_g), METHODS section 3.

    >>> cost(np.array([1.0, 2.0, 6.0]), "gap", 2.0).item()
    13.0
    """
    mean = excess.mean(axis=-1)
    if objective == "worst":
        return np.asarray(excess.max(axis=-1) + TIE * mean)
    return np.asarray(mean + gap_weight * np.ptp(excess, axis=-1))


def best_each(curves: Array, objective: Objective, gap_weight: float) -> Places:
    """Place on the grid for each group, [G], that minimises the objective over all combinations of the curves [G, K].

    Exact, without going through K^G combinations; see ``_levels``.
    """
    options = _levels(curves)
    costs = cost(np.take_along_axis(curves, options.T, axis=1).T, objective, gap_weight)
    return np.asarray(options[int(np.argmin(costs))])


def best_common(curves: Array, objective: Objective, gap_weight: float) -> int:
    """The one place on the grid for all groups that minimises the objective; curves [G, K]."""
    return int(np.argmin(cost(curves.T, objective, gap_weight)))


def front(curves: Array) -> Places:
    """[P, G] places of the choices that no other beats in both mean and gap, from the lowest mean on; curves [G, K]."""
    options = _levels(curves)
    values = np.take_along_axis(curves, options.T, axis=1).T
    means, gaps = values.mean(axis=1), np.ptp(values, axis=1)
    kept, least = [], np.inf
    for index in np.lexsort((gaps, means)):
        if gaps[index] < least:
            kept.append(int(index))
            least = float(gaps[index])
    return np.asarray(options[kept])


def _levels(curves: Array) -> Places:
    """[L, G] the only combinations that can be best in mean, worst and gap together.

    Let a be the lowest excess of a choice. Every group's smallest excess of at least a makes the mean, and the
    greatest excess too, as small as they can be with that a; so one combination for each a is enough, and a is one of
    the curves' values.
    """
    found = []
    for level in np.unique(curves):
        allowed = np.where(curves >= level, curves, np.inf)
        places = np.argmin(allowed, axis=1)
        if np.isfinite(np.take_along_axis(allowed, places[:, None], axis=1)).all():
            found.append(places)
    return np.unique(np.array(found, dtype=np.int64), axis=0)
