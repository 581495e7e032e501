"""Moving means of losses, and how far a loss lies above what its noise level leads one to expect.

A denoising loss depends on the timestep far more than on the group: over a batch at random timesteps the
difference between two groups' mean losses is mostly a difference between their timesteps (METHODS section 2,
defect 4). Mechanisms that learn from training batches therefore compare images with others of the same noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from equigen.equity.monitor import timestep_strata
from equigen.errors import InputError, Problem


def empty(cells: int) -> Tensor:
    """A table [2, cells] of moving means that have seen nothing: row 0 sums, row 1 effective counts."""
    return torch.zeros(2, cells, dtype=torch.float64)


def moved(table: Tensor, cells: Tensor, values: Tensor, memory: float) -> Tensor:
    """The table after the values [n] of the cells [n]; a cell that has no value here stays as it was.

    Each cell counts its own images: with k new ones its sum and its count are first multiplied by
    0.5^(k / memory), ``memory`` being a half-life in images of the cell. So the mean of a rare group is as
    exact as that of a common one, reaches further back, and does not fade while the group is absent.
    """
    new = torch.bincount(cells, minlength=table.shape[1]).double()
    sums = torch.bincount(cells, values, table.shape[1])
    return table * 0.5 ** (new / memory) + torch.stack([sums, new])


def means(table: Tensor, minimum: float = 0.5) -> Tensor:
    """The moving means [cells]; NaN where the effective count is below ``minimum``."""
    sums, counts = table
    return torch.where(counts >= minimum, sums / counts, torch.nan)


def strata_of(timesteps: Tensor, noise_levels: float, strata: int) -> Tensor:
    """Stratum of each timestep, int64 [B] on the CPU; ``noise_levels`` is the number of timesteps there are."""
    return timestep_strata(timesteps.detach().cpu(), noise_levels, strata)


def finite(losses: Tensor) -> Tensor:
    """The losses in float64 on the CPU; ``InputError`` when one is not finite, before it spoils a memory."""
    values = losses.detach().cpu().double()
    if not bool(values.isfinite().all()):
        problem = Problem("a loss is not finite: the training has diverged", "lower the learning rate")
        raise InputError("The mechanism cannot learn from this batch.", [problem])
    return values
