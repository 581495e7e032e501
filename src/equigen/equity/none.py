"""Plain training: every image weighs the same."""

from __future__ import annotations

import torch
from torch import Tensor

from equigen.equity.groups import Groups
from equigen.equity.interface import State
from equigen.equity.monitor import GroupLosses
from equigen.equity.state import check_state, header


class UniformWeights:
    """w_i = 1: the Stable Diffusion baseline of METHODS section 3, and the reference of every comparison."""

    name = "none"
    uses_losses = False

    def __init__(self, groups: Groups, seed: int) -> None:
        self.groups, self.seed = groups, seed

    def weights(self, losses: Tensor, groups: Tensor, timesteps: Tensor, images_seen: int) -> Tensor:
        """Return ones [B]."""
        self.groups.check(groups, len(losses))
        return torch.ones_like(losses)

    def wants_probe(self, images_seen: int) -> bool:
        """Return False."""
        return False

    def observe_probe(self, monitor: GroupLosses, images_seen: int) -> None:
        """Do nothing: the probe is not used."""

    def records(self) -> dict[str, float]:
        """Return no records."""
        return {}

    def sampling_weights(self, groups: Tensor) -> Tensor | None:
        """Return None, for the uniform stream."""
        return None

    def state_dict(self) -> State:
        """Return the header of the state, which has no other content."""
        return header(self.name, self.groups, self.seed, {})

    def load_state_dict(self, state: State) -> None:
        """Check that the state is one of plain training on these groups."""
        check_state(state, header(self.name, self.groups, self.seed, {}), {}, {})
