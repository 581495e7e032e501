"""The corrected mechanism: weights by hand, windows, reward, what it learns and what it refuses."""

import math

import pytest
import torch

from equigen.equity import Groups, group_losses
from equigen.equity.bayes import sobol_points
from equigen.equity.perturbation_corrected import CorrectedPerturbation, relative_gap
from equigen.errors import InputError
from equigen.seeds import derive_seed, torch_generator


def test_weights_by_hand(groups):
    mechanism = CorrectedPerturbation(groups, 3, sigma_max=2.0)
    mechanism.point = torch.tensor([0.25, 0.1, 0.5, 0.0, 0.2], dtype=torch.float64)
    index = torch.tensor([[0, 2], [1, 0], [-1, 1]])
    eps = torch.randn(3, 2, generator=torch_generator(3, "equity/noise", 12))
    raised = torch.stack([0.5 * eps[0, 0] + 0.4 * eps[0, 1], 0.2 * eps[1, 0] + eps[1, 1], eps.new_zeros(())])
    expected = (math.exp((0.25 + 0.16) / 2) + math.exp((0.04 + 1.0) / 2) + 1) / 3
    found = mechanism.weights(torch.rand(3), index, torch.zeros(3), 12)
    assert torch.allclose(found, raised.exp() / expected)


def test_weights_leave_the_state_alone_and_do_not_look_at_the_losses(groups, batch):
    mechanism = CorrectedPerturbation(groups, 0)
    mechanism.point = torch.full((5,), 0.5, dtype=torch.float64)
    first = mechanism.weights(*batch, 0)
    assert torch.equal(mechanism.weights(100 * batch[0], *batch[1:], 0), first)


def test_the_first_window_is_plain_training(groups, batch):
    assert torch.equal(CorrectedPerturbation(groups, 0).weights(*batch, 0), torch.ones(64))


@pytest.mark.parametrize(
    "size, ends",
    [
        (10, [100, 200, 300, 400]),
        (64, [128, 256, 320, 448]),
        (150, [150, 300, 450]),
        (240, [240, 480]),
    ],
)
def test_windows_end_with_the_first_batch_at_or_past_a_multiple(groups, probe_of, size, ends):
    mechanism = CorrectedPerturbation(groups, 0, window_images=100, design=9)
    found = []
    for seen in range(size, 490, size):
        if mechanism.wants_probe(seen):
            mechanism.observe_probe(probe_of((1, 2), (1, 1, 1)), seen)
            found.append(seen)
            assert not mechanism.wants_probe(seen)
    assert found == ends
    assert mechanism.times.tolist() == ends
    assert not mechanism.wants_probe(0)


def test_the_design_is_plain_training_and_then_sobol_points(groups, probe_of):
    mechanism = CorrectedPerturbation(groups, 2, window_images=10, design=3, sigma_max=0.5)
    sigmas = [mechanism.sigma]
    for seen in (10, 20):
        mechanism.observe_probe(probe_of((1, 2), (1, 1, 1)), seen)
        sigmas.append(mechanism.sigma)
    sobol = sobol_points(5, 2, derive_seed(2, "equity/design"))
    assert torch.equal(torch.stack(sigmas), torch.cat([torch.zeros(1, 5), 0.5 * sobol]))


def test_the_process_sees_every_window_with_its_time_and_is_asked_about_now(groups, probe_of, monkeypatch):
    from equigen.equity import Proposal
    from equigen.equity import request as question

    asked = []

    def fixed(points, rewards, **others):
        asked.append((points.clone(), rewards.clone(), others))
        return Proposal(torch.full((5,), 0.25, dtype=torch.float64), None)

    monkeypatch.setattr(question, "propose", fixed)
    mechanism = CorrectedPerturbation(groups, 4, window_images=100, design=1, sigma_max=2.0, beta=0.3, delay_images=0)
    mechanism.observe_probe(probe_of((2, 3), (1, 2, 4.5)), 100)
    mechanism.observe_probe(probe_of((2, 2), (1, 2, 4.5)), 230)
    points, rewards, others = asked[-1]
    assert torch.equal(points, torch.tensor([[0.0], [0.25]], dtype=torch.float64).expand(2, 5))
    assert rewards.tolist() == pytest.approx([-4.5 / 5, -3.5 / 4.5])
    assert others["times"].tolist() == [100, 230]
    assert others["current_time"] == 230.0
    assert (others["beta"], others["seed"]) == (0.3, derive_seed(4, "equity/proposal", 230))
    assert mechanism.sigma.tolist() == [0.5] * 5


def test_the_reward_is_minus_the_sum_of_relative_gaps(groups, probe_of):
    """Means: sex 2 and 3, age 1, 2 and 4.5 on top (mean 2.5): gaps 1 and 3.5, overall 5."""
    mechanism = CorrectedPerturbation(groups, 0, window_images=10)
    assert "reward" not in mechanism.records()
    mechanism.observe_probe(probe_of((2, 3), (1, 2, 4.5)), 10)
    assert mechanism.records()["reward"] == pytest.approx(-(1 + 3.5) / 5)


