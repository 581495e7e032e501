"""Latents with their conditions and groups: the data set of a split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from equigen.equity import Groups


@dataclass
class LatentDataset:
    """A split's latents [N, C, h, w], condition numbers [N, F], group index [N, A], and the names of the groups.

    ``latents`` have unit variance; a tensor, or anything with ``len``, ``shape`` and ``latents[rows]`` for rows [B]
    int64 -> [B, C, h, w] float32 on the CPU. ``ids``: the condition of each image, without dropout.
    """

    latents: Any
    ids: torch.Tensor
    index: torch.Tensor
    groups: Groups
