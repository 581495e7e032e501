"""The mean loss of each group, and the gap between groups; an absent group has NaN, never zero."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from equigen.equity.groups import Groups
from equigen.errors import InputError, Problem


@dataclass(frozen=True)
class GroupLosses:
    """Mean denoising losses of the K groups of some images.

    ``table`` float64 [K, S]: mean loss per group and timestep stratum, NaN where there is no image;
    ``counts`` int64 [K]: images per group; ``strata`` float64 [S]: means over all images, those of unknown
    group included. Means over strata are taken last, so that every group is measured at the same noise levels.
    """

    groups: Groups
    table: Tensor
    counts: Tensor
    strata: Tensor

    @property
    def means(self) -> Tensor:
        """Mean loss of each group, float64 [K]: the mean of its strata means; NaN when one is unknown.

        A mean over the known strata only would compare groups at different noise levels.
        """
        return self.table.mean(1)

    @property
    def overall(self) -> float:
        """Mean loss of all images, the mean of the strata means."""
        return float(self.strata.mean())

    def is_measured(self, minimum: int = 1) -> Tensor:
        """Return which groups have a known mean of at least ``minimum`` images, bool [K]."""
        return (self.counts >= minimum) & ~self.means.isnan()

    def gaps(self, minimum: int = 1) -> dict[str, float]:
        """Return max_g - min_g of the measured groups' mean losses by attribute (METHODS section 2, one term of G).

        NaN where fewer than two groups are measured; an attribute of a single level has gap 0 once that level is
        measured.
        """
        measured, gaps = self.is_measured(minimum), {}
        for attribute, columns in self.groups.slices.items():
            means = self.means[columns][measured[columns]]
            comparable = len(means) >= min(2, columns.stop - columns.start)
            gaps[attribute] = float(means.max() - means.min()) if comparable else float("nan")
        return gaps

    def total_gap(self, minimum: int = 1) -> float:
        """Return G = sum_a gap_a (METHODS section 2); NaN when a gap is unknown, since fewer terms would look fair."""
        return sum(self.gaps(minimum).values())


def group_losses(
    losses: Tensor, index: Tensor, groups: Groups, *, strata: Tensor | None = None, n_strata: int = 1
) -> GroupLosses:
    """Return mean losses per group, by timestep stratum first.

    ``losses`` is [N, S], each image measured once in each of S strata (the fixed probe), or [N], each image
    measured once, in stratum ``strata`` [N] of ``n_strata`` (a training batch; no strata: one for all).
    ``index`` is the group index [N, A], -1 unknown. Computed on the CPU in float64. Raises ``InputError``
    for shapes that do not fit and for losses that are not finite: those mean a diverged training, not an
    unknown group.
    """
    index = index.cpu()
    groups.check(index, losses.shape[0])
    values, cells, n_strata = _rows(losses, strata, n_strata)
    bad = int((~values.isfinite()).sum())
    if bad:
        problem = Problem(f"{bad} of {values.numel()} losses are not finite", "lower the learning rate")
        raise InputError("The group losses cannot be measured: the training has diverged.", [problem])
    rows = index.repeat_interleave(values.numel() // max(len(index), 1), 0)  # one a measurement
    table = torch.full((len(groups), n_strata), torch.nan, dtype=torch.float64)
    counts = torch.zeros(len(groups), dtype=torch.int64)
    for column, columns in enumerate(groups.slices.values()):
        levels = columns.stop - columns.start
        table[columns] = _cell_means(values, rows[:, column], cells, levels, n_strata)
        counts[columns] = torch.bincount(index[index[:, column] >= 0, column], minlength=levels)
    everyone = _cell_means(values, torch.zeros_like(cells), cells, 1, n_strata)[0]
    return GroupLosses(groups, table, counts, everyone)


def timestep_strata(timesteps: Tensor, total: float, n_strata: int) -> Tensor:
    """Return the stratum 0 .. n_strata-1 of each timestep in [0, total): floor(t * S / T), strata of equal width."""
    return (timesteps.float() * n_strata / total).floor().long().clamp(0, n_strata - 1)


def _rows(losses: Tensor, strata: Tensor | None, n_strata: int) -> tuple[Tensor, Tensor, int]:
    """Return losses as float64 rows, one a measurement, with their strata."""
    values = losses.detach().cpu().double()
    if values.ndim == 2 and strata is None and values.shape[1]:
        return values.flatten(), torch.arange(values.shape[1]).repeat(values.shape[0]), values.shape[1]
    cells = torch.zeros(len(values), dtype=torch.int64) if strata is None else strata.cpu().long()
    n_strata = 1 if strata is None else n_strata
    fits = values.ndim == 1 and cells.shape == values.shape
    if not fits or (len(cells) and not 0 <= int(cells.min()) <= int(cells.max()) < n_strata):
        shapes = f"losses {tuple(values.shape)} and strata {tuple(cells.shape)} of {n_strata}"
        mend = "give [N, S] losses, or [N] losses with [N] strata in 0..n_strata-1"
        raise InputError("The group losses cannot be measured.", [Problem(f"{shapes} do not fit", mend)])
    return values, cells, n_strata


def _cell_means(values: Tensor, group: Tensor, cells: Tensor, levels: int, n_strata: int) -> Tensor:
    """Return means per group and stratum, [levels, n_strata]; NaN (0/0) for an empty cell."""
    mask = group >= 0
    cell = (group * n_strata + cells)[mask]
    sums = torch.bincount(cell, weights=values[mask], minlength=levels * n_strata)
    return (sums / torch.bincount(cell, minlength=levels * n_strata)).view(levels, n_strata)