def test_the_reward_does_not_change_when_all_losses_fall_alike(groups, probe_of):
    early, late = probe_of((2, 3), (1, 2, 4)), probe_of((0.2, 0.3), (0.1, 0.2, 0.4))
    assert relative_gap(early, 8) == pytest.approx(relative_gap(late, 8))


def test_groups_of_few_images_are_unknown_and_do_not_steer(groups):
    """One old image of loss 1000: its group is no group, but it is an image of its sex and of the whole."""
    index = torch.tensor([[0, 0], [1, 1]] * 10 + [[-1, 2]])
    found = group_losses(torch.tensor([1.0, 2.0] * 10 + [1000.0]), index, groups)
    assert relative_gap(found, 2) == pytest.approx((1 + 1) / (1030 / 21))
    assert relative_gap(found, 1) == pytest.approx((1 + 999) / (1030 / 21))


def test_it_learns_which_group_needs_weight(groups, probe_of):
    """A made-up training: the more sigma the old have over the rest, the smaller their gap; losses fall."""
    levers = []
    for seed in range(3):  # the maximiser's rounding, and so one seed's path, differs between processors
        mechanism = CorrectedPerturbation(groups, seed, window_images=100, delay_images=0)
        gaps = []
        for window in range(1, 13):
            lever = float(mechanism.sigma[4] - mechanism.sigma[2:4].mean())
            scale = 1 / window
            gaps.append(1.2 - lever)
            mechanism.observe_probe(probe_of((scale, scale), (0.0, 0.0, scale * gaps[-1])), 100 * window)
        assert len(mechanism.rewards) == 12
        assert mechanism.fallbacks == 0
        levers.append(float(mechanism.sigma[4] - mechanism.sigma[2:4].mean()))
        assert gaps[-1] < gaps[0] * 2 / 3
    assert sum(levers) / 3 > 0.7  # of one uniform sigma: 1 time in 50


def test_sigma_stays_within_its_bounds(groups, probe_of):
    mechanism = CorrectedPerturbation(groups, 0, window_images=100, sigma_max=0.3, delay_images=0)
    for window in range(1, 6):
        mechanism.observe_probe(probe_of((1, 2 - 0.1 * window), (1, 2, 3)), 100 * window)
        assert 0 <= float(mechanism.sigma.min()) <= float(mechanism.sigma.max()) <= 0.3


def test_a_probe_before_the_end_of_a_window_is_checked_and_not_counted(groups, probe_of):
    mechanism = CorrectedPerturbation(groups, 0, window_images=100)
    mechanism.observe_probe(probe_of((1, 2), (1, 2, 3)), 0)
    assert len(mechanism.rewards) == 0
    assert torch.equal(mechanism.sigma, torch.zeros(5, dtype=torch.float64))
    with pytest.raises(InputError, match="no attribute has two groups with 8 images"):
        mechanism.observe_probe(probe_of((1, 2), (1, 2, 3), each=1), 0)


def test_another_probe_and_other_groups_are_refused(groups, probe_of):
    mechanism = CorrectedPerturbation(groups, 0, window_images=100)
    mechanism.observe_probe(probe_of((1, 2), (1, 2, 3), each=10), 100)
    with pytest.raises(InputError, match=r"it has .*, and had"):
        mechanism.observe_probe(probe_of((1, 2), (1, 2, 3), each=11), 200)
    other = Groups((("sex", ("female", "male")),))
    with pytest.raises(InputError, match="its groups are others"):
        mechanism.observe_probe(group_losses(torch.ones(40), torch.arange(40)[:, None] % 2, other), 200)


def test_a_failed_fit_is_counted_and_told(groups, probe_of, monkeypatch):
    from equigen.equity import gaussian_process as process

    def fail(*_):
        raise process.NotPSDError("not positive definite")

    monkeypatch.setattr(process, "maximise", fail)
    mechanism = CorrectedPerturbation(groups, 0, window_images=100, design=2, delay_images=0)
    mechanism.observe_probe(probe_of((1, 1.5), (1, 2, 3)), 100)
    best = mechanism.sigma
    mechanism.observe_probe(probe_of((1, 1.1), (1, 1, 1)), 200)
    assert torch.equal(mechanism.sigma, best)
    assert mechanism.records()["fallbacks"] == 1.0
    assert mechanism.state_dict()["note"] == "NotPSDError: not positive definite"


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"window_images": 0}, "'window_images' is 0"),
        ({"window_images": "1e4"}, "'window_images' is '1e4'"),
        ({"window_images": 1e4}, "whole number"),
        ({"sigma_max": -1}, "'sigma_max' is -1"),
        ({"minimum": True}, "'minimum' is True"),
        ({"delay_images": -1}, "'delay_images' is -1"),
        ({"window_images": 100, "delay_images": 51}, "'delay_images' is 51 .give a whole number from 0 to 50"),
    ],
)
def test_settings_out_of_range_are_refused(groups, settings, message):
    with pytest.raises(InputError, match=message):
        CorrectedPerturbation(groups, 0, **settings)


def test_no_attributes_are_refused():
    with pytest.raises(InputError, match="no attributes"):
        CorrectedPerturbation(Groups(()), 0)
