"""Group DRO: its update by hand, its objective, and why losses are compared at equal noise."""

import math

import pytest
import torch

from equigen.equity import Groups, build_mechanism
from equigen.equity.running_means import empty_means, means, update_means

TWO = Groups((("sex", ("female", "male")),))
WIDE = {"min_weight": 1e-6, "max_weight": 1e6}


def dro(index, groups=TWO, **settings):
    mechanism = build_mechanism("group_dro", groups, 0, **settings)
    mechanism.sampling_weights(index)
    return mechanism


def three_to_one(n=16):
    """Three women to each man."""
    return (torch.arange(n)[:, None] % 4 == 3).long()


def test_one_update_by_hand():
    """Losses 1, 1, 1, 5, mean 2: e = -1/2 and 3/2; divided by the shares, -2 and 6; v1 / v0 = exp(8 eta)."""
    mechanism = dro(three_to_one(), start="frequency", eta=0.01, strata=1, **WIDE)
    index = torch.tensor([[0], [0], [0], [1]])
    found = mechanism.weights(torch.tensor([1.0, 1.0, 1.0, 5.0]).double(), index, torch.zeros(4), 0)
    v = 1 / (0.75 + 0.25 * math.exp(0.08))
    assert found.tolist() == pytest.approx([v, v, v, v * math.exp(0.08)])
    again = mechanism.weights(torch.tensor([2.0, 2.0]).double(), torch.tensor([[0], [1]]), torch.zeros(2), 4)
    assert float(again[1] / again[0]) == pytest.approx(math.exp(0.08))  # both at the mean, 2: nothing to learn


def test_the_adjustment_by_hand():
    """12 women, 4 men, equal losses: 3 * 2 / sqrt(12) / 0.75 against 2 / sqrt(4) / 0.25."""
    mechanism = dro(three_to_one(), start="frequency", eta=0.01, adjustment=2.0, **WIDE)
    index = torch.tensor([[0], [0], [0], [1]])
    found = mechanism.weights(torch.ones(4).double(), index, torch.zeros(4), 0)
    assert float(found[3] / found[0]) == pytest.approx(math.exp(0.01 * (4 - 8 / math.sqrt(12))))


def test_it_starts_uniform_over_groups_or_at_their_frequency():
    index = torch.tensor([[0], [1]])
    for start, expected in (("uniform", [2 / 3, 2.0]), ("frequency", [1.0, 1.0])):
        found = dro(three_to_one(), start=start).weights(torch.ones(2).double(), index, torch.zeros(2), 0)
        assert found.tolist() == pytest.approx(expected)


def test_the_weighted_loss_of_the_training_set_is_the_robust_objective():
    """mean_i(w_i l_i) = sum_g q_g mean(l : g), with q_g = pi_g v_g."""
    index = three_to_one(400)
    mechanism = dro(index, eta=0.0)
    mechanism.memory["log_factors"] = torch.tensor([0.5, 2.0]).double().log()  # q = (3/8, 1/2): scaled to sum 1
    losses = torch.rand(400, generator=torch.Generator().manual_seed(0)).double()
    weights = mechanism.weights(losses, index, torch.zeros(400), 0)
    robust = 3 / 7 * losses[index[:, 0] == 0].mean() + 4 / 7 * losses[index[:, 0] == 1].mean()
    assert float((weights * losses).mean()) == pytest.approx(float(robust))


@pytest.mark.parametrize("combine, expected", [("mean", [1.25, 0.875, 0.75]), ("product", [1.5, 0.75, 0.5])])
def test_several_attributes_by_hand(combine, expected):
    """Independent halves with v = (3/2, 1/2) for sex and (1, 1) for age; then an image of unknown sex: v = 1."""
    four = Groups((("sex", ("f", "m")), ("age", ("young", "old"))))
    index = torch.tensor([(s, a) for s in range(2) for a in range(2)])
    mechanism = dro(index, four, combine=combine, eta=0.0)
    mechanism.memory["log_factors"] = torch.tensor([1.5, 0.5, 1.0, 1.0]).double().log()
    found = mechanism.weights(torch.ones(4).double(), index, torch.zeros(4), 0).tolist()
    assert found == pytest.approx(
        [expected[0], expected[0], expected[0] - 2 * (expected[0] - 1), expected[0] - 2 * (expected[0] - 1)]
    )


