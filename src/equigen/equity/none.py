"""Plain training: every image has weight 1."""

from __future__ import annotations

from equigen.equity.base import BaseMechanism
from equigen.equity.groups import Groups


class UniformWeights(BaseMechanism):
    """w_i = 1: the Stable Diffusion baseline of METHODS section 3, and the reference of every comparison."""

    name = "none"
    uses_losses = False
    needs_attributes = False

    def __init__(self, groups: Groups, seed: int) -> None:
        super().__init__(groups, seed)
