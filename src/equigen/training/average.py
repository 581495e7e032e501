"""The exponential moving average of the weights, whose half-life is counted in images."""

from __future__ import annotations

from collections.abc import Mapping

import torch


class Average:
    """Averages of a module's parameters, updated in one fused call a step."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.names = [name for name, _ in module.named_parameters()]
        self.values = [parameter.detach().clone() for parameter in module.parameters()]

    @torch.no_grad()
    def update(self, module: torch.nn.Module, decay: float) -> None:
        """Average <- decay * average + (1 - decay) * weights."""
        torch._foreach_lerp_(
            self.values, [parameter.detach() for parameter in module.parameters()], 1 - decay
        )

    @torch.no_grad()
    def copy_to(self, module: torch.nn.Module) -> None:
        """Overwrite the module's parameters by the averages."""
        for parameter, value in zip(module.parameters(), self.values, strict=True):
            parameter.copy_(value)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Averages by parameter name."""
        return dict(zip(self.names, self.values, strict=True))

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put averages back."""
        for name, value in zip(self.names, self.values, strict=True):
            value.copy_(state[name])
