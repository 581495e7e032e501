"""Data augmentation, the same for every classifier, so that recipes differ in their images alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Augmentation:
    """Random transformations of training images, drawn for each image, uniform in their ranges.

    ``flip`` mirrors left and right with probability one half: disable it where laterality matters
    for the diagnosis (situs). Images are never flipped vertically.
    """

    flip: bool = True
    rotate: float = 10.0  # degrees, in both directions
    scale: float = 0.1  # zoom between 1 - scale and 1 + scale
    shift: float = 0.05  # relative to the image size, in both directions
    brightness: float = 0.1  # added to pixels in [0, 1]
    contrast: float = 0.1  # factor 1 +- contrast around the image's mean
    saturation: float = 0.1  # factor 1 +- saturation around the pixel's grey


def augment(images: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Augment images [B, 3, H, W] in [0, 1]; random numbers come from a CPU generator on every device."""
    draws = (torch.rand(8, len(images), generator=generator) * 2 - 1).to(images.device)
    angle, zoom, right, down, light, contrast, saturation, flip = draws
    mirror = torch.where(flip < 0, -1.0, 1.0) if settings.flip else torch.ones_like(flip)
    angle, scale = angle * math.radians(settings.rotate), 1 + zoom * settings.scale
    shift = 2 * settings.shift * torch.stack([right, down], 1)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    theta = torch.stack([cos * mirror, -sin, shift[:, 0], sin * mirror, cos, shift[:, 1]], 1).view(-1, 2, 3)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    warped: Tensor = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    grey = warped.mean(dim=1, keepdim=True)
    warped = grey + (warped - grey) * _factor(saturation, settings.saturation)
    mean = warped.mean(dim=(1, 2, 3), keepdim=True)
    warped = mean + (warped - mean) * _factor(contrast, settings.contrast)
    augmented: Tensor = (warped + light.view(-1, 1, 1, 1) * settings.brightness).clamp(0, 1)
    return augmented


def _factor(draw: Tensor, strength: float) -> Tensor:
    """Factor 1 +- strength of each image."""
    factor: Tensor = (1 + draw * strength).view(-1, 1, 1, 1)
    return factor
