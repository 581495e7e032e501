"""Parts of a training step that depend on devices: moving tensors, half precision, dropout, micro-batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from equigen.errors import InputError, Problem
from equigen.seeds import derive_seed


def check_batch(batch: int, processes: int, accumulate: int = 1) -> None:
    """Raise InputError unless the global batch divides into ``processes`` equal shares of ``accumulate`` parts."""
    if batch % (processes * accumulate):
        message = f"batch {batch} on {processes} {'process' if processes == 1 else 'processes'}"
        message += f" in {accumulate} parts" if accumulate > 1 else ""
        problem = Problem(message, f"use a multiple of {processes * accumulate}")
        raise InputError("The batch cannot be shared out.", [problem])


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return values of the CPU on a device; a copy to a GPU is queued, without a wait."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def to_cpu(losses: torch.Tensor, norm: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return losses [B] and a gradient norm on the CPU, copied together: each copy waits for a GPU."""
    if losses.device != norm.device:  # the losses were copied before, for the mechanism
        return losses, norm.cpu()
    values = torch.cat([losses, norm[None]]).cpu()
    return values[:-1], values[-1]


def select_latents(latents: Any, rows: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return latents [B, C, h, w] of rows [B] on a device.

    ``latents``: a tensor [N, C, h, w] that is on the device already, or a store that gives rows on the CPU.
    """
    if isinstance(latents, torch.Tensor):
        return latents[to_device(rows, device)]
    return to_device(latents[rows], device)


def has_dropout(model: torch.nn.Module) -> bool:
    """Return whether any layer of a model drops values at random in training."""
    return any(isinstance(layer, torch.nn.modules.dropout._DropoutNd) and layer.p > 0 for layer in model.modules())


@contextmanager
def seeded_dropout(device: torch.device, seed: int, position: int) -> Iterator[None]:
    """Seed torch's global generators, from which dropout draws, by (seed, position) within the block."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed(seed, "dropout", position))
        yield


def autocast(device: torch.device, precision: str) -> Any:
    """Return a context of half precision where ``precision`` says so; on ``auto``, bfloat16 on a GPU alone.

    Weights stay float32.
    """
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    enabled = precision in {"bf16", "fp16"} or (precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, dtype, enabled=enabled)
