"""The exponential moving average of the weights, whose half-life is counted in images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from equigen.training.shards import gathered, local, put


def trained(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that are trained, by name; what is frozen is of no concern to a run."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


class Average:
    """Averages of a module's trained parameters, updated in one fused call a step.

    Held as the parameters are: whole, or in parts of which each process has one.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self.values = {name: parameter.detach().clone() for name, parameter in trained(module).items()}

    @torch.no_grad()
    def update(self, module: torch.nn.Module, decay: float) -> None:
        """Average <- decay * average + (1 - decay) * weights."""
        torch._foreach_lerp_(_held(self.values), _held(trained(module)), 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: torch.nn.Module) -> None:
        """Overwrite the module's parameters by the averages."""
        torch._foreach_copy_(_held(trained(module)), _held(self.values))

    @contextmanager
    def applied(self, module: torch.nn.Module) -> Iterator[None]:
        """The module has the averages for its weights within the block, and what it had after it."""
        kept = Average(module)
        self.copy_to(module)
        try:
            yield
        finally:
            kept.copy_to(module)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Averages by parameter name; every process has to ask where each holds a part (see ``gathered``)."""
        return {name: gathered(value) for name, value in self.values.items()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put averages back."""
        for name, value in self.values.items():
            put(value, state[name])


def _held(tensors: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """What this process holds of each tensor."""
    return [local(tensor.detach()) for tensor in tensors.values()]
