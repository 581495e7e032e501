"""Samples of each group during a training, always of the same conditions and noise, side by side."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from equigen.diffusion import EquigenPipeline
from equigen.seeds import derive_seed, torch_generator
from equigen.training.data import Data

COLUMNS, GUIDANCE, STEPS = 6, 2.0, 20


Draw = Callable[[torch.Tensor, list[int]], NDArray[np.uint8]]
"""From conditions [n, F] and the seed of each to images [n, size, size, 3]."""


def token_draws(pipeline: EquigenPipeline) -> Draw:
    """How a generator with tokens draws samples."""
    def draw(ids: torch.Tensor, seeds: list[int]) -> NDArray[np.uint8]:
        scale = torch.full((len(ids),), GUIDANCE)
        latents = pipeline.sample(pipeline.starting_noise(seeds), ids, scale, STEPS)
        return pipeline.autoencoder.decode(pipeline.denormalised(latents))

    return draw


@torch.no_grad()
def group_grids(draw: Draw, data: Data, seed: int) -> dict[str, NDArray[np.uint8]]:
    """One strip [size, COLUMNS * size, 3] uint8 of samples for each group, as ``attribute/group``.

    Each sample has the conditions of an image of that group in ``data``, chosen by ``seed``; a group with fewer images
    repeats them, one without any has no strip. Without attributes there is one, ``all``.
    """
    strips = {}
    for place, (name, rows) in enumerate(_members(data).items()):
        if len(rows):
            order = torch.randperm(len(rows), generator=torch_generator(seed, "grid", place))
            ids = data.ids[rows[order].repeat(COLUMNS)[:COLUMNS]]
            seeds = [derive_seed(seed, "grid-noise", column) for column in range(COLUMNS)]
            strips[name] = np.concatenate(list(draw(ids, seeds)), axis=1)
    return strips


def _members(data: Data) -> dict[str, torch.Tensor]:
    """The rows of each group."""
    if not len(data.groups):
        return {"all": torch.arange(len(data.index))}
    return {
        f"{attribute}/{level}": (data.index[:, column] == number).nonzero().squeeze(1)
        for column, (attribute, levels) in enumerate(data.groups.names)
        for number, level in enumerate(levels)
    }
