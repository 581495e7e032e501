"""The released mechanism against METHODS section 2 by hand; its defects, which the corrected form has not."""

import math

import pytest
import torch

from equigen.equity import Groups, group_losses
from equigen.equity.perturbation import ReleasedPerturbation, batch_gap
from equigen.equity.perturbation_corrected import CorrectedPerturbation, relative_gap
from equigen.seeds import torch_generator

TWO = Groups((("sex", ("female", "male")),))


def long_batch(n=200_000):
    """Many images, half of each sex."""
    return torch.ones(n), torch.arange(n)[:, None] % 2, torch.zeros(n)


def test_released_weights_by_hand(groups):
    mechanism = ReleasedPerturbation(groups, 7)
    mechanism.sigma = torch.tensor([0.5, 0.25, 1.0, 0.0, 2.0], dtype=torch.float64)
    index = torch.tensor([[0, 2], [1, 1], [-1, 0]])
    eps = torch.randn(3, 2, generator=torch_generator(7, "equity/noise", 96))
    expected = [1 + 0.5 * eps[0, 0] + 2 * eps[0, 1], 1 + 0.25 * eps[1, 0], 1 + eps[2, 1]]
    assert torch.allclose(mechanism.weights(torch.ones(3), index, torch.zeros(3), 96), torch.stack(expected))


def test_released_gap_by_hand(groups):
    losses = torch.tensor([1.0, 2.0, 4.0, 9.0])
    index = torch.tensor([[0, 0], [0, 1], [1, 2], [1, -1]])
    assert batch_gap(losses, index, groups) == (6.5 - 1.5) + (4.0 - 1.0)


def test_released_schedule_by_hand(groups, monkeypatch):
    """Sigma starts at 1; each step mixes; the window's end chooses, empties, and mixes too."""
    from equigen.equity import Proposal, perturbation

    chosen = torch.full((5,), 0.5, dtype=torch.float64)
    seen = []

    def fixed(points, rewards, *, beta, seed):
        seen.append((points.clone(), rewards.clone(), beta))
        return Proposal(chosen, None)

    monkeypatch.setattr(perturbation, "propose", fixed)
    mechanism = ReleasedPerturbation(groups, 0, time_window=2)
    losses, index = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([[0, 0], [1, 1], [1, 2]])
    first = mechanism.sigma
    assert torch.equal(first, torch.ones(5))
    mechanism.weights(losses, index, torch.zeros(3), 0)
    second = mechanism.sigma
    uniform = torch.rand(5, generator=torch_generator(0, "equity/mixing", 0), dtype=torch.float64)
    assert torch.allclose(second, 0.95 * first + 0.05 * uniform)
    mechanism.weights(2 * losses, index, torch.zeros(3), 3)
    uniform = torch.rand(5, generator=torch_generator(0, "equity/mixing", 3), dtype=torch.float64)
    assert torch.allclose(mechanism.sigma, 0.95 * chosen + 0.05 * uniform)
    assert len(mechanism.rewards) == 0
    points, rewards, beta = seen[0]
    assert torch.equal(points, torch.stack([first, second]))
    assert rewards.tolist() == [-3.5, -7.0]
    assert beta == 0.1
    assert mechanism.records()["reward"] == -7.0


def test_released_window_is_fitted_for_real(groups, batch):
    mechanism = ReleasedPerturbation(groups, 0, time_window=4, rho=1.0)
    for step in range(4):
        mechanism.weights(*batch, 64 * step)
    assert len(mechanism.rewards) == 0
    assert mechanism.fallbacks == 0
    assert not torch.equal(mechanism.sigma, torch.ones(5, dtype=torch.float64))


def test_defect_1_sigma_is_no_lever():
    """Mean weight per group: 1 for both as released; exp(1/2) to 1 as corrected."""
    released, corrected = ReleasedPerturbation(TWO, 0), CorrectedPerturbation(TWO, 0)
    released.sigma = corrected.point = torch.tensor([1.0, 0.0], dtype=torch.float64)
    weights = released.weights(*long_batch(), 0)
    assert float(weights[0::2].mean()) == pytest.approx(1.0, abs=0.015)
    assert float(weights[1::2].mean()) == 1.0
    weights = corrected.weights(*long_batch(), 0)
    lever = math.exp(0.5)
    assert float(weights[0::2].mean()) == pytest.approx(2 * lever / (lever + 1), abs=0.025)
    assert float(weights[1::2].mean()) == pytest.approx(2 / (lever + 1), abs=1e-6)


def test_defect_2_negative_weights():
    """28 % negative at the start with three attributes; none as corrected."""
    three = Groups(tuple((name, ("a", "b")) for name in "uvw"))
    index = torch.zeros(100_000, 3, dtype=torch.int64)
    batch = torch.ones(100_000), index, torch.zeros(100_000)
    share = float((ReleasedPerturbation(three, 0).weights(*batch, 0) < 0).float().mean())
    assert share == pytest.approx(0.5 * math.erfc(math.sqrt(1 / 3) / math.sqrt(2)), abs=0.006)
    assert share == pytest.approx(0.28, abs=0.01)
    corrected = CorrectedPerturbation(three, 0)
    corrected.point = torch.ones(6, dtype=torch.float64)
    assert float(corrected.weights(*batch, 0).min()) > 0


def test_defect_3_an_absent_group_looks_perfectly_fair():
    losses = torch.tensor([1.0, 1.1, 9.0])
    all_there, one_absent = torch.tensor([[0], [1], [0]]), torch.tensor([[0], [0], [0]])
    released = ReleasedPerturbation(TWO, 0)
    released.weights(losses, all_there, torch.zeros(3), 0)
    honest = released.reward
    released.weights(losses, one_absent, torch.zeros(3), 3)
    assert released.reward == 0.0 > honest
    assert math.isnan(relative_gap(group_losses(losses, one_absent, TWO), 1))
    assert relative_gap(group_losses(losses, all_there, TWO), 1) == pytest.approx(3.9 / 3.7)


def test_defect_4_timestep_noise_passes_for_a_gap():
    """Two groups with the very same loss at each noise level: the batch shows a gap, the strata none."""
    generator = torch.Generator().manual_seed(0)
    timesteps = torch.randint(0, 1000, (32,), generator=generator)
    index = torch.arange(32)[:, None] % 2
    released = ReleasedPerturbation(TWO, 0)
    released.weights(timesteps / 1000, index, timesteps, 0)
    assert released.reward < -0.01
    fixed = (torch.arange(4.0) / 4).expand(32, 4)
    assert relative_gap(group_losses(fixed, index, TWO), 1) == 0.0


def test_defect_5_the_chosen_sigma_is_mixed_away():
    """What 30 steps leave of a difference in sigma: 0.95^30 = 21 % as released, all of it as corrected."""
    low, high = (ReleasedPerturbation(TWO, 0, time_window=1000) for _ in range(2))
    low.sigma = torch.zeros(2, dtype=torch.float64)
    corrected = CorrectedPerturbation(TWO, 0, window_images=1000)
    corrected.point = torch.tensor([0.3, 0.8], dtype=torch.float64)
    for step in range(30):
        batch = torch.ones(32), torch.arange(32)[:, None] % 2, torch.zeros(32)
        for mechanism in (low, high, corrected):
            mechanism.weights(*batch, 32 * step)
    left = high.sigma - low.sigma
    assert left.tolist() == pytest.approx([0.95**30] * 2)
    assert float(left[0]) == pytest.approx(0.21, abs=0.005)
    assert corrected.sigma.tolist() == [0.3, 0.8]
