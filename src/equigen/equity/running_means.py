"""Moving means of losses at each noise level, to which the losses of images are compared.

A denoising loss depends on the timestep far more than on the group: over a batch at random timesteps the
difference between two groups' mean losses is mostly a difference between their timesteps (METHODS section 2,
defect 4). Mechanisms that learn from training batches therefore compare images with others of the same noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from equigen.equity.monitor import timestep_strata
from equigen.errors import InputError, Problem


def empty_means(cells: int) -> Tensor:
    """Return an empty table [2, cells] of moving means: row 0 sums, row 1 effective counts."""
    return torch.zeros(2, cells, dtype=torch.float64)


def update_means(table: Tensor, cells: Tensor, values: Tensor, memory: float) -> Tensor:
    """Return the table updated by values [n] of cells [n]; a cell without a new value does not change.

    Each cell counts its own images: with k new ones its sum and its count are first multiplied by
    0.5^(k / memory), ``memory`` being a half-life in images of the cell. So the mean of a rare group is as
    exact as that of a common one, reaches further back, and does not fade while the group is absent.
    """
    new = torch.bincount(cells, minlength=table.shape[1]).double()
    sums = torch.bincount(cells, values, table.shape[1])
    return table * 0.5 ** (new / memory) + torch.stack([sums, new])


def means(table: Tensor, minimum: float = 0.5) -> Tensor:
    """Return the moving means [cells]; NaN where the effective count is below ``minimum``."""
    sums, counts = table
    return torch.where(counts >= minimum, sums / counts, torch.nan)


def stratum_index(timesteps: Tensor, noise_levels: float, strata: int) -> Tensor:
    """Return the stratum of each timestep, int64 [B] on the CPU; ``noise_levels`` is the number of timesteps."""
    return timestep_strata(timesteps.detach().cpu(), noise_levels, strata)


def check_losses(losses: Tensor) -> Tensor:
    """Return the losses in float64 on the CPU; raises ``InputError`` when one is not finite."""
    values = losses.detach().cpu().double()
    if not bool(values.isfinite().all()):
        problem = Problem("a loss is not finite: the training has diverged", "lower the learning rate")
        raise InputError("The mechanism cannot learn from this batch.", [problem])
    return values
