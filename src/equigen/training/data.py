"""What is trained on, and what is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from equigen.equity import Groups


@dataclass
class Data:
    """What is trained on, or measured: latents [N, C, h, w], condition numbers [N, F], group index [N, A], its names.

    ``latents`` have unit variance; a tensor, or anything with ``len``, ``shape`` and ``latents[rows]`` for rows [B]
    int64 -> [B, C, h, w] float32 on the CPU. ``ids``: what each image's whole condition is.
    """

    latents: Any
    ids: torch.Tensor
    index: torch.Tensor
    groups: Groups
