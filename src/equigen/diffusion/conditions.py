"""Conditions of the training images, with dropout for classifier-free guidance."""

from __future__ import annotations

from typing import Protocol

import torch

from equigen.diffusion.networks import drop_tokens


class Conditions(Protocol):
    """The conditions of a training set's rows, as numbers of tokens or of prompts."""

    def draw(self, rows: torch.Tensor, seed: int, images_seen: int, generator: torch.Generator) -> torch.Tensor:
        """Return numbers [B, F] int64 of rows [B] int64 for one training batch, some of them dropped at random.

        Draws come from ``generator``, or from one made of ``seed`` and ``images_seen`` (images before this batch), so
        that the same call returns the same numbers.
        """
        ...

    def complete(self, rows: torch.Tensor) -> torch.Tensor:
        """Return numbers [B, F] int64 of rows [B] int64, nothing dropped."""
        ...


class TokenConditions:
    """Attribute and label tokens ``ids`` [N, F], dropped with chances ``drop_all`` and ``drop_one``.

    See ``drop_tokens``.
    """

    def __init__(self, ids: torch.Tensor, drop_all: float = 0.0, drop_one: float = 0.0) -> None:
        self.ids, self.drop_all, self.drop_one = ids, drop_all, drop_one

    def draw(self, rows: torch.Tensor, seed: int, images_seen: int, generator: torch.Generator) -> torch.Tensor:
        """Return token numbers [B, F], each image's whole condition or single tokens of it dropped."""
        return drop_tokens(self.ids[rows], self.drop_all, self.drop_one, generator)

    def complete(self, rows: torch.Tensor) -> torch.Tensor:
        """Return token numbers [B, F]."""
        return self.ids[rows]
