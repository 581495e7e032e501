"""What a mechanism of somebody else's gives back is checked before it weighs anything."""

import numpy as np
import pytest
import torch
from small_training import RELEASED, Stopped, settings, stopping, trainer

from equigen.equity import check_sampling_weights, check_weights
from equigen.errors import InputError

WRONG = {
    "a column": (lambda losses: torch.ones(len(losses), 1), r"shape \(8, 1\) in place of \(8,\)"),
    "a row": (lambda losses: torch.ones(1, len(losses)), r"shape \(1, 8\) in place of \(8,\)"),
    "one number": (lambda losses: torch.tensor(1.0), r"shape \(\) in place of \(8,\)"),
    "too few": (lambda losses: torch.ones(len(losses) - 1), r"shape \(7,\) in place of \(8,\)"),
    "whole numbers": (lambda losses: torch.ones(len(losses), dtype=torch.int64), "torch.int64 in place of floating"),
    "truth values": (lambda losses: losses > 0, "torch.bool in place of floating"),
    "NaN": (lambda losses: torch.where(torch.arange(8) == 3, torch.nan, losses), "not finite after 0 images: 1 of 8"),
    "infinity": (lambda losses: losses / 0, "not finite after 0 images: 8 of 8"),
    "numpy": (lambda losses: np.ones(len(losses)), r"numpy.ndarray in place of a torch.Tensor"),
    "a list": (lambda losses: [1.0] * len(losses), r"gave a list in place of a torch.Tensor"),
    "nothing": (lambda losses: None, r"gave a NoneType in place of a torch.Tensor"),
}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", WRONG)
def test_a_training_stops_before_its_first_step(tmp_path, name, accumulate):
    given, message = WRONG[name]
    run = trainer(tmp_path / "c.safetensors", chosen=settings(16, accumulate=accumulate, mechanism="none"))
    run.mechanism.uses_losses = True
    run.mechanism.weights = lambda losses, *rest: given(losses)
    before = {key: value.clone() for key, value in run.network.state_dict().items()}
    with pytest.raises(InputError, match=message) as caught:
        run.run(show=False)
    assert "mechanism 'none'" in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in run.network.state_dict().items())
    assert not (tmp_path / "c.safetensors").exists()


def test_right_weights_stay_as_they_are():
    for weights in (torch.linspace(-1, 2, 4), torch.ones(4, dtype=torch.float64), torch.ones(4, dtype=torch.bfloat16)):
        assert check_weights(weights, 4, "own", 0) is weights


def test_a_promise_of_no_negative_weight_is_kept():
    weights = torch.tensor([1.0, -0.25, 2.0, -0.5])
    assert check_weights(weights, 4, "own", 0) is weights
    with pytest.raises(InputError, match=r"2 of 4 weights below 0 after 64 images, the least -0.5"):
        check_weights(weights, 4, "own", 64, nonnegative=True)


def test_the_promise_is_asked_of_the_mechanism(tmp_path):
    run = trainer(tmp_path / "c.safetensors", chosen=settings(16))
    run.mechanism.uses_losses = True
    run.mechanism.weights = lambda losses, *rest: -losses
    run.run(show=False)  # no promise
    other = trainer(tmp_path / "d.safetensors", {"mechanism": "group_dro"}, settings(16))
    other.mechanism.weights = lambda losses, *rest: -losses
    with pytest.raises(InputError, match="8 of 8 weights below 0"):
        other.run(show=False)


@pytest.mark.parametrize("given, message", [
    (torch.ones(40, 1), r"shape \(40, 1\) in place of \(40,\)"),
    (torch.ones(39), r"shape \(39,\) in place of \(40,\)"),
    (np.ones(40), "numpy.ndarray"),
    (torch.ones(40, dtype=torch.int64), "torch.int64"),
    (torch.full((40,), torch.nan), "not finite for sampling: 40 of 40"),
    (torch.linspace(-1, 1, 40), "20 of 40 weights below 0 for sampling"),
    (torch.zeros(40), "all 0"),
])  # fmt: skip
def test_sampling_weights_are_checked_before_the_first_step(tmp_path, monkeypatch, given, message):
    monkeypatch.setattr("equigen.equity.none.UniformWeights.sampling_weights", lambda self, groups: given)
    with pytest.raises(InputError, match=message):
        trainer(tmp_path / "c.safetensors")


def test_no_sampling_weights_are_the_uniform_stream():
    assert check_sampling_weights(None, 40, "own") is None


def test_the_released_mechanism_chooses_after_whole_windows_however_often_it_is_resumed(tmp_path, monkeypatch):
    """A window of 4 steps of 8 images ends with the steps that began at 24 and 56 images; a resume is at 24."""
    from equigen.equity.perturbation import ReleasedPerturbation

    chosen, plain = [], ReleasedPerturbation._propose

    def choose_probe_rows(self, images_seen):
        chosen.append((images_seen, len(self.rewards)))
        plain(self, images_seen)

    monkeypatch.setattr(ReleasedPerturbation, "_propose", choose_probe_rows)
    place = tmp_path / "c.safetensors"
    with stopping(5), pytest.raises(Stopped):
        trainer(place, RELEASED, settings(72)).run(show=False)
    assert chosen == [(24, 4)]  # the checkpoint at 24 images holds 3 steps of the first window
    again = trainer(place, RELEASED, settings(72))
    assert (again.images_seen, len(again.mechanism.rewards)) == (24, 3)
    again.run(show=False)
    assert chosen == [(24, 4), (24, 4), (56, 4)]
    assert len(again.mechanism.rewards) == 1
