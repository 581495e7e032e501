"""What settings need of packages and networks: 8-bit AdamW, activations made twice, and refusals before any work."""

import sys
import types
from unittest.mock import patch

import pytest
import torch
from accelerate import Accelerator, DistributedType
from small_training import Stopped, stopping
from small_training import settings as token_settings
from small_training import trainer as token_trainer
from test_loop_and_resume import assert_same_run
from worded import PromptNetwork, settings, trainer

from equigen.checkpoints import load_checkpoint, select_prefix
from equigen.errors import InputError
from equigen.training import requirements as needs

NONE = {"mechanism": "none"}


class EightBit(torch.optim.Optimizer):
    """A stand-in with the state of bitsandbytes: a count, and quantised moments in a mapping of their own."""

    def __init__(self, parameters, lr, betas, weight_decay):
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                state.setdefault("step", 0)
                state.setdefault("state1", torch.zeros_like(parameter, dtype=torch.uint8))
                state["step"] += 1
                state["state1"] = (0.5 * state["state1"] + 10 * parameter.grad.sign() + 100).clamp(0, 255).byte()
                parameter.sub_(group["lr"] * (state["state1"].float() / 100 - 1) / state["step"])

    def state_dict(self):
        whole = super().state_dict()
        return {**whole, "state": {index: {"step": state["step"], "inner": {"state1": state["state1"]}}
                                   for index, state in whole["state"].items()}}  # fmt: skip

    def load_state_dict(self, state_dict):
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for index, state in state_dict["state"].items():
            assert type(state["step"]) is int and state["state1"].dtype == torch.uint8
            self.state[parameters[index]] = dict(state)


@pytest.fixture
def stand_in(monkeypatch):
    optim = types.SimpleNamespace(AdamW8bit=EightBit)
    monkeypatch.setitem(sys.modules, "bitsandbytes", types.SimpleNamespace(optim=optim))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", optim)
    monkeypatch.setattr(needs, "is_installed", lambda package: package == "bitsandbytes")


def go_on(tmp_path, part):
    chosen = settings(48, optimizer="adamw8bit")
    whole = trainer(tmp_path / "whole.safetensors", NONE, chosen, part=part)
    whole.run(show=False)
    with stopping(4), pytest.raises(Stopped):
        trainer(tmp_path / "cut.safetensors", NONE, chosen, part=part).run(show=False)
    again = trainer(tmp_path / "cut.safetensors", NONE, chosen, part=part)
    assert again.images_seen == 24
    again.run(show=False)
    assert_same_run(tmp_path / "cut.safetensors", tmp_path / "whole.safetensors")
    return whole, select_prefix("optimizer", load_checkpoint(tmp_path / "whole.safetensors")[0])


@pytest.mark.parametrize("part", ["all", "pairs"])
def test_eight_bit_adam_is_asked_for_and_goes_on_bit_for_bit(tmp_path, stand_in, part):
    run, state = go_on(tmp_path, part)
    assert run.optimizer.defaults == {"lr": 1e-2, "betas": (0.9, 0.99), "weight_decay": 0.01}
    assert state["0.step"].item() == 6 and state["0.state1"].dtype == torch.uint8
    assert len(state) == 2 * (4 if part == "pairs" else 18)


def test_bitsandbytes_itself_where_it_is_installed(tmp_path):
    pytest.importorskip("bitsandbytes")
    run, state = go_on(tmp_path, "all")
    assert type(run.optimizer).__name__ == "AdamW8bit" and state["0.step"].item() == 6


def test_eight_bit_adam_that_is_not_installed_or_cannot_be_sharded_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(needs, "is_installed", lambda package: False)
    with pytest.raises(InputError, match="'adamw8bit' was asked for") as caught:
        trainer(tmp_path / "c.safetensors", NONE, settings(optimizer="adamw8bit", sharding="full", trackers="wandb"))
    assert [problem.mend for problem in caught.value.problems] == [
        "pip install wandb",
        "pip install bitsandbytes",
        "use adamw with sharding full, or sharding none",
    ]


def test_activations_made_twice_give_the_same_weights(tmp_path):
    """And are made twice indeed: each block is called again going backward."""
    made, plain = {}, torch.utils.checkpoint.checkpoint
    for on in (False, True):
        called = []

        def watching(*inputs, called=called, **how):
            called.append(how)
            return plain(*inputs, **how)

        chosen = token_settings(16, gradient_checkpointing=on, accumulate=2, min_snr=5.0)
        run = token_trainer(tmp_path / f"{on}.safetensors", NONE, chosen)
        with patch.object(torch.utils.checkpoint, "checkpoint", watching):
            run.run(show=False)
        made[on] = run, called
    (_, never), (_, often) = made.values()
    assert not never and len(often) >= 8 and all(how == {"use_reentrant": False} for how in often)
    assert_same_run(tmp_path / "True.safetensors", tmp_path / "False.safetensors")


def test_transformers_networks_make_activations_twice_too():
    asked = []

    class Encoder(torch.nn.Module):
        supports_gradient_checkpointing = True

        def gradient_checkpointing_enable(self, how):
            asked.append(how)

    needs.checkpoint_activations(torch.nn.Sequential(PromptNetwork(), Encoder()))
    assert asked == [{"use_reentrant": False}]


def test_a_network_that_cannot_make_activations_twice_is_refused(tmp_path):
    with pytest.raises(InputError, match="no part of the network supports gradient_checkpointing"):
        trainer(tmp_path / "c.safetensors", NONE, settings(gradient_checkpointing=True))


@pytest.mark.parametrize(("given", "match"), [
    ({"distributed_type": DistributedType.FSDP}, "distributed_type FSDP .set sharding: full"),
    ({"distributed_type": DistributedType.DEEPSPEED}, "distributed_type DEEPSPEED"),
    ({"mixed_precision": "fp16"}, "mixed_precision fp16 .set precision"),
])  # fmt: skip
def test_what_accelerate_would_do_by_itself_is_refused(given, match):
    plain = {"distributed_type": DistributedType.MULTI_GPU, "mixed_precision": "no"}
    needs.check_accelerator(types.SimpleNamespace(**plain))
    with pytest.raises(InputError, match=match):
        needs.check_accelerator(types.SimpleNamespace(**{**plain, **given}))


def test_training_refuses_such_an_accelerator_before_any_work(tmp_path):
    class Rounding(Accelerator):
        mixed_precision = "bf16"

    with pytest.raises(InputError, match="mixed_precision bf16"):
        trainer(tmp_path / "c.safetensors", NONE, settings(), accelerator=Rounding())


@pytest.mark.parametrize(("change", "match"), [
    (lambda module: module.requires_grad_(False), "no weight requires gradients"),
    (lambda module: module.bfloat16(), "weights in torch.bfloat16"),
])  # fmt: skip
def test_weights_that_cannot_be_trained_are_refused(tmp_path, change, match):
    with pytest.raises(InputError, match=match):
        trainer(tmp_path / "c.safetensors", NONE, settings(), module=change(PromptNetwork()))


def test_a_frozen_base_may_be_in_half_precision(tmp_path):
    module = PromptNetwork(part="pairs")
    for parameter in module.parameters():
        parameter.data = parameter.data if parameter.requires_grad else parameter.data.bfloat16()
    run = trainer(tmp_path / "c.safetensors", NONE, settings(24, precision="bf16"), module=module)
    run.run(show=False)
    assert {value.dtype for value in load_checkpoint(tmp_path / "c.safetensors")[0].values()} <= {
        torch.float32,
        torch.float64,
    }
    assert module.first.weight.dtype == torch.bfloat16
