"""The exponential moving average of the weights, whose half-life is counted in images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

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
