"""Weights other than the newest: the moving average over the last images, and the best by the validation split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from equigen.equity import GroupLosses
from equigen.errors import InputError, Problem
from equigen.training.probe import Probe
from equigen.training.shards import copy_into, gather_on_first, local_tensor


def trained_parameters(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return a module's parameters that require gradients, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


class Average:
    """Exponential moving averages of a module's trained parameters, updated in one fused call a step.

    They are sharded over the processes where the parameters are.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self.values = {name: parameter.detach().clone() for name, parameter in trained_parameters(module).items()}

    @torch.no_grad()
    def update(self, module: torch.nn.Module, decay: float) -> None:
        """Average <- decay * average + (1 - decay) * weights."""
        torch._foreach_lerp_(_local_tensors(self.values), _local_tensors(trained_parameters(module)), 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: torch.nn.Module) -> None:
        """Overwrite the module's parameters by the averages."""
        torch._foreach_copy_(_local_tensors(trained_parameters(module)), _local_tensors(self.values))

    @contextmanager
    def swap_into(self, module: torch.nn.Module) -> Iterator[None]:
        """Replace the module's weights by the averages within the block, and restore them after it."""
        weights = Average(module)
        self.copy_to(module)
        try:
            yield
        finally:
            weights.copy_to(module)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return averages by parameter name; where they are sharded every process has to call this."""
        return {name: gather_on_first(value) for name, value in self.values.items()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Load averages that ``state_dict`` returned."""
        for name, value in self.values.items():
            copy_into(value, state[name])


def _local_tensors(tensors: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """Return this process's shard of each tensor."""
    return [local_tensor(tensor.detach()) for tensor in tensors.values()]


class BestWeights:
    """The weights at which the held-out probe had the lowest loss: overall, or in its worst group.

    The probe is of the validation split, which nothing is trained on; the test split plays no part. Weights are
    compared each time that the probe is measured on schedule, the start and the end of training included.
    Raises InputError where there is no such probe, or none of its groups is known.
    """

    def __init__(self, rule: str, module: torch.nn.Module, probe: Probe | None) -> None:
        if probe is None:
            problem = Problem(f"best is '{rule}', and the validation split is empty", "split it off, or set best: none")
            raise InputError("The best weights cannot be told.", [problem])
        if rule == "worst_group" and not bool((probe.index >= 0).any()):
            problem = Problem("no group of a validation image is known", "set best: overall")
            raise InputError("The worst group cannot be told.", [problem])
        self.rule, self.loss, self.images_seen = rule, float("inf"), -1
        self.weights = Average(module)

    def update(self, monitor: GroupLosses, module: torch.nn.Module, images_seen: int) -> None:
        """Keep the module's weights if this measurement of them is the lowest so far."""
        means = monitor.means[~monitor.means.isnan()]
        loss = monitor.overall if self.rule == "overall" else float(means.max())
        if loss < self.loss:
            self.loss, self.images_seen, self.weights = loss, images_seen, Average(module)

    def record(self) -> dict[str, Any]:
        """Return the rule, the lowest loss and its count of images, for a checkpoint and ``training.json``."""
        return {"rule": self.rule, "loss": self.loss, "images_seen": self.images_seen}

    def load_state(self, record: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
        """Load the record and the weights of a checkpoint."""
        self.loss, self.images_seen = float(record["loss"]), int(record["images_seen"])
        self.weights.load_state_dict(weights)
