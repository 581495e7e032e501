"""Bayesian optimisation: it optimises, it is a function of its seed, and it says when it could not."""

import numpy as np
import pytest
import torch

from equigen.equity import propose
from equigen.equity.bayes import NEWEST, sobol_points
from equigen.errors import InputError

CENTRE = torch.tensor([0.7, 0.35], dtype=torch.float64)


def hill(points):
    """A smooth function on [0,1]^2 with its maximum 1 at CENTRE."""
    return torch.exp(-6 * (points - CENTRE).square().sum(-1))


def best_of_search(seed, budget):
    points = sobol_points(2, 3, seed)
    while len(points) < budget:
        points = torch.cat([points, propose(points, hill(points), seed=seed).point[None]])
    return float(hill(points).max())


def test_it_finds_a_maximum_better_than_random_at_equal_budget():
    budget = 10
    regret = torch.tensor([1 - best_of_search(seed, budget) for seed in (1, 2)])
    draws = torch.rand(2000, budget, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    by_chance = 1 - hill(draws).amax(1)
    assert float(regret.mean()) < 0.1 * float(by_chance.mean())
    assert float(regret.max()) < float(by_chance.quantile(0.1))


def some_history(n=12, k=2):
    points = sobol_points(k, n, 1)
    return points, -(points - 0.4).square().sum(1)


def test_a_seed_fixes_the_proposal_and_no_global_state_is_touched():
    points, rewards = some_history()
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = propose(points, rewards, seed=3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    torch.manual_seed(2)
    np.random.seed(2)
    assert torch.equal(propose(points, rewards, seed=3).point, first.point)
    assert first.fallback is None
    assert first.point.dtype == torch.float64
    assert bool(((first.point >= 0) & (first.point <= 1)).all())


def test_the_scale_of_rewards_does_not_matter():
    points, rewards = some_history()
    found = propose(points, rewards, seed=0).point
    scaled = propose(points, 1e-4 * rewards + 5, seed=0).point
    assert torch.allclose(found, scaled, atol=0.02)


def test_only_the_newest_points_are_seen():
    points, rewards = some_history(NEWEST + 6)
    changed = rewards.clone()
    changed[:6] += 100.0
    assert torch.equal(propose(points, rewards, seed=0).point, propose(points, changed, seed=0).point)
    changed[6] += 100.0
    assert not torch.equal(propose(points, rewards, seed=0).point, propose(points, changed, seed=0).point)


def test_with_time_it_follows_a_maximum_that_moves():
    """The best point goes from 0.1 to 0.9 while rewards are measured."""
    times = torch.arange(16)
    points = sobol_points(1, 16, 0)
    rewards = -(points[:, 0] - (0.1 + 0.8 * times / 15)).square()
    followed = float(propose(points, rewards, times=times, current_time=15.0, seed=0).point)
    assert abs(followed - 0.9) < 0.12
    assert abs(float(propose(points, rewards, seed=0).point) - 0.9) > 0.2


@pytest.mark.parametrize(
    "points, rewards",
    [
        (torch.rand(1, 3), torch.zeros(1)),
        (torch.rand(6, 3), torch.full((6,), 0.25)),
        (torch.full((6, 2), 0.5), torch.arange(6.0)),
    ],
)
def test_poor_histories_still_give_a_point_in_the_cube(points, rewards):
    found = propose(points, rewards, seed=0, times=torch.full((len(points),), 7), current_time=7.0)
    assert found.fallback is None
    assert found.point.shape == (points.shape[1],)
    assert bool(((found.point >= 0) & (found.point <= 1)).all())


def test_a_failed_fit_gives_the_best_point_again_and_says_why(monkeypatch):
    from equigen.equity import gaussian_process as process

    def fail(*_):
        raise process.ModelFittingError("no start converged")

    monkeypatch.setattr(process, "maximise", fail)
    points, rewards = some_history()
    found = propose(points, rewards, seed=0)
    assert torch.equal(found.point, points[rewards.argmax()])
    assert found.fallback == "ModelFittingError: no start converged"


def test_a_fault_that_is_no_failed_fit_is_not_hidden(monkeypatch):
    from equigen.equity import gaussian_process as process

    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(process, "maximise", fail)
    with pytest.raises(ZeroDivisionError):
        propose(*some_history(), seed=0)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"points": torch.rand(3)}, "are not"),
        ({"points": torch.zeros(0, 2), "rewards": torch.zeros(0)}, "are not"),
        ({"rewards": torch.zeros(4)}, "are not"),
        ({"rewards": torch.tensor([0.0, float("nan"), 1.0])}, "not all finite"),
        ({"points": torch.full((3, 2), 1.5)}, "outside"),
        ({"times": torch.zeros(3)}, "need each other"),
        ({"times": torch.zeros(2), "current_time": 1.0}, "one value a point"),
    ],
)
def test_histories_that_cannot_be_are_refused(change, message):
    arguments = {"points": torch.rand(3, 2), "rewards": torch.rand(3), "seed": 0, **change}
    with pytest.raises(InputError, match=message):
        propose(**arguments)
