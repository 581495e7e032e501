"""Counts of each combination of groups in the training set, and weights with mean 1 over it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from equigen.equity.groups import Groups
from equigen.errors import InputError, Problem


@dataclass(frozen=True)
class Census:
    """The M cells (combinations of groups, unknown ones included) that occur among the training images.

    ``cells`` int64 [M, A]: the group index of each cell, rows sorted; ``counts`` int64 [M]: its images.
    """

    groups: Groups
    cells: Tensor
    counts: Tensor

    @classmethod
    def from_index(cls, groups: Groups, index: Tensor) -> Census:
        """Count the group index [N, A] of all training images; raises ``InputError`` for none, or too many cells."""
        index = index.detach().cpu()
        groups.check(index, len(index))
        if not len(index):
            raise InputError("There is nothing to count.", [Problem("no training images", "mend the split")])
        if math.prod(len(levels) + 1 for _, levels in groups.names) >= 2**63:
            problem = Problem("more combinations of groups than 63 bits can number", "name fewer attributes")
            raise InputError("The groups cannot be counted.", [problem])
        codes, counts = torch.unique(_codes(groups, index.long()), return_counts=True)  # whole rows would take seconds
        return cls(groups, _rows(groups, codes), counts)

    def equals(self, census: Census) -> bool:
        """Return whether both have the same cells and counts."""
        return torch.equal(self.cells, census.cells) and torch.equal(self.counts, census.counts)

    @cached_property
    def group_counts(self) -> Tensor:
        """n_g: training images of each group, float64 [K]."""
        return self._group_sums(self.counts.double())

    @cached_property
    def shares(self) -> Tensor:
        """pi_g: the group's share of the images whose group is known, float64 [K]; 0 for a group without images."""
        totals = torch.zeros_like(self.group_counts)
        for columns in self.groups.slices.values():
            totals[columns] = self.group_counts[columns].sum()
        return self.group_counts / totals.clamp_min(1.0)

    @cached_property
    def patterns(self) -> list[Tensor]:
        """The cells, by which attributes are known: one int64 vector of rows for each pattern."""
        _, pattern_index = torch.unique(self.cells >= 0, dim=0, return_inverse=True)
        return [(pattern_index == pattern).nonzero().squeeze(1) for pattern in range(int(pattern_index.max()) + 1)]

    def find(self, index: Tensor) -> Tensor:
        """Return the cell of each image, [B, A] -> int64 [B]; raises ``InputError`` where it has no training image."""
        codes, image_codes = _codes(self.groups, self.cells), _codes(self.groups, index.cpu().long())
        rows = torch.searchsorted(codes, image_codes).clamp_max(len(codes) - 1)
        strange = codes[rows] != image_codes
        if bool(strange.any()):
            row = index.cpu()[int(strange.nonzero()[0])].tolist()
            problem = Problem(f"no training image has the groups {row}", "weigh images of the training set only")
            raise InputError("These images are not of the training set.", [problem])
        return rows

    def cell_values(self, values: Tensor) -> Tensor:
        """Return the values of each cell's groups: [..., K] -> [..., M, A], 1 where unknown."""
        starts = torch.tensor([columns.start for columns in self.groups.slices.values()])
        flat = torch.where(self.cells < 0, len(self.groups), self.cells + starts)
        return torch.cat([values, torch.ones_like(values[..., :1])], -1)[..., flat]

    def combine(self, factors: Tensor, rule: str, low: float, high: float) -> Tensor:
        """Return weights of the cells from a factor per group: [..., K] -> [..., M]; ``rule``: "mean" or "product".

        An unknown group has factor 1; the result is normalised.
        """
        spread = self.cell_values(factors)
        return self.normalise(spread.mean(-1) if rule == "mean" else spread.prod(-1), low, high)

    def normalise(self, weights: Tensor, low: float, high: float) -> Tensor:
        """Return weights [..., M] within [low, high] whose mean over the training images is 1.

        The mean is 1 within each pattern of known attributes. So images of which something is unknown keep
        the share of training that they have, and images of which nothing is known weigh 1.
        """
        result = torch.empty_like(weights)
        for rows in self.patterns:
            counts = self.counts[rows].double()
            result[..., rows] = bound_weights(weights[..., rows], counts / counts.sum(), low, high)
        return result

    def group_means(self, weights: Tensor) -> Tensor:
        """Return the mean of the cells' weights [M] over the training images of each group, [K]; NaN without images."""
        return self._group_sums(weights * self.counts) / self.group_counts

    def _group_sums(self, values: Tensor) -> Tensor:
        sums = torch.zeros(len(self.groups), dtype=torch.float64)
        for column, columns in enumerate(self.groups.slices.values()):
            mask = self.cells[:, column] >= 0
            sums[columns] = torch.bincount(self.cells[mask, column], values[mask], columns.stop - columns.start)
        return sums


def _codes(groups: Groups, cells: Tensor) -> Tensor:
    """Return one number for each cell, [M, A] -> [M], in the order of sorted rows."""
    codes = torch.zeros(len(cells), dtype=torch.int64)
    for column, (_, levels) in enumerate(groups.names):
        codes = codes * (len(levels) + 1) + cells[:, column] + 1
    return codes


def _rows(groups: Groups, codes: Tensor) -> Tensor:
    """Return the cells [M, A] of numbers [M]."""
    cells = torch.zeros(len(codes), len(groups.names), dtype=torch.int64)
    for column, (_, levels) in reversed(list(enumerate(groups.names))):
        cells[:, column] = codes % (len(levels) + 1) - 1
        codes = codes // (len(levels) + 1)
    return cells


def bound_weights(weights: Tensor, shares: Tensor, low: float, high: float) -> Tensor:
    """Return clamp(c w_m, low, high), with the c for which sum_m share_m clamp(c w_m, low, high) = 1.

    The excess over a bound is shared out among the weights within the bounds, in proportion, so the mean stays 1.
    The sum is piecewise linear in c and rises from ``low`` to ``high``: the piece is found by bisection, c
    by interpolation.

    weights  [..., M], positive and finite      shares  [M], sum 1      0 <= low <= 1 <= high
    """
    plain = weights / (weights @ shares).unsqueeze(-1)
    if bool(((plain >= low) & (plain <= high)).all()):
        return plain
    breaks = torch.cat([low / weights, high / weights], -1).sort(-1).values
    first = torch.zeros(weights.shape[:-1], dtype=torch.int64)
    last = torch.full_like(first, breaks.shape[-1] - 1)

    def at(position: Tensor) -> tuple[Tensor, Tensor]:
        c = breaks.gather(-1, position.unsqueeze(-1))
        return c, (c * weights).clamp(low, high) @ shares.unsqueeze(-1)

    for _ in range(breaks.shape[-1].bit_length()):
        middle = (first + last) // 2
        too_much = at(middle)[1].squeeze(-1) >= 1
        first, last = torch.where(too_much, first, middle), torch.where(too_much, middle, last)
    (c_low, sum_low), (c_high, sum_high) = at(first), at(last)
    rise = sum_high - sum_low
    fraction = torch.where(rise > 0, (1 - sum_low) / rise, torch.zeros_like(rise))
    return ((c_low + fraction * (c_high - c_low)) * weights).clamp(low, high)
