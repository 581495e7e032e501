"""The exact choice over the groups' curves, against going through every combination."""

from itertools import product

import numpy as np
import pytest

from equigen.synthesis.calibration.search import TIE, best_common, best_per_group, cost, front


def every(curves):
    """Excess [C, G] of all combinations, and their places."""
    places = np.array(list(product(range(curves.shape[1]), repeat=len(curves))))
    return np.take_along_axis(curves, places.T, axis=1).T, places


def values(curves, places):
    return curves[np.arange(len(curves)), places]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("objective", "weight"), [("worst", 1.0), ("gap", 0.0), ("gap", 0.4), ("gap", 3.0)])
def test_the_choice_is_the_best_of_all_combinations(seed, objective, weight):
    curves = np.random.default_rng(seed).normal(size=(3, 7))
    found = cost(values(curves, best_per_group(curves, objective, weight)), objective, weight)
    assert found == cost(every(curves)[0], objective, weight).min()


@pytest.mark.parametrize("seed", range(6))
def test_the_front_is_what_no_combination_beats_in_both(seed):
    curves = np.random.default_rng(seed).normal(size=(3, 6))
    all_values, _ = every(curves)
    means, gaps = all_values.mean(axis=1), np.ptp(all_values, axis=1)
    pairs = set(zip(means.round(12), gaps.round(12), strict=True))
    best = sorted(a for a in pairs if not any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in pairs))
    found = [values(curves, places) for places in front(curves)]
    np.testing.assert_allclose([(v.mean(), np.ptp(v)) for v in found], best, atol=1e-9)


def test_worst_leaves_the_other_groups_at_their_own_minimum():
    """The worst group cannot be helped below 5; what the others do then decides the mean alone."""
    curves = np.array([[9.0, 5.0, 6.0], [4.0, 3.0, 1.0]])
    assert best_per_group(curves, "worst", 1.0).tolist() == [1, 2]
    assert cost(np.array([5.0, 1.0]), "worst", 1.0) == 5 + TIE * 3


def test_gap_levels_down_where_its_weight_pays_for_it():
    """By hand: (5, 1) costs 3 + 4 w, (5, 4) costs 4.5 + w: the second is cheaper from w = 0.5 on."""
    curves = np.array([[5.0, 5.0], [1.0, 4.0]])
    assert values(curves, best_per_group(curves, "gap", 0.4)).tolist() == [5, 1]
    assert values(curves, best_per_group(curves, "gap", 0.6)).tolist() == [5, 4]
    assert [values(curves, places).tolist() for places in front(curves)] == [[5, 1], [5, 4]]


def test_one_guidance_for_all_is_held_to_the_same_objective():
    curves = np.array([[5.0, 6.0, 9.0], [9.0, 7.0, 2.0]])
    assert best_common(curves, "worst", 1.0) == 1  # worst 9, 7, 9
    assert best_common(curves, "gap", 0.0) == 2  # mean 7, 6.5, 5.5
    assert best_common(curves, "gap", 1.0) == 1  # 7 + 4, 6.5 + 1, 5.5 + 7
