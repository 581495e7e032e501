"""Curves against a named oracle, and a search on curves whose minima are known."""

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from equigen.synthesis.calibration.search import (
    GRID,
    INITIAL_POINTS,
    TIE,
    Curve,
    Goal,
    _Fit,
    best_per_group,
    cost,
    fit_curve,
    fit_curves,
    gain_bound,
    search,
)

X, Y = np.array([0.0, 0.35, 0.6, 1.0]), np.array([2.0, 0.5, 0.7, 3.0])


def test_a_curve_with_a_known_mean_is_scikit_learns():
    """Given its own generalised least squares mean and variance, the prediction is that of GaussianProcessRegressor."""
    fit, at = _Fit.estimate(X, Y, 0.5, 1e-2), np.linspace(0, 1, 9)
    oracle = GaussianProcessRegressor(Matern(0.5, nu=2.5), alpha=1e-2, optimizer=None)
    oracle.fit(X[:, None], Y - fit.centre)
    mean, deviation = oracle.predict(at[:, None], return_std=True)
    found = fit.predict(at)
    np.testing.assert_allclose(found[0], mean + fit.centre, atol=1e-10)
    weights = oracle.kernel_(at[:, None], X[:, None]) @ fit.inverse
    unknown = (1 - weights.sum(axis=1)) ** 2 / fit.inverse.sum()  # what not knowing the mean adds
    np.testing.assert_allclose(found[1] ** 2 / fit.variance, deviation**2 + unknown, atol=1e-10)


def test_the_likelihood_is_the_restricted_one():
    """Against the density of the contrasts that a constant mean does not move, with s² at its own estimate."""
    contrasts = np.linalg.qr(np.column_stack([np.ones(4), np.eye(4)[:, :3]]))[0][:, 1:].T
    found, expected = [], []
    for length, nugget in ((0.2, 1e-3), (0.7, 1e-2), (2.0, 0.1)):
        fit = _Fit.estimate(X, Y, length, nugget)
        covariance = contrasts @ np.linalg.inv(fit.inverse) @ contrasts.T
        values = contrasts @ Y
        variance = values @ np.linalg.solve(covariance, values) / 3
        assert fit.variance == pytest.approx(variance)
        found.append(fit.likelihood)
        expected.append(-0.5 * (3 * np.log(variance) + np.linalg.slogdet(covariance)[1]))
    np.testing.assert_allclose(np.diff(found), np.diff(expected))


def test_a_curve_passes_near_its_points_and_is_less_sure_between_them():
    grid = np.linspace(1, 4, 31)
    curve = fit_curve(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 1.0, 4.0, 9.0]), grid)
    np.testing.assert_allclose(curve.mean[[0, 10, 20, 30]], [0, 1, 4, 9], atol=0.3)
    assert curve.deviation[5] > 1.1 * curve.deviation[10]
    flat = fit_curve(np.array([1.0, 2.0, 4.0]), np.full(3, 7.0), grid)
    np.testing.assert_allclose(flat.mean, 7)
    assert np.isfinite(flat.deviation).all()


CURVES = [lambda w: 1 + (w - 1.6) ** 2, lambda w: 4 + 0.5 * (w - 3.3) ** 2, lambda w: 0.2 * (w - 2.5) ** 2]


def run(objective, weight=1.0, evaluations=24):
    return search(3, evaluations, Goal(objective, weight, (1.0, 4.0)), lambda g, w: CURVES[g](w))


def test_the_search_spends_what_it_may_and_looks_where_the_worst_group_gains():
    points = run("worst")
    assert len(points) == 24 and len({(point.group, point.guidance) for point in points}) == 24
    first = [point.guidance for point in points[: 3 * INITIAL_POINTS]]
    assert first == [w for w in (1.0, 2.0, 3.0, 4.0) for _ in range(3)]
    best = min(point.excess for point in points if point.group == 1)
    assert best == pytest.approx(4, abs=0.02)
    later = [point.group for point in points[3 * INITIAL_POINTS :]]
    assert later[0] == 1  # the worst group alone can lower the objective
    grid = Goal("worst", 1.0, (1.0, 4.0)).grid
    assert all(p.guidance in grid and p.excess == CURVES[p.group](p.guidance) for p in points)


@pytest.mark.parametrize(("objective", "weight"), [("worst", 1.0), ("gap", 0.2), ("gap", 5.0)])
def test_what_is_chosen_is_nearly_as_good_as_if_the_curves_were_known(objective, weight):
    """With weight 5 the good groups are to be as bad as the worst, where their curves reach that far."""
    goal = Goal(objective, weight, (1.0, 4.0))
    truth = np.array([[curve(w) for w in goal.grid] for curve in CURVES])
    means = np.stack([curve.mean for curve in fit_curves(run(objective, weight, 27), 3, goal.grid)])
    found, best = (best_per_group(curves, objective, weight) for curves in (means, truth))
    paid, least = (cost(truth[np.arange(3), places], objective, weight) for places in (found, best))
    assert paid <= least + 0.05
    equal = cost(truth[:, [0, 20, 40, 60]].T, objective, weight)  # the guidances that everybody starts from
    assert paid < equal.min() - 0.03


def test_the_hoped_gain_by_hand():
    """Groups at 5 and 2 now; the first may be 5 - 2 x 1 at a place of mean 5 and deviation 1, or 2 at most there."""
    curve = Curve(np.array([1.0, 4.0]), np.array([5.0, 9.0]), np.array([1.0, 0.5]))
    worst = gain_bound(curve, 0, np.array([5.0, 2.0]), Goal("worst", 1.0, (1.0, 4.0)))
    np.testing.assert_allclose(worst, [2 + TIE, -3 - 1.5 * TIE])  # 3 and 8 in place of 5
    gap = gain_bound(curve, 0, np.array([5.0, 2.0]), Goal("gap", 1.0, (1.0, 4.0)))
    np.testing.assert_allclose(gap, [6.5 - (2.5 + 1), 6.5 - (5 + 6)])
    up = gain_bound(curve, 1, np.array([5.0, 2.0]), Goal("gap", 1.0, (1.0, 4.0)))
    np.testing.assert_allclose(up, [6.5 - 5, 6.5 - (6.5 + 3)])  # as bad as the other: 5 and 5


def test_the_search_is_the_same_again_and_a_larger_budget_goes_on_from_a_smaller():
    assert run("worst", evaluations=15) == run("worst", evaluations=15) == run("worst", evaluations=17)[:15]


def test_the_grid_is_in_steps_of_a_twentieth():
    grid = Goal("worst", 1.0, (1.0, 4.0)).grid
    assert len(grid) == GRID and grid[[0, 1, 20, 60]].tolist() == [1, 1.05, 2, 4]
