"""A state goes through safetensors and JSON and back, and the mechanism goes on exactly."""

import itertools
import json

import pytest
import torch
from safetensors.torch import load, save

from equigen.equity import Groups, build_mechanism, group_losses
from equigen.errors import InputError

SETTINGS = {
    "none": {},
    "released": {"time_window": 5},
    "corrected": {"window_images": 200, "design": 2, "delay_images": 0},
    "random": {"form": "lognormal"},
    "reweight": {"combine": "product"},
    "balanced": {},
    "group_dro": {"eta": 0.01, "adjustment": 0.5, "strata": 4, "memory": 50},
    "minmax_noise": {"minimum": 5, "strata": 3, "memory": 20},
}
FIXED = ("none", "random", "reweight", "balanced")
LAST, SIZE = 14, 64


def through_files(state):
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    scalars = {key: value for key, value in state.items() if key not in tensors}
    assert all(tensor.dtype in (torch.float64, torch.int64) for tensor in tensors.values())
    return {**load(save(tensors)), **json.loads(json.dumps(scalars, allow_nan=False))}


def batch_at(step):
    generator = torch.Generator().manual_seed(step)
    losses = torch.rand(SIZE, generator=generator)
    index = torch.stack([torch.randint(-1, n, (SIZE,), generator=generator) for n in (2, 3)], 1)
    return losses, index, torch.randint(0, 1000, (SIZE,), generator=generator)


def run(mechanism, first, last, groups):
    """Steps first .. last-1 of a training; the weights and records of each."""
    trace = []
    index = torch.tensor([(s, a) for s in range(2) for a in range(3)] * 10)
    for step in range(first, last):
        weights = mechanism.weights(*batch_at(step), step * SIZE)
        seen = (step + 1) * SIZE
        if mechanism.wants_probe(seen):
            losses = torch.rand(60, 4, generator=torch.Generator().manual_seed(seen))
            mechanism.observe_probe(group_losses(losses, index, groups), seen)
        trace.append((weights, mechanism.records()))
    return trace


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, b) and ra == rb for (a, ra), (b, rb) in zip(one, other, strict=True)
    )


def test_a_run_that_is_cut_twice_goes_on_exactly(make, groups):
    settings = SETTINGS[make.kind]
    whole = run(make(seed=1, **settings), 0, LAST, groups)
    cuts, pieces, state = [0, 2, 9, LAST], [], make(seed=1, **settings).state_dict()
    for first, last in itertools.pairwise(cuts):  # the first window is open at 2, a later one at 9
        mechanism = make(seed=1, **settings)
        mechanism.load_state_dict(through_files(state))
        pieces += run(mechanism, first, last, groups)
        state = mechanism.state_dict()
    assert same(pieces, whole)
    if make.kind not in FIXED:
        assert whole[-1][1] != whole[6][1]


def test_a_state_shares_no_memory_with_the_mechanism(make, groups):
    mechanism = make(**SETTINGS[make.kind])
    run(mechanism, 0, 4, groups)
    kept = mechanism.state_dict()
    copied = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in kept.items()}
    run(mechanism, 4, 8, groups)
    for tensor in (value for value in mechanism.state_dict().values() if isinstance(value, torch.Tensor)):
        tensor.zero_()
    assert all(
        torch.equal(torch.as_tensor(kept[k]), torch.as_tensor(copied[k]))
        for k in kept
        if isinstance(kept[k], torch.Tensor)
    )
    if make.kind == "corrected":
        assert mechanism.times.tolist() == [256, 448]


def test_two_processes_that_see_the_same_losses_hold_the_same_state(make, groups):
    one, other = make(seed=3, **SETTINGS[make.kind]), make(seed=3, **SETTINGS[make.kind])
    torch.manual_seed(0)
    first = run(one, 0, 8, groups)
    torch.manual_seed(1)
    assert same(run(other, 0, 8, groups), first)


def test_a_state_of_other_groups_or_another_seed_is_refused(make):
    state = make().state_dict()
    other = Groups((("sex", ("male", "female")), ("age", ("young", "middle", "old"))))
    with pytest.raises(InputError, match=r"'groups' is .*female.*male"):
        make(names=other).load_state_dict(state)
    with pytest.raises(InputError, match="'seed' is 0 there and 1 here"):
        make(seed=1).load_state_dict(state)


def test_a_state_of_another_variant_is_refused(groups):
    released, corrected = (build_mechanism("perturbation", groups, 0, variant=v) for v in ("released", "corrected"))
    with pytest.raises(InputError, match="'mechanism' is 'perturbation-released'"):
        corrected.load_state_dict(released.state_dict())


def test_other_settings_missing_parts_and_wrong_shapes_are_all_named(groups):
    mechanism = build_mechanism("perturbation", groups, 0)
    state = build_mechanism("perturbation", groups, 0, sigma_max=0.5).state_dict()
    del state["times"]
    state |= {"point": torch.zeros(4).double(), "rewards": torch.zeros(2), "window": "2", "extra": 1}
    with pytest.raises(InputError) as caught:
        mechanism.load_state_dict(state)
    text = str(caught.value)
    for part in (
        "'settings' is",
        "'times' is missing",
        "'extra' is not known",
        "'window' is no int",
        "'point' is not torch.float64 of shape (5,)",
        "'rewards' is not torch.float64",
    ):
        assert part in text
