"""A checkpoint gives back exactly what went in, or says that it is damaged."""

import json

import pytest
import torch
from safetensors.torch import save_file

from equigen.checkpoints import (
    add_prefix,
    load_checkpoint,
    load_optimizer_tensors,
    optimizer_tensors,
    save_checkpoint,
    select_prefix,
)
from equigen.errors import InputError


def names(folder):
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def network_and_optimizer(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = torch.nn.Linear(3, 2)
    return network, torch.optim.AdamW(network.parameters(), lr=0.1, fused=True)


def step(network, optimizer, number):
    inputs = torch.full((4, 3), 0.5 + number)
    optimizer.zero_grad()
    network(inputs).square().mean().backward()
    optimizer.step()


def test_names_with_a_prefix():
    tensors = {"a": torch.zeros(1), "b.c": torch.ones(1)}
    both = {**add_prefix("x", tensors), **add_prefix("xy", {"a": torch.full((1,), 7.0)})}
    assert list(both) == ["x.a", "x.b.c", "xy.a"]
    assert select_prefix("x", both) == tensors


def test_round_trip_is_exact(tmp_path):
    tensors = {
        "half": torch.randn(3, generator=torch.Generator().manual_seed(0)).half(),
        "double": torch.tensor([1 / 3, float("nan"), float("inf")], dtype=torch.float64),
        "whole": torch.tensor(2**60, dtype=torch.int64),
        "none": torch.zeros(0, 4),
        "strided": torch.arange(6.0).view(2, 3).T,
    }
    state = {"seen": 10**12, "value": 0.1 + 0.2, "rows": [[1, "a", None]], "text": "ü"}
    save_checkpoint(tmp_path / "deep" / "c.safetensors", tensors, state)
    back, told = load_checkpoint(tmp_path / "deep" / "c.safetensors")
    assert told == state and set(back) == set(tensors)
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name].nan_to_num(nan=-1), tensor.nan_to_num(nan=-1))
    assert names(tmp_path / "deep") == ["c.safetensors"]


def test_an_optimizer_goes_on_exactly(tmp_path):
    one, optimizer = network_and_optimizer(0)
    for number in range(3):
        step(one, optimizer, number)
    tensors = {**add_prefix("network", one.state_dict()), **add_prefix("optimizer", optimizer_tensors(optimizer))}
    assert set(select_prefix("optimizer", tensors)) == {
        f"{index}.{name}" for index in (0, 1) for name in ("step", "exp_avg", "exp_avg_sq")
    }
    save_checkpoint(tmp_path / "c.safetensors", tensors, {})
    two, other = network_and_optimizer(1)
    back, _ = load_checkpoint(tmp_path / "c.safetensors")
    two.load_state_dict(select_prefix("network", back))
    load_optimizer_tensors(other, select_prefix("optimizer", back))
    for number in range(3, 6):
        step(one, optimizer, number)
        step(two, other, number)
    assert torch.equal(one.weight, two.weight) and torch.equal(one.bias, two.bias)
    moments = optimizer_tensors(other)
    assert all(torch.equal(value, moments[name]) for name, value in optimizer_tensors(optimizer).items())


def test_hyperparameters_are_the_optimizers_own():
    one, optimizer = network_and_optimizer(0)
    step(one, optimizer, 0)
    two = torch.optim.AdamW(network_and_optimizer(0)[0].parameters(), lr=0.7)
    load_optimizer_tensors(two, optimizer_tensors(optimizer))
    assert two.param_groups[0]["lr"] == 0.7


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_named(tmp_path, keep):
    place = tmp_path / "c.safetensors"
    save_checkpoint(place, {"a": torch.arange(100.0)}, {"seen": 1})
    place.write_bytes(place.read_bytes()[:keep])
    with pytest.raises(InputError, match="damaged") as caught:
        load_checkpoint(place)
    assert caught.value.problems[0].file == str(place) and "delete it" in caught.value.problems[0].mend


@pytest.mark.parametrize("metadata", [None, {"other": "x"}, {"state": "{"}])
def test_a_foreign_file_is_named(tmp_path, metadata):
    save_file({"a": torch.zeros(1)}, tmp_path / "c.safetensors", metadata=metadata)
    with pytest.raises(InputError, match=r"c\.safetensors"):
        load_checkpoint(tmp_path / "c.safetensors")


def test_a_state_that_json_cannot_hold_leaves_the_old_checkpoint(tmp_path):
    place = tmp_path / "c.safetensors"
    save_checkpoint(place, {"a": torch.zeros(1)}, {"seen": 1})
    with pytest.raises(TypeError):
        save_checkpoint(place, {"a": torch.ones(1)}, {"seen": json})
    assert load_checkpoint(place)[1] == {"seen": 1} and names(tmp_path) == ["c.safetensors"]


def test_tensors_that_share_memory_are_written_each_by_itself(tmp_path):
    table = torch.arange(6.0)
    save_checkpoint(tmp_path / "c.safetensors", {"one": table, "two": table, "part": table[2:4]}, {})
    tensors, _ = load_checkpoint(tmp_path / "c.safetensors")
    assert torch.equal(tensors["one"], table) and torch.equal(tensors["two"], table)
    assert tensors["part"].tolist() == [2.0, 3.0]


def test_counts_and_mappings_of_an_optimizer_are_laid_flat_and_put_back():
    class Odd(torch.optim.SGD):
        def load_state_dict(self, state_dict):
            self.given = state_dict["state"]

        def state_dict(self):
            inner = {"moments": torch.ones(2, dtype=torch.uint8), "scale": torch.tensor(2.0)}
            return {**super().state_dict(), "state": {0: {"step": 7, "inner": inner}}}

    optimizer = Odd([torch.nn.Parameter(torch.zeros(2))], lr=0.1)
    flat = optimizer_tensors(optimizer)
    assert {name: value.tolist() for name, value in flat.items()} == {"0.step": 7, "0.moments": [1, 1], "0.scale": 2.0}
    load_optimizer_tensors(optimizer, flat)
    (given,) = optimizer.given.values()
    assert given["step"] == 7 and type(given["step"]) is int and given["scale"].dtype == torch.float32
