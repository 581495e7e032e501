"""Requirements of a run's settings on packages, accelerate and the network; the optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from accelerate import Accelerator, DistributedType

from equigen.errors import InputError, Problem
from equigen.training.settings import TrainSettings

SHARDING_BACKENDS = {DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM}
PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow", "adamw8bit": "bitsandbytes"}


def check_requirements(settings: TrainSettings) -> None:
    """Raise InputError for a tracker or optimizer whose package is not installed, and settings that conflict."""
    problems = [
        Problem(f"'{choice}' was asked for, and its package is not installed", f"pip install {PACKAGES[choice]}")
        for choice in (settings.tracker, settings.optimizer)
        if choice in PACKAGES and not is_installed(PACKAGES[choice])
    ]
    if settings.optimizer == "adamw8bit" and settings.sharding != "none":
        problems.append(Problem("adamw8bit cannot be sharded", "use adamw with sharding full, or sharding none"))
    if problems:
        raise InputError("These settings cannot be used.", problems)


def check_accelerator(accelerator: Accelerator) -> None:
    """Raise InputError where accelerate is configured to shard or to use half precision; both are training settings."""
    kind, precision = accelerator.distributed_type, accelerator.mixed_precision
    problems = []
    if kind in SHARDING_BACKENDS:
        mend = "set sharding: full in the training's settings instead"
        problems.append(Problem(f"accelerate was started with distributed_type {kind.value}", mend))
    if precision != "no":
        mend = "set precision in the training's settings instead"
        problems.append(Problem(f"accelerate was started with mixed_precision {precision}", mend))
    if problems:
        raise InputError("Training cannot run under this configuration of accelerate.", problems)


def is_installed(package: str) -> bool:
    """Return whether a package can be imported."""
    return find_spec(package) is not None


def build_optimizer(parameters: Sequence[torch.nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov & Hutter 2019), its moments in float32, or in 8 bits a number (Dettmers et al. 2022).

    Raises InputError where there is nothing to train, or where trained weights are not in float32.
    """
    kinds = {parameter.dtype for parameter in parameters} - {torch.float32}
    if not parameters or kinds:
        message = f"weights in {', '.join(sorted(map(str, kinds)))}" if kinds else "no weight requires gradients"
        mend = "train weights in float32, and set precision" if kinds else "unfreeze some, or add LoRA weights"
        raise InputError("These weights cannot be trained.", [Problem(message, mend)])
    common: dict[str, Any] = {
        "lr": settings.learning_rate, "betas": (0.9, 0.99), "weight_decay": settings.weight_decay,
    }  # fmt: skip
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **common, fused=True)
    optimizer: torch.optim.Optimizer = import_module("bitsandbytes.optim").AdamW8bit(parameters, **common)
    return optimizer


def checkpoint_activations(module: torch.nn.Module) -> None:
    """Recompute activations in the backward pass, in all networks of a module that support it (Chen et al. 2016).

    Networks of diffusers and transformers can; the gradients are the same. Raises InputError where none can.
    """
    count = 0
    for submodule in module.modules():
        if getattr(submodule, "_supports_gradient_checkpointing", False):  # diffusers
            submodule.enable_gradient_checkpointing()  # type: ignore[operator]
            count += 1
        elif getattr(submodule, "supports_gradient_checkpointing", False):  # transformers
            submodule.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
            count += 1
    if not count:
        problem = Problem("no part of the network supports gradient_checkpointing", "leave it out, or use accumulate")
        raise InputError("The activations cannot be made again.", [problem])
