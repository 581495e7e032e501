"""Worst group per noise level: weights by hand, and what moving means must not be fooled by."""

import math

import pytest
import torch

from equigen.equity import Groups, build_mechanism

TWO = Groups((("sex", ("female", "male")),))
HALVES = torch.tensor([[0], [1]])


def minmax(index=HALVES, groups=TWO, **settings):
    mechanism = build_mechanism("minmax_noise", groups, 0, **settings)
    mechanism.sampling_weights(index)
    return mechanism


def test_weights_by_hand():
    """At easy noise 1 against 3 (x = -1/2, 1/2), at hard noise 4 against 4; temperature 1/2."""
    mechanism = minmax(temperature=0.5, strata=2, minimum=1)
    losses = torch.tensor([4.0, 4.0, 1.0, 3.0]).double()
    index, timesteps = torch.tensor([[0], [1], [0], [1]]), torch.tensor([100, 400, 600, 900])
    found = mechanism.weights(losses, index, timesteps, 0)
    low = 2 / (1 + math.exp(2))
    assert found.tolist() == pytest.approx([1.0, 1.0, low, 2 - low])
    assert mechanism.excess.tolist() == [[0.0, 0.0], [-0.5, 0.5]]
    assert mechanism.records() == pytest.approx({"weight/sex/female": (1 + low) / 2, "weight/sex/male": (3 - low) / 2})


def test_shares_count_in_the_normaliser():
    """Three women to a man, x = 1/5 and -3/5, temperature 2/5: v ~ e^(1/2), e^(-3/2)."""
    mechanism = minmax(torch.tensor([[0], [0], [0], [1]]), temperature=0.4, strata=1, minimum=1)
    losses, index = torch.tensor([1.2, 1.2, 1.2, 0.4]).double(), torch.tensor([[0], [0], [0], [1]])
    found = mechanism.weights(losses, index, torch.zeros(4), 0)
    assert found[0] / found[3] == pytest.approx(math.exp(2))
    assert float(found.mean()) == pytest.approx(1)


@pytest.mark.parametrize("temperature, expected", [(1e-4, [0.1, 1.9]), (1e6, [1.0, 1.0])])
def test_the_temperature_goes_from_the_worst_alone_to_plain_training(temperature, expected):
    mechanism = minmax(temperature=temperature, strata=1, minimum=1)
    found = mechanism.weights(torch.tensor([1.0, 2.0]).double(), HALVES, torch.zeros(2), 0)
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_a_cell_with_few_images_counts_as_average():
    mechanism = minmax(strata=1, minimum=3)
    assert mechanism.weights(torch.tensor([1.0, 9.0]), HALVES, torch.zeros(2), 0).tolist() == [1.0, 1.0]
    for seen in range(2, 8, 2):
        found = mechanism.weights(torch.tensor([1.0, 9.0]), HALVES, torch.zeros(2), seen)
    assert found.tolist() == pytest.approx([0.1, 1.9])


def test_absent_groups_and_levels_keep_their_means():
    mechanism = minmax(strata=2, minimum=1)
    mechanism.weights(torch.tensor([1.0, 3.0]), HALVES, torch.tensor([0, 0]), 0)
    before = mechanism.excess
    for seen in range(2, 400, 2):
        mechanism.weights(torch.tensor([1.0, 1.0]), torch.tensor([[0], [0]]), torch.tensor([900, 900]), seen)
    assert torch.equal(mechanism.excess[:, 1], before[:, 1])
    assert torch.equal(mechanism.excess[0], before[0])


def test_each_noise_level_has_its_own_worst_group():
    """Women are worse at low noise, men at high noise: each weighs more where it is behind."""
    mechanism = minmax(strata=2)
    generator = torch.Generator().manual_seed(0)
    for step in range(40):
        timesteps, index = torch.randint(0, 1000, (32,), generator=generator), torch.arange(32)[:, None] % 2
        high = timesteps >= 500
        behind = (index[:, 0] == 1) == high
        noise = 0.9 + 0.2 * torch.rand(32, generator=generator)
        mechanism.weights((3.0 - 2.5 * high) * (1 + 0.3 * behind) * noise, index, timesteps, 32 * step)
    table = mechanism.table()
    assert float(table[0, 0] / table[0, 1]) > 5
    assert float(table[1, 1] / table[1, 0]) > 5
    assert table.mean(1).tolist() == pytest.approx([1.0, 1.0])


def test_a_rare_group_does_not_look_bad_because_its_losses_are_old():
    """All losses fall 20-fold alike; one image in 40 is a man's. Means of raw losses would call him the worst."""
    index = (torch.arange(8000)[:, None] % 40 == 39).long()
    losses = torch.exp(-3 * torch.arange(8000) / 8000).double()
    mechanism = minmax(index, strata=1)
    for low in range(0, 8000, 40):
        part = slice(low, low + 40)
        mechanism.weights(losses[part], index[part], torch.zeros(40), low)
    weights = 0.5 ** ((199 - torch.arange(200)) / 300).double()
    raw = float((weights * losses[39::40]).sum() / weights.sum() / losses[-600:].mean()) - 1
    assert raw > 2
    assert abs(float(mechanism.excess[0].diff())) < 0.05


def test_the_batch_size_does_not_matter():
    generator = torch.Generator().manual_seed(1)
    index = (torch.rand(4096, generator=generator) < 0.1).long()[:, None]
    timesteps = torch.randint(0, 1000, (4096,), generator=generator)
    losses = torch.rand(4096, generator=generator).double() + 0.5 + 0.2 * index[:, 0]
    tables = []
    for size in (8, 64):
        mechanism = minmax(index, strata=2)
        for low in range(0, 4096, size):
            part = slice(low, low + size)
            mechanism.weights(losses[part], index[part], timesteps[part], low)
        tables.append(mechanism.excess)
    assert float((tables[0] - tables[1]).abs().max()) < 0.03
    assert float(tables[1][:, 1].min()) > 0.1


def test_noise_levels_may_be_counted_otherwise():
    """Continuous noise levels in [0, 1)."""
    mechanism = minmax(strata=2, minimum=1, noise_levels=1, temperature=0.5)
    found = mechanism.weights(
        torch.tensor([1.0, 3.0, 4.0, 4.0]).double(),
        torch.tensor([[0], [1], [0], [1]]),
        torch.tensor([0.1, 0.2, 0.6, 0.9]),
        0,
    )
    assert found.tolist() == pytest.approx([2 / (1 + math.exp(2)), 2 - 2 / (1 + math.exp(2)), 1.0, 1.0])
