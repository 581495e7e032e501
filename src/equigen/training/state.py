"""The checkpoint of a run: its tensors and record, gathered from all processes, and back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from equigen.checkpoints import (
    Tensors,
    add_prefix,
    load_checkpoint,
    load_optimizer_tensors,
    optimizer_tensors,
    select_prefix,
)
from equigen.errors import InputError, Problem
from equigen.training.average import trained_parameters
from equigen.training.shards import copy_into, gather_on_first, shard_like

if TYPE_CHECKING:
    from equigen.training.loop import Trainer


def run_state(trainer: Trainer) -> tuple[Tensors, dict[str, Any]]:
    """Return the tensors and the record of a checkpoint; where weights are sharded every process has to call this."""
    state, average, best, scale = trainer.mechanism.state_dict(), trainer.average, trainer.best, trainer.scale
    network, optimizer = _changing_tensors(trainer.network), optimizer_tensors(trainer.optimizer)
    tensors = {
        **add_prefix("network", {name: gather_on_first(value) for name, value in network.items()}),
        **add_prefix("optimizer", {name: gather_on_first(value) for name, value in optimizer.items()}),
        **add_prefix("average", average.state_dict() if average else {}),
        **add_prefix("best", best.weights.state_dict() if best else {}),
        **add_prefix("mechanism", {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}),
        "history.sums": trainer.history.sums,
    }
    record = {
        "key": trainer.key,
        "seen": trainer.images_seen,
        "mechanism": {name: value for name, value in state.items() if not isinstance(value, torch.Tensor)},
        "history": trainer.history.rows,
        "best": best.record() if best else None,
        "scale": scale.state_dict() if scale else None,
        "saved": time.time(),
    }
    return tensors, record


def resume_run(trainer: Trainer) -> None:
    """Load the trainer's checkpoint.

    Raises InputError when it belongs to other data or settings, other trained weights or another mechanism.
    """
    tensors, record = load_checkpoint(trainer.checkpoint)
    if record["key"] != trainer.key:
        problem = Problem(
            "was made with other data or settings",
            "choose another output folder, or delete this file to start afresh",
            file=str(trainer.checkpoint),
        )
        raise InputError("The checkpoint does not fit this run.", [problem])
    load_network_state(trainer.network, select_prefix("network", tensors), trainer.checkpoint)
    load_optimizer_state(trainer.optimizer, select_prefix("optimizer", tensors))
    if trainer.average is not None:
        trainer.average.load_state_dict(select_prefix("average", tensors))
    if trainer.best is not None:
        trainer.best.load_state(record["best"], select_prefix("best", tensors))
    if trainer.scale is not None:
        trainer.scale.load_state_dict(record["scale"])
    trainer.mechanism.load_state_dict({**select_prefix("mechanism", tensors), **record["mechanism"]})
    trainer.history.rows, trainer.history.sums = record["history"], tensors["history.sums"]
    trainer.images_seen = int(record["seen"])


def _changing_tensors(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors that training changes, by name: trained parameters and saved buffers (running means)."""
    saved = network.state_dict()
    buffers = {name: buffer for name, buffer in network.named_buffers() if name in saved}
    return {**{name: parameter.detach() for name, parameter in trained_parameters(network).items()}, **buffers}


def load_network_state(network: torch.nn.Module, tensors: Mapping[str, torch.Tensor], source: Path) -> None:
    """Load the network's tensors of a checkpoint; raises InputError where ``source`` has other names or shapes."""
    current = _changing_tensors(network)
    shapes = {name: tuple(value.shape) for name, value in current.items()}
    saved_shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    mismatched = sorted(name for name in {*shapes, *saved_shapes} if shapes.get(name) != saved_shapes.get(name))
    if mismatched:
        more = f" and {len(mismatched) - 3} more" if len(mismatched) > 3 else ""
        examples = ", ".join(mismatched[:3]) + more
        problem = Problem(f"holds other trained weights ({examples})", "train the same weights on", file=str(source))
        raise InputError("The checkpoint does not fit this run.", [problem])
    for name, value in current.items():
        copy_into(value, tensors[name])


def load_optimizer_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Load the optimizer's tensors of a checkpoint; each process takes its part."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {name: shard_like(parameters[int(name.split(".", 1)[0])], value) for name, value in tensors.items()}
    load_optimizer_tensors(optimizer, state)
