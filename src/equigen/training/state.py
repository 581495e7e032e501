"""What a checkpoint holds of a run: all that the rest of it depends on, whole, whichever process held it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from equigen.checkpoints import Tensors, load_optimizer_tensors, optimizer_tensors, prefixed, unprefixed
from equigen.errors import InputError, Problem
from equigen.training.average import trained
from equigen.training.shards import gathered, like, put

if TYPE_CHECKING:
    from equigen.training.loop import Trainer


def run_state(trainer: Trainer) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and record of a checkpoint; every process has to ask where each holds a part of the weights."""
    state, average, best, scale = trainer.mechanism.state_dict(), trainer.average, trainer.best, trainer.scale
    tensors = {
        **prefixed("network", network_state(trainer.network)),
        **prefixed("optimizer", optimizer_state(trainer.optimizer)),
        **prefixed("average", average.state_dict() if average else {}),
        **prefixed("best", best.weights.state_dict() if best else {}),
        **prefixed("mechanism", {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}),
        "history.sums": trainer.history.sums,
    }
    record = {
        "key": trainer.key,
        "seen": trainer.seen,
        "mechanism": {name: value for name, value in state.items() if not isinstance(value, torch.Tensor)},
        "history": trainer.history.rows,
        "best": best.record() if best else None,
        "scale": scale.state_dict() if scale else None,
        "saved": time.time(),
    }
    return tensors, record


def load_run_state(trainer: Trainer, tensors: Tensors, record: dict[str, Any]) -> None:
    """Go on from what ``run_state`` gave; InputError where it is of other trained weights or another mechanism."""
    load_network_state(trainer.network, unprefixed("network", tensors), trainer.checkpoint)
    load_optimizer_state(trainer.optimizer, unprefixed("optimizer", tensors))
    if trainer.average is not None:
        trainer.average.load_state_dict(unprefixed("average", tensors))
    if trainer.best is not None:
        trainer.best.load(record["best"], unprefixed("best", tensors))
    if trainer.scale is not None:
        trainer.scale.load_state_dict(record["scale"])
    trainer.mechanism.load_state_dict({**unprefixed("mechanism", tensors), **record["mechanism"]})
    trainer.history.rows, trainer.history.sums = record["history"], tensors["history.sums"]
    trainer.seen = int(record["seen"])


def _changing(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Trained parameters, and buffers that a saved network has (running means, say), by name."""
    saved = network.state_dict()
    buffers = {name: buffer for name, buffer in network.named_buffers() if name in saved}
    return {**{name: parameter.detach() for name, parameter in trained(network).items()}, **buffers}


def network_state(network: torch.nn.Module) -> Tensors:
    """What training changes in a network; frozen weights are not among it."""
    return {name: gathered(value) for name, value in _changing(network).items()}


def load_network_state(network: torch.nn.Module, tensors: Mapping[str, torch.Tensor], source: Path) -> None:
    """Put back what ``network_state`` gave; InputError where ``source`` has other names or shapes."""
    own = _changing(network)
    shapes = {name: tuple(value.shape) for name, value in own.items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    odd = sorted(name for name in {*shapes, *found} if shapes.get(name) != found.get(name))
    if odd:
        some = ", ".join(odd[:3]) + (f" and {len(odd) - 3} more" if len(odd) > 3 else "")
        problem = Problem(f"holds other trained weights ({some})", "train the same weights on", file=str(source))
        raise InputError("The checkpoint does not fit this run.", [problem])
    for name, value in own.items():
        put(value, tensors[name])


def optimizer_state(optimizer: torch.optim.Optimizer) -> Tensors:
    """What an optimizer remembers of each parameter, ``<index>.<name>``."""
    return {name: gathered(value) for name, value in optimizer_tensors(optimizer).items()}


def load_optimizer_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put back what ``optimizer_state`` gave, each process its part."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    own = {name: like(parameters[int(name.split(".", 1)[0])], value) for name, value in tensors.items()}
    load_optimizer_tensors(optimizer, own)
