"""Random weights from standard normals: as released, and log-normal."""

from __future__ import annotations

import torch
from torch import Tensor

from equigen.seeds import torch_generator


def draw_noise(groups: Tensor, seed: int, images_seen: int) -> Tensor:
    """Return eps [B, A], a standard normal for each image and attribute, determined by (seed, images_seen)."""
    generator = torch_generator(seed, "equity/noise", images_seen)
    return torch.randn(groups.shape, generator=generator).to(groups.device)


def released_weights(sigma: Tensor, eps: Tensor) -> Tensor:
    """Return w_i = 1 + sum_a sigma_{a,i} eps_{a,i} (METHODS section 2): mean 1 whatever sigma is, often negative.

    ``sigma`` and ``eps`` are [B, A]; sigma is 0 where the group is unknown.
    """
    return 1 + (sigma * eps).sum(1)


def lognormal_weights(sigma: Tensor, eps: Tensor) -> Tensor:
    """Return w_i = exp(sum_a sigma_{a,i} eps_{a,i}) / mean_j exp(sum_a sigma_{a,j}^2 / 2) (METHODS section 3).

    The normaliser is the batch mean of the *expected* weights, so the expected weight over the batch is 1.
    """
    expected = (sigma.square().sum(1) / 2).exp()
    return (sigma * eps).sum(1).exp() / expected.mean()
