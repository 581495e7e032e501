"""The contract that every mechanism keeps."""

import functools

import pytest
import torch

from equigen.equity import Groups, Mechanism, build_mechanism
from equigen.errors import InputError

NOISY = ["none", "released", "corrected", "random"]
COUNTED = ["reweight", "balanced", "group_dro", "minmax_noise"]
WEIGHING = ["released", "corrected", "random", "reweight", "group_dro", "minmax_noise"]
kinds = functools.partial(pytest.mark.parametrize, "make", indirect=True)


def test_it_is_a_mechanism_with_a_name(make):
    mechanism = make()
    assert isinstance(mechanism, Mechanism)
    variant = make.kind in ("released", "corrected")
    assert mechanism.name == (f"perturbation-{make.kind}" if variant else make.kind)


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
    """Give the mechanism unequal sigmas, losses, weights, where it has any."""
    if mechanism.name == "perturbation-released":
        mechanism.sigma = torch.tensor([0.1, 0.9, 0.3, 0.0, 0.6], dtype=torch.float64)
    if mechanism.name == "perturbation-corrected":
        mechanism.point = torch.tensor([0.1, 0.9, 0.3, 0.0, 0.6], dtype=torch.float64)
    if mechanism.name == "group_dro":
        mechanism.memory["log_factors"] = torch.tensor([-0.5, 0.9, 0.3, 0.0, -2.0], dtype=torch.float64)
    if mechanism.name == "minmax_noise":
        excess = torch.tensor([-0.05, 0.09, 0.1, 0.0, -0.2], dtype=torch.float64).repeat(10) * 1e4
        mechanism.memory["excess"] = torch.stack([excess, torch.full((50,), 1e4, dtype=torch.float64)])


@kinds(NOISY)
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


@kinds(COUNTED)
def test_the_mean_weight_over_the_training_set_is_one(make, training):
    """The expected weight of a random batch; of images of which all, or something, or nothing is known, too."""
    mechanism = make()
    settle(mechanism)
    weights = mechanism.weights(torch.ones(len(training)).double(), training, torch.zeros(len(training)), 0)
    for known in ((training >= 0).all(1), training[:, 0] < 0, (training < 0).all(1), training[:, 0] > -9):
        assert float(weights[known].mean()) == pytest.approx(1, abs=1e-9)
    assert float(weights.min()) > 0


@kinds(COUNTED)
def test_records_are_the_mean_weights_of_the_training_images_of_each_group(make, groups, training):
    mechanism = make()
    settle(mechanism)
    records = mechanism.records()
    assert list(records) == [f"weight/{a}/{g}" for a, g in groups.index]
    if make.kind == "balanced":
        weights = mechanism.sampling_weights(training)
    else:
        weights = mechanism.weights(torch.ones(len(training)).double(), training, torch.zeros(len(training)), 0)
    assert mechanism.records()["weight/age/old"] == pytest.approx(float(weights[training[:, 1] == 2].mean()), rel=1e-3)
    assert float(torch.tensor(list(records.values())).std()) > 0.05


@kinds(COUNTED)
def test_without_the_training_set_there_are_no_weights_and_no_records(make, batch, groups):
    mechanism = build_mechanism(make.kind, groups, 0)
    assert mechanism.records() == {}
    if make.kind != "balanced":
        with pytest.raises(InputError, match="call sampling_weights before weights"):
            mechanism.weights(*batch, 0)


@kinds(COUNTED)
def test_other_training_images_are_refused_at_a_resume(make, groups, training):
    mechanism = build_mechanism(make.kind, groups, 0)
    mechanism.sampling_weights(training[1:])
    with pytest.raises(InputError, match=r"there are 49 images in 12 cells.*, and 48 in 11 here"):
        mechanism.load_state_dict(make().state_dict())
    with pytest.raises(InputError, match="not those that the mechanism counted"):
        mechanism.sampling_weights(training)


@kinds(COUNTED)
def test_a_state_brings_the_training_set_with_it(make, batch, groups):
    mechanism = build_mechanism(make.kind, groups, 0)
    mechanism.load_state_dict(make().state_dict())
    assert torch.equal(mechanism.weights(*batch, 0), make().weights(*batch, 0))
    assert mechanism.records() == pytest.approx(make().records(), rel=0.2)


@kinds(COUNTED)
def test_groups_and_cells_that_are_absent_leave_the_others_sound(make, groups, training):
    """A training set without old people and a batch of one cell: all weights are sound, and 'old' has no record."""
    mechanism = build_mechanism(make.kind, groups, 0)
    mechanism.sampling_weights(training[training[:, 1] != 2])
    for step in range(5):
        weights = mechanism.weights(torch.rand(4), torch.tensor([[0, 1]] * 4), torch.full((4,), 10), 4 * step)
        assert bool((weights > 0).all())
    assert "weight/age/old" not in mechanism.records()
    assert all(0 < value < 10 for value in mechanism.records().values())
    assert all(bool(value.isfinite().all()) for value in mechanism.memory.values())


