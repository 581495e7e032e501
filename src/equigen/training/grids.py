"""Strips of generated samples of each group during training, always of the same conditions and noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from equigen.diffusion import EquigenPipeline
from equigen.seeds import derive_seed, torch_generator
from equigen.training.data import LatentDataset

COLUMNS, GUIDANCE, STEPS = 6, 2.0, 20


Sampler = Callable[[torch.Tensor, list[int]], NDArray[np.uint8]]
"""From conditions [n, F] and the seed of each to images [n, size, size, 3]."""


def token_sampler(pipeline: EquigenPipeline) -> Sampler:
    """Return a sampler of a class-conditional generator."""

    def sample(ids: torch.Tensor, seeds: list[int]) -> NDArray[np.uint8]:
        scale = torch.full((len(ids),), GUIDANCE)
        latents = pipeline.sample(pipeline.starting_noise(seeds), ids, scale, STEPS)
        return pipeline.autoencoder.decode(pipeline.denormalise(latents))

    return sample


@torch.no_grad()
def group_grids(sample: Sampler, data: LatentDataset, seed: int) -> dict[str, NDArray[np.uint8]]:
    """Return one strip [size, COLUMNS * size, 3] uint8 of samples for each group, by ``attribute/group``.

    Each sample has the conditions of an image of that group in ``data``, chosen by ``seed``; a group with fewer images
    repeats them, one without any has no strip. Without attributes there is one strip, ``all``.
    """
    strips = {}
    for number, (name, rows) in enumerate(_group_rows(data).items()):
        if len(rows):
            order = torch.randperm(len(rows), generator=torch_generator(seed, "grid", number))
            ids = data.ids[rows[order].repeat(COLUMNS)[:COLUMNS]]
            seeds = [derive_seed(seed, "grid-noise", column) for column in range(COLUMNS)]
            strips[name] = np.concatenate(list(sample(ids, seeds)), axis=1)
    return strips


def _group_rows(data: LatentDataset) -> dict[str, torch.Tensor]:
    """Return the row numbers of each group."""
    if not len(data.groups):
        return {"all": torch.arange(len(data.index))}
    return {
        f"{attribute}/{level}": (data.index[:, column] == number).nonzero().squeeze(1)
        for column, (attribute, levels) in enumerate(data.groups.names)
        for number, level in enumerate(levels)
    }
