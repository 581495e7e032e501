"""The released mechanism against METHODS section 2, by hand."""

import torch

from equigen.equity.perturbation import ReleasedPerturbation, batch_gap
from equigen.seeds import torch_generator


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
