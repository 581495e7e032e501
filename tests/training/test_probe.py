"""The probe: fixed, stratified over noise levels, even over groups."""

import pytest
import torch
from small_training import GROUPS, data

from equigen.diffusion import loss_per_image, noise_schedule
from equigen.equity import Groups
from equigen.training.probe import STRATA, Probe, choose_probe_rows


def probe(count=11, seed=0, name="train", source=None):
    given = source or data(40, 0)
    return Probe(given.latents, given.ids, given.index, given.groups, count, seed, name)


def scripted(noisy, timesteps, ids):
    """A denoiser whose loss depends on the image and its noise level."""
    return noisy * (1 + timesteps[:, None, None, None] / 1000)


def test_it_is_fixed():
    one, two, other, aside = probe(), probe(), probe(seed=1), probe(name="heldout")
    for name in ("latents", "noise", "timesteps", "index", "ids"):
        assert torch.equal(getattr(one, name), getattr(two, name))
    assert not torch.equal(one.noise, other.noise) and not torch.equal(one.timesteps, aside.timesteps)
    first = one.measure(scripted, noise_schedule(), torch.device("cpu"), 8)
    again = one.measure(scripted, noise_schedule(), torch.device("cpu"), 8)
    assert torch.equal(first.means, again.means) and first.overall == again.overall


def test_each_image_is_measured_once_in_each_stratum():
    made = probe()
    n = len(made.index)
    assert 11 <= n < 11 + len(GROUPS) and len(made.latents) == len(made.ids) == STRATA * n
    times = made.timesteps.view(STRATA, n)
    assert all(bool(((times[k] >= 250 * k) & (times[k] < 250 * (k + 1))).all()) for k in range(4))
    assert len(set(times[1].tolist())) > 6
    images = made.latents.view(STRATA, n, -1)
    assert torch.equal(images[0], images[3])
    noise = made.noise.view(STRATA, n, -1)
    assert not torch.equal(noise[0], noise[3])


def test_group_losses_by_hand():
    made, schedule = probe(), noise_schedule()
    measured = made.measure(scripted, schedule, torch.device("cpu"), 7)
    losses = loss_per_image(scripted, schedule, made.latents, made.noise, made.timesteps, made.ids)
    table = losses.view(STRATA, -1).double()
    for group, (attribute, level) in enumerate(GROUPS.index):
        column = GROUPS.attributes.index(attribute)
        mask = made.index[:, column] == dict(GROUPS.names)[attribute].index(level)
        assert measured.counts[group] == mask.sum()
        assert measured.means[group].item() == pytest.approx(table[:, mask].mean().item(), rel=1e-6)
    assert measured.overall == pytest.approx(table.mean().item(), rel=1e-6)


def test_groups_are_as_even_as_the_data_allow():
    index = torch.zeros(1000, 1, dtype=torch.int64)
    index[:6], index[6:200] = 2, 1  # 800 of the first group, 194 of the second, 6 of the third
    groups = Groups((("race", ("a", "b", "c")),))
    rows = choose_probe_rows(index, groups, 60, 0, "x")
    assert len(rows) == 60 == len(set(rows.tolist()))
    assert torch.bincount(index[rows, 0]).tolist() == [27, 27, 6]
    assert torch.equal(rows, choose_probe_rows(index, groups, 60, 0, "x"))
    assert not torch.equal(rows, choose_probe_rows(index, groups, 60, 1, "x"))
    assert torch.bincount(index[choose_probe_rows(index, groups, 9, 0, "x"), 0]).tolist() == [3, 3, 3]


def test_the_last_round_is_finished():
    index = torch.arange(90).view(90, 1) % 3
    assert len(choose_probe_rows(index, Groups((("race", ("a", "b", "c")),)), 10, 0, "x")) == 12


def test_several_attributes_share_the_images():
    index = torch.tensor([[a, b] for a in range(2) for b in range(3)] * 20)
    rows = choose_probe_rows(index, GROUPS, 30, 0, "x")
    assert torch.bincount(index[rows, 0]).min() >= 12 and torch.bincount(index[rows, 1]).min() >= 8


def test_small_data_are_taken_whole_and_unknown_images_left_out():
    index = torch.tensor([[0, 1], [-1, -1], [1, -1], [-1, 2]])
    assert choose_probe_rows(index, GROUPS, 100, 0, "x").tolist() == [0, 2, 3]


@pytest.mark.parametrize("groups", [GROUPS, Groups(())])
def test_images_without_any_known_group(groups):
    index = torch.full((20, len(groups.names)), -1)
    rows = choose_probe_rows(index, groups, 8, 0, "x")
    assert len(rows) == 8 == len(set(rows.tolist()))
    given = data(20, 0)
    measured = Probe(given.latents, given.ids, index, groups, 8, 0, "x").measure(
        scripted, noise_schedule(), torch.device("cpu"), 8
    )
    assert measured.overall > 0 and bool(measured.means.isnan().all())
