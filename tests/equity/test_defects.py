"""The defects of METHODS section 2 that concern mechanisms: the released form shows them, the corrected has none.

Of defect 6 the released form here has none either: what the authors' script does is set up beside it.
"""

import math

import pytest
import torch

from equigen.equity import Groups, build_mechanism, group_losses
from equigen.equity.perturbation import ReleasedPerturbation
from equigen.equity.perturbation_corrected import CorrectedPerturbation, relative_gap

TWO = Groups((("sex", ("female", "male")),))


def long_batch(n=200_000):
    """Many images, half of each sex."""
    return torch.ones(n), torch.arange(n)[:, None] % 2, torch.zeros(n)


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


def steps(mechanism, n=3, size=8, rows=slice(None)):
    """n steps on ``rows`` of the same global batches; the mechanism."""
    for step in range(n):
        losses = torch.rand(size, generator=torch.Generator().manual_seed(step))
        index = torch.arange(size)[:, None] % 2
        mechanism.weights(losses[rows], index[rows], torch.zeros(size)[rows], size * step)
    return mechanism


def test_defect_6_ranks_hold_different_sigmas():
    """The authors' ranks draw from their own seeds and see their own images; ours see the whole batch."""
    theirs = [steps(ReleasedPerturbation(TWO, rank), rows=slice(4 * rank, 4 * rank + 4)) for rank in (0, 1)]
    assert not torch.equal(theirs[0].sigma, theirs[1].sigma)
    assert theirs[0].reward != theirs[1].reward
    ours = [steps(ReleasedPerturbation(TWO, 0)) for _ in (0, 1)]
    assert torch.equal(ours[0].sigma, ours[1].sigma)
    assert ours[0].reward == ours[1].reward


@pytest.mark.parametrize("variant", ["released", "corrected"])
def test_defect_6_sigma_and_history_are_in_no_checkpoint(variant):
    """A restart without the state begins anew (theirs); with it, it goes on (ours)."""
    mechanism = build_mechanism("perturbation", TWO, 0, variant=variant)
    if variant == "released":
        steps(mechanism)
    else:
        mechanism.observe_probe(group_losses(torch.arange(20.0), torch.arange(20)[:, None] % 2, TWO), 10_000)
    afresh, resumed = (build_mechanism("perturbation", TWO, 0, variant=variant) for _ in range(2))
    resumed.load_state_dict(mechanism.state_dict())
    assert torch.equal(resumed.sigma, mechanism.sigma)
    assert torch.equal(resumed.rewards, mechanism.rewards)
    assert len(resumed.rewards) > 0
    assert not torch.equal(afresh.sigma, mechanism.sigma)
    assert len(afresh.rewards) == 0


def test_defect_6_the_window_counter_restarts_each_epoch():
    """Ten epochs of 20 images, window 50: a counter that restarts never gets there; the count of images seen does."""
    mechanism = CorrectedPerturbation(TWO, 0, window_images=50)
    restarting = [seen % 20 >= 50 for seen in range(10, 210, 10)]
    assert not any(restarting)
    ends = []
    for seen in range(10, 210, 10):
        if mechanism.wants_probe(seen):
            mechanism.observe_probe(group_losses(torch.arange(20.0), torch.arange(20)[:, None] % 2, TWO), seen)
            ends.append(seen)
    assert ends == [50, 100, 150, 200]


@pytest.mark.parametrize("variant", ["released", "corrected"])
def test_defect_6_the_min_snr_branch_crashes(variant):
    """Weights are one number an image, so they multiply with min-SNR weights, and do not see them."""
    losses, index, timesteps = torch.rand(6), torch.arange(6)[:, None] % 2, torch.arange(6) * 100
    snr = torch.tensor([50.0, 9.0, 4.0, 1.0, 0.3, 0.1])
    min_snr = snr.clamp_max(5.0) / (snr + 1)  # Hang et al. 2023, for v-prediction
    weights = build_mechanism("perturbation", TWO, 0, variant=variant).weights(losses, index, timesteps, 0)
    combined = weights * min_snr * losses
    assert combined.shape == (6,)
    by_hand = [w * m * v for w, m, v in zip(weights.tolist(), min_snr.tolist(), losses.tolist(), strict=True)]
    assert combined.tolist() == pytest.approx(by_hand, rel=1e-5)
