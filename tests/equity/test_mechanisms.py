"""The contract that every mechanism keeps."""

import pytest
import torch

from equigen.equity import Mechanism


def test_it_is_a_mechanism_with_a_name(make):
    mechanism = make()
    assert isinstance(mechanism, Mechanism)
    assert mechanism.name == {"none": "none"}.get(make.kind, f"perturbation-{make.kind}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_weights_have_the_shape_and_dtype_of_the_losses(make, batch, dtype):
    losses, groups, timesteps = batch
    weights = make().weights(losses.to(dtype), groups, timesteps, 0)
    assert weights.shape == losses.shape
    assert weights.dtype == dtype
    assert bool(weights.isfinite().all())


def test_narrow_integers_do_as_a_group_index(make, batch):
    losses, groups, timesteps = batch
    narrow = make().weights(losses, groups.to(torch.int32), timesteps, 0)
    assert torch.equal(narrow, make().weights(losses, groups, timesteps, 0))


def settle(mechanism):
    """Give the mechanism unequal sigmas, where it has any."""
    if mechanism.name == "perturbation-released":
        mechanism.sigma = torch.tensor([0.1, 0.9, 0.3, 0.0, 0.6], dtype=torch.float64)
    if mechanism.name == "perturbation-corrected":
        mechanism.point = torch.tensor([0.1, 0.9, 0.3, 0.0, 0.6], dtype=torch.float64)


def test_the_mean_weight_is_one_in_expectation(make, batch):
    means = []
    for images_seen in range(0, 64 * 500, 64):
        mechanism = make()
        settle(mechanism)
        means.append(float(mechanism.weights(*batch, images_seen).mean()))
    means = torch.tensor(means)
    assert abs(float(means.mean()) - 1) <= 4 * float(means.std()) / len(means) ** 0.5


def test_draws_come_from_seed_and_images_seen_alone(make, batch):
    torch.manual_seed(1)
    first = make(seed=4).weights(*batch, 128)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(make(seed=4).weights(*batch, 128), first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", ["released", "corrected"])
def test_other_seeds_and_other_batches_draw_anew(kind, groups, batch):
    from equigen.equity import build

    def weights(seed, images_seen):
        mechanism = build("perturbation", groups, seed, variant=kind)
        settle(mechanism)
        return mechanism.weights(*batch, images_seen)

    assert not torch.allclose(weights(0, 0), weights(1, 0))
    assert not torch.allclose(weights(0, 0), weights(0, 64))


def test_permuting_the_images_permutes_the_weights_when_draws_are_fixed(make, batch, monkeypatch):
    monkeypatch.setattr(torch, "randn", lambda shape, generator: torch.full(shape, 0.7))
    losses, groups, timesteps = batch
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    plain, permuted = make(), make()
    settle(plain)
    settle(permuted)
    expected = plain.weights(losses, groups, timesteps, 0)[order]
    assert torch.allclose(permuted.weights(losses[order], groups[order], timesteps[order], 0), expected)
    if make.kind != "none":
        assert float(expected.std()) > 0.1


def test_images_of_unknown_groups_get_no_noise(make):
    unknown = torch.full((32, 2), -1)
    mechanism = make()
    settle(mechanism)
    assert torch.equal(mechanism.weights(torch.rand(32), unknown, torch.zeros(32), 0), torch.ones(32))


def test_an_empty_share_of_unknowns_does_not_stop_the_rest(make):
    groups = torch.tensor([[0, -1], [-1, 2], [-1, -1]])
    mechanism = make()
    settle(mechanism)
    weights = mechanism.weights(torch.rand(3), groups, torch.zeros(3), 0)
    assert bool(weights.isfinite().all())
    if make.kind != "none":
        assert len(set(weights.tolist())) == 3


def test_the_stream_is_uniform(make, batch):
    assert make().sampling_weights(batch[1]) is None


def test_records_are_floats_and_have_a_sigma_for_each_group(make, groups):
    records = make().records()
    assert all(type(value) is float for value in records.values())
    expected = [] if make.kind == "none" else [f"sigma/{a}/{g}" for a, g in groups.index]
    assert list(records) == expected


def test_a_single_group_is_no_trouble(make, batch):
    from equigen.equity import Groups

    mechanism = make(names=Groups((("site", ("here",)),)))
    weights = mechanism.weights(batch[0], torch.zeros(64, 1, dtype=torch.int64), batch[2], 0)
    assert bool(weights.isfinite().all())


def test_plain_training_weighs_all_alike_and_wants_no_probe(groups, batch):
    from equigen.equity import build

    mechanism = build("none", groups, 0)
    assert torch.equal(mechanism.weights(*batch, 0), torch.ones(64))
    assert not mechanism.wants_probe(10**9)
    assert mechanism.records() == {}
