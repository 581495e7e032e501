"""What the settings of a run need of other packages and of the network: checked before any work, then set up."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from accelerate import Accelerator, DistributedType

from equigen.errors import InputError, Problem
from equigen.training.settings import TrainSettings

OTHERS = {DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM}
PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow", "adamw8bit": "bitsandbytes"}


def check_needs(settings: TrainSettings) -> None:
    """InputError for a tracker or optimizer whose package is not installed, and for what cannot go together."""
    problems = [
        Problem(f"'{choice}' was asked for, and its package is not installed", f"pip install {PACKAGES[choice]}")
        for choice in (settings.tracker, settings.optimizer)
        if choice in PACKAGES and not installed(PACKAGES[choice])
    ]
    if settings.optimizer == "adamw8bit" and settings.sharding != "none":
        problems.append(Problem("adamw8bit cannot be sharded", "use adamw with sharding full, or sharding none"))
    if problems:
        raise InputError("These settings cannot be used.", problems)


def check_accelerator(accelerator: Accelerator) -> None:
    """InputError where accelerate was set up to shard, or to round, by itself: both are settings of the training."""
    kind, precision = accelerator.distributed_type, accelerator.mixed_precision
    asked = {
        f"distributed_type {kind.value}": (kind in OTHERS, "set sharding: full in the training's settings instead"),
        f"mixed_precision {precision}": (precision != "no", "set precision in the training's settings instead"),
    }
    problems = [Problem(f"accelerate was started with {found}", mend) for found, (odd, mend) in asked.items() if odd]
    if problems:
        raise InputError("Training cannot run under this configuration of accelerate.", problems)


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    return find_spec(package) is not None


def build_optimizer(parameters: Sequence[torch.nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019), its moments in float32, or in 8 bits a number (Dettmers et al. 2022).

    Raises InputError where there is nothing to train, or where what is trained is not in float32.
    """
    kinds = {parameter.dtype for parameter in parameters} - {torch.float32}
    if not parameters or kinds:
        found = f"weights in {', '.join(sorted(map(str, kinds)))}" if kinds else "no weight requires gradients"
        mend = "train weights in float32, and set precision" if kinds else "unfreeze some, or add LoRA weights"
        raise InputError("These weights cannot be trained.", [Problem(found, mend)])
    common: dict[str, Any] = {
        "lr": settings.learning_rate, "betas": (0.9, 0.99), "weight_decay": settings.weight_decay,
    }  # fmt: skip
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **common, fused=True)
    optimizer: torch.optim.Optimizer = import_module("bitsandbytes.optim").AdamW8bit(parameters, **common)
    return optimizer


def checkpoint_activations(module: torch.nn.Module) -> None:
    """Let the networks within a module forget activations and make them again going backward (Chen et al. 2016).

    Those of diffusers and transformers that can; the gradients are the same. Raises InputError where none can.
    """
    able = 0
    for part in module.modules():
        if getattr(part, "_supports_gradient_checkpointing", False):  # diffusers
            part.enable_gradient_checkpointing()  # type: ignore[operator]
            able += 1
        elif getattr(part, "supports_gradient_checkpointing", False):  # transformers
            part.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
            able += 1
    if not able:
        problem = Problem("no part of the network supports gradient_checkpointing", "leave it out, or use accumulate")
        raise InputError("The activations cannot be made again.", [problem])