@kinds(["reweight", "group_dro", "minmax_noise"])
def test_images_of_no_training_cell_are_refused(make, groups):
    mechanism = build_mechanism(make.kind, groups, 0)
    mechanism.sampling_weights(torch.tensor([[0, 0], [1, 1]]))
    with pytest.raises(InputError, match=r"no training image has the groups \[1, 0\]"):
        mechanism.weights(torch.ones(2), torch.tensor([[0, 0], [1, 0]]), torch.zeros(2), 0)


@kinds(["group_dro", "minmax_noise"])
def test_a_diverged_loss_does_not_get_into_the_memory(make, batch):
    mechanism = make()
    before = mechanism.state_dict()
    with pytest.raises(InputError, match="diverged"):
        mechanism.weights(batch[0].clone().index_fill_(0, torch.tensor([3]), float("inf")), *batch[1:], 0)
    assert all(torch.equal(value, before[key]) for key, value in mechanism.memory.items())


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("random", {"form": "normal"}, "'form' is 'normal' .use one of: released, lognormal"),
        ("reweight", {"combine": "sum"}, "'combine' is 'sum' .use one of: joint, product, mean"),
        ("reweight", {"max_weight": 0.5}, "'max_weight' is 0.5"),
        ("balanced", {"combine": 3}, "'combine' is 3"),
        ("balanced", {"max_weight": float("nan")}, "'max_weight' is nan"),
        ("group_dro", {"eta": -1}, "'eta' is -1"),
        ("group_dro", {"start": "zero"}, "'start' is 'zero' .use one of: uniform, frequency"),
        ("group_dro", {"min_weight": 0, "strata": 0.5}, "'min_weight' is 0"),
        ("minmax_noise", {"temperature": 0}, "'temperature' is 0"),
        ("minmax_noise", {"combine": "joint"}, "use one of: mean, product"),
        ("minmax_noise", {"minimum": 1.5}, "'minimum' is 1.5 .give a whole number"),
        ("minmax_noise", {"eta": 1}, "'eta' is not known"),
    ],
)
def test_settings_that_cannot_be_are_refused(groups, name, settings, message):
    with pytest.raises(InputError, match=message):
        build_mechanism(name, groups, 0, **settings)


@pytest.mark.parametrize("name", ["random", *COUNTED])
def test_no_attributes_are_refused(name):
    with pytest.raises(InputError, match="no attributes"):
        build_mechanism(name, Groups(()), 0)


@pytest.mark.parametrize("kind", ["released", "corrected"])
def test_other_seeds_and_other_batches_draw_anew(kind, groups, batch):
    def weights(seed, images_seen):
        mechanism = build_mechanism("perturbation", groups, seed, variant=kind)
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
    if make.kind in WEIGHING:
        assert float(expected.std()) > 0.1


def test_images_of_unknown_groups_get_no_noise(make):
    unknown = torch.full((32, 2), -1)
    mechanism = make()
    settle(mechanism)
    assert torch.allclose(mechanism.weights(torch.rand(32), unknown, torch.zeros(32), 0), torch.ones(32))


def test_an_empty_share_of_unknowns_does_not_stop_the_rest(make):
    groups = torch.tensor([[0, -1], [-1, 2], [-1, -1]])
    mechanism = make()
    settle(mechanism)
    weights = mechanism.weights(torch.rand(3), groups, torch.zeros(3), 0)
    assert bool(weights.isfinite().all())
    if make.kind in WEIGHING:
        assert len(set(weights.tolist())) == 3


@kinds(["none", *WEIGHING])
def test_the_stream_is_uniform(make, training):
    assert make().sampling_weights(training) is None


@kinds(NOISY)
def test_records_are_floats_and_have_a_sigma_for_each_group(make, groups):
    records = make().records()
    assert all(type(value) is float for value in records.values())
    expected = [] if make.kind == "none" else [f"sigma/{a}/{g}" for a, g in groups.index]
    assert list(records) == expected


def test_a_single_group_is_no_trouble(make, batch):
    mechanism = make(names=Groups((("site", ("here",)),)))
    weights = mechanism.weights(batch[0], torch.zeros(64, 1, dtype=torch.int64), batch[2], 0)
    assert bool(weights.isfinite().all())


def test_plain_training_weighs_all_alike_and_wants_no_probe(groups, batch):
    mechanism = build_mechanism("none", groups, 0)
    assert torch.equal(mechanism.weights(*batch, 0), torch.ones(64))
    assert not mechanism.wants_probe(10**9)
    assert mechanism.records() == {}
