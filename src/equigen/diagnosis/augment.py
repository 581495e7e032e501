"""The augmentation, the same for every arm: one that alone is augmented would win by that."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images; each is drawn per image, uniform in its range.

    ``flip`` mirrors left and right with probability one half: turn it off where the side carries the
    diagnosis (situs, laterality). Up and down are never exchanged.
    """

    flip: bool = True
    rotate: float = 10.0  # degrees, either way
    scale: float = 0.1  # zoom between 1 - scale and 1 + scale
    shift: float = 0.05  # of the side, either way
    brightness: float = 0.1  # added to pixels in [0, 1]
    contrast: float = 0.1  # factor 1 +- contrast around the image's mean
    saturation: float = 0.1  # factor 1 +- saturation around the pixel's grey


def augment(images: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Augment [B, 3, H, W] in [0, 1]; the draws come from a CPU generator, whatever the device."""
    draws = (torch.rand(8, len(images), generator=generator) * 2 - 1).to(images.device)
    angle, zoom, right, down, light, contrast, saturation, side = draws
    mirror = torch.where(side < 0, -1.0, 1.0) if settings.flip else torch.ones_like(side)
    turned = _affine(
        images,
        angle * math.radians(settings.rotate),
        1 + zoom * settings.scale,
        mirror,
        2 * settings.shift * torch.stack([right, down], 1),
    )
    grey = turned.mean(dim=1, keepdim=True)
    turned = grey + (turned - grey) * _factor(saturation, settings.saturation)
    mean = turned.mean(dim=(1, 2, 3), keepdim=True)
    turned = mean + (turned - mean) * _factor(contrast, settings.contrast)
    changed: Tensor = (turned + light.view(-1, 1, 1, 1) * settings.brightness).clamp(0, 1)
    return changed


def _factor(draw: Tensor, strength: float) -> Tensor:
    """1 +- strength, one an image."""
    factor: Tensor = (1 + draw * strength).view(-1, 1, 1, 1)
    return factor


def _affine(images: Tensor, angle: Tensor, scale: Tensor, mirror: Tensor, shift: Tensor) -> Tensor:
    """Rotate, zoom, mirror and shift, bilinear, mirrored beyond the border."""
    cos, sin = angle.cos() / scale, angle.sin() / scale
    theta = torch.stack([cos * mirror, -sin, shift[:, 0], sin * mirror, cos, shift[:, 1]], 1).view(-1, 2, 3)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    turned: Tensor = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return turned
