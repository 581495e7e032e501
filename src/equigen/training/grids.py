"""Samples of each group during a training, always of the same conditions and noise, side by side."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from equigen.diffusion import EquigenPipeline
from equigen.seeds import derive, torch_generator
from equigen.training.data import Data

COLUMNS, GUIDANCE, STEPS = 6, 2.0, 20


@torch.no_grad()
def group_grids(pipeline: EquigenPipeline, data: Data, seed: int) -> dict[str, NDArray[np.uint8]]:
    """One strip [size, COLUMNS * size, 3] uint8 of samples for each group, as ``attribute/group``.

    Each sample has the conditions of an image of that group in ``data``, chosen by ``seed``; a group with fewer images
    repeats them, one without any has no strip. Without attributes there is one, ``all``.
    """
    strips = {}
    for place, (name, rows) in enumerate(_members(data).items()):
        if len(rows):
            order = torch.randperm(len(rows), generator=torch_generator(seed, "grid", place))
            ids = data.ids[rows[order].repeat(COLUMNS)[:COLUMNS]]
            noise = pipeline.starting_noise([derive(seed, "grid-noise", column) for column in range(COLUMNS)])
            latents = pipeline.sample(noise, ids, torch.full((COLUMNS,), GUIDANCE), STEPS)
            strips[name] = np.concatenate(list(pipeline.autoencoder.decode(pipeline.denormalised(latents))), axis=1)
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
