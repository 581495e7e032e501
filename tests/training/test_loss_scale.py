"""float16: the loss scale follows torch's GradScaler, and a step that overflows is left out and counted."""

from unittest.mock import patch

import pytest
import torch
from worded import settings, trainer

from equigen.errors import EquigenError
from equigen.training import loop, loss_scale
from equigen.training.loss_scale import LossScale

NONE = {"mechanism": "none"}


@pytest.mark.parametrize("bad", [(), (3,), (0, 1, 2), (4, 5, 9, 13)])
def test_the_scale_is_that_of_torch(monkeypatch, bad):
    monkeypatch.setattr(loss_scale, "PATIENCE", 3)
    own, parameter = LossScale(), torch.nn.Parameter(torch.ones(2))
    oracle, optimizer = torch.amp.GradScaler("cpu", growth_interval=3), torch.optim.SGD([parameter], lr=0.0)
    for step in range(15):
        optimizer.zero_grad()
        oracle.scale(parameter.sum()).backward()
        if step in bad:
            parameter.grad[0] = torch.inf
        before = own.value
        assert before == oracle.get_scale()
        oracle.unscale_(optimizer)
        oracle.step(optimizer)
        oracle.update()
        assert own.accept_step(parameter.grad.norm()) is (step not in bad)
    assert own.value == oracle.get_scale() and own.skipped == len(bad)


def test_gradients_are_divided_by_it():
    scale, parameter, other = LossScale(), torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([65536.0, 3.0])
    scale.unscale([parameter, other])
    assert parameter.grad.tolist() == [1.0, 3.0 / 65536] and other.grad is None


def overflowing(at, value=torch.inf):
    """The gradients of these steps overflow."""
    plain, made = loop.Trainer.backward, []

    def backward(self, batch):
        losses = plain(self, batch)
        if len(made) in at:
            next(iter(self.model.parameters())).grad.flatten()[0] = value
        made.append(self.images_seen)
        return losses

    return patch.object(loop.Trainer, "backward", backward)


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_a_step_that_overflows_is_left_out_and_counted(tmp_path, value):
    run = trainer(tmp_path / "c.safetensors", NONE, settings(16, precision="fp16"))
    start = {name: parameter.clone() for name, parameter in run.network.named_parameters()}
    with overflowing({0, 1}, value):
        run.run(show=False)
    assert run.images_seen == 16 and not run.optimizer.state  # both steps were left out
    for name, parameter in run.network.named_parameters():
        assert torch.equal(parameter, start[name]) and torch.equal(run.average.values[name], start[name])
    rows = [row for row in run.history.rows if row[1] in {"loss_scale", "steps_left_out"}]
    assert rows == [[16, "loss_scale", "*", "*", 65536.0 / 4, None], [16, "steps_left_out", "*", "*", 2.0, None]]


def test_a_step_left_out_leaves_the_others_as_they_are(tmp_path):
    """The step after one left out is the one that would have been made first."""
    run = trainer(tmp_path / "c.safetensors", NONE, settings(16, precision="fp16"))
    with overflowing({0}):
        run.run(show=False)
    steps = {state["step"].item() for state in run.optimizer.state.values()}
    assert steps == {1.0}


def test_a_training_that_overflows_on_and_on_has_diverged(tmp_path):
    run = trainer(tmp_path / "c.safetensors", NONE, settings(400, precision="fp16"))
    with overflowing(set(range(50))), pytest.raises(EquigenError, match="gradient is not finite"):
        run.run(show=False)
    assert run.scale.value < 1 and run.images_seen == 16 * 8  # sixteen halvings lead to 1, the seventeenth below


def test_without_float16_an_overflow_stops_at_once(tmp_path):
    run = trainer(tmp_path / "c.safetensors", NONE, settings(16))
    with overflowing({0}), pytest.raises(EquigenError, match="gradient is not finite"):
        run.run(show=False)


def test_float16_is_used_and_near(tmp_path):
    full, half = (trainer(tmp_path / name, NONE, settings(8, precision=name)) for name in ("fp32", "fp16"))
    for run in (full, half):
        run.run(show=False)
    losses = [[row[4] for row in run.history.rows if row[1:4] == ["train", "*", "*"]] for run in (full, half)]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.01)
    one, two = (torch.cat([p.flatten() for p in run.network.parameters()]) for run in (full, half))
    assert 0 < (one - two).norm() < 0.02 * one.norm()


def test_the_scale_goes_on_from_a_checkpoint(tmp_path):
    run = trainer(tmp_path / "c.safetensors", NONE, settings(24, precision="fp16"))
    with overflowing({1}):
        run.run(show=False)
    again = trainer(tmp_path / "c.safetensors", NONE, settings(24, precision="fp16"))
    assert again.scale.state_dict() == run.scale.state_dict() == {"value": 32768.0, "good": 1, "skipped": 0}