def test_an_absent_group_keeps_its_ratio_when_the_others_are_at_the_mean():
    three = Groups((("site", ("a", "b", "c")),))
    mechanism = dro(torch.arange(30)[:, None] % 3, three, start="frequency", eta=0.01, **WIDE)
    mechanism.weights(torch.tensor([1.0, 3.0]), torch.tensor([[0], [2]]), torch.zeros(2), 0)
    a, b, c = mechanism.memory["log_factors"].exp().tolist()
    # the mean is 2: e = -1/2 and 1/2, over shares of 1/3; b's log q does not move but for normalising
    assert a / b == pytest.approx(math.exp(-0.015))
    assert c / b == pytest.approx(math.exp(0.015))
    assert a + b + c == pytest.approx(3)


def test_bounds_hold_however_long_a_group_is_worse_and_it_comes_back_as_fast():
    mechanism = dro(three_to_one(), eta=0.05, min_weight=0.2, max_weight=2.5)
    index = three_to_one(16)
    worse = 1 + index[:, 0].double()

    def ratio(losses, steps):
        for step in range(steps):
            found = mechanism.weights(losses, index, torch.zeros(16), 16 * step)
            assert 0.2 - 1e-9 <= float(found.min()) <= float(found.max()) <= 2.5 + 1e-9
        return found[3].item(), found[0].item()

    assert ratio(worse, 150) == pytest.approx((2.5, 0.5))  # capped; the women make up the mean: 3/4 w + 5/8 = 1
    better = ratio(2 / worse, 12)
    assert better[0] < 1 < better[1]


def test_steps_are_in_images_and_the_batch_size_does_not_matter():
    """The same stream in batches of 8 and 64: log v moves alike, a rare group's too."""
    n = 4096
    generator = torch.Generator().manual_seed(1)
    index = (torch.rand(n, generator=generator) < 0.04).long()[:, None]
    losses = torch.rand(n, generator=generator).double() + 0.5 + 0.4 * index[:, 0]
    found = []
    for size in (8, 64):
        mechanism = dro(index, start="frequency", eta=2e-4, **WIDE)
        for low in range(0, n, size):
            part = slice(low, low + size)
            mechanism.weights(losses[part], index[part], torch.zeros(size), low)
        found.append(float(mechanism.memory["log_factors"].diff()))
    assert found[0] == pytest.approx(found[1], rel=0.05)
    # 4096 images of relative excess 0.4 / 1.016 over the others', at 2e-4 each
    assert found[1] == pytest.approx(4096 * 2e-4 * 0.4 / 1.016, rel=0.15)


def stream(mechanism, male, seed, batches=40):
    """Log v of men over women after 40 batches of 32: the loss falls 50-fold with t, men's is ``male`` times that."""
    generator = torch.Generator().manual_seed(seed)
    for step in range(batches):
        timesteps = torch.randint(0, 1000, (32,), generator=generator)
        index = torch.randint(0, 2, (32, 1), generator=generator)
        losses = torch.exp(-4 * timesteps / 1000) * (1 + (male - 1) * index[:, 0])
        mechanism.weights(losses, index, timesteps, 32 * step)
    return float(mechanism.memory["log_factors"].diff())


def spread(male, strata):
    index = torch.tensor([[0], [1]])
    found = [stream(dro(index, start="frequency", eta=1e-3, strata=strata), male, seed) for seed in range(8)]
    return torch.tensor(found)


def test_without_noise_strata_weights_follow_who_drew_the_hard_timesteps():
    """Two groups with the very same loss at each noise level (defect 4): raw losses move q at random, ours do not."""
    assert float(spread(1.0, 20).std()) < 0.15 * float(spread(1.0, 1).std())


def test_with_noise_strata_a_group_that_is_worse_at_every_level_is_found_every_time():
    """15 % worse: the drift is far above its noise with strata, within it without."""
    found, raw = spread(1.15, 20), spread(1.15, 1)
    assert float(found.mean() / found.std()) > 5
    assert float(raw.mean() / raw.std()) < 0.5 * float(found.mean() / found.std())
    assert float(found.min()) > 0
    # the same drift in either: strata take away noise, and nothing of the difference
    assert float(found.mean()) == pytest.approx(1280 * 1e-3 * 0.15 / 1.075, rel=0.15)


def test_moving_means_by_hand():
    """Half-life 2 images: cell 0 gets (1, 3), then (5, 5): (4/2 + 10) / (2/2 + 2); cell 1 rests."""
    table = update_means(empty_means(3), torch.tensor([0, 1, 0]), torch.tensor([1.0, 7.0, 3.0]).double(), 2.0)
    table = update_means(table, torch.tensor([0, 0]), torch.tensor([5.0, 5.0]).double(), 2.0)
    assert table.tolist() == [[12.0, 7.0, 0.0], [3.0, 1.0, 0.0]]
    assert means(table)[:2].tolist() == [4.0, 7.0]
    assert bool(means(table)[2].isnan())
    assert means(table, 2.0).isnan().tolist() == [False, True, True]
