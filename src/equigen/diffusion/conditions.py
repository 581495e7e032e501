"""What a network is told about the images that it is trained on."""

from __future__ import annotations

from typing import Protocol

import torch

from equigen.diffusion.networks import drop


class Conditions(Protocol):
    """The conditions of a training set's rows, as numbers that the network knows: of tokens, or of prompts."""

    def draw(self, rows: torch.Tensor, seed: int, seen: int, generator: torch.Generator) -> torch.Tensor:
        """[B] int64 -> numbers [B, F] int64 for one training batch, some of them dropped.

        Draws come from ``generator``, or from one made of ``seed`` and ``seen`` (images before this batch), so that the
        same call gives the same.
        """
        ...

    def plain(self, rows: torch.Tensor) -> torch.Tensor:
        """[B] int64 -> numbers [B, F] int64, nothing dropped."""
        ...


class TokenConditions:
    """Attribute and label tokens ``ids`` [N, F], dropped with chances ``drop_all`` and ``drop_one`` (see ``drop``)."""

    def __init__(self, ids: torch.Tensor, drop_all: float = 0.0, drop_one: float = 0.0) -> None:
        self.ids, self.drop_all, self.drop_one = ids, drop_all, drop_one

    def draw(self, rows: torch.Tensor, seed: int, seen: int, generator: torch.Generator) -> torch.Tensor:
        """Token numbers [B, F], each image's whole condition or single tokens of it dropped."""
        return drop(self.ids[rows], self.drop_all, self.drop_one, generator)

    def plain(self, rows: torch.Tensor) -> torch.Tensor:
        """Token numbers [B, F]."""
        return self.ids[rows]
