"""Weights by inverse group frequency."""

from __future__ import annotations

import torch
from torch import Tensor

from equigen.equity.base import CensusMechanism
from equigen.equity.group_counts import Census
from equigen.equity.groups import Groups
from equigen.equity.state import check_choice, check_numbers

COMBINE = ("joint", "product", "mean")


class Reweight(CensusMechanism):
    """Weights w_i inversely proportional to the frequency of the image's groups among the training images.

    With n images, G_a groups of attribute a that occur, and pi_{a,g} the share of group g of those whose
    group is known, ``combine`` is the rule for several attributes:

    - "joint" (default): w_i ~ 1 / n_cell. Every combination of groups weighs the same in total: the weights'
      form of `balanced`, and of the plan of that name (METHODS section 4).
    - "product": w_i ~ prod_a 1 / (G_a pi_{a,g}). The same when attributes are independent, less extreme when
      some combinations are rare.
    - "mean": w_i ~ mean_a 1 / (G_a pi_{a,g}). The least extreme: each attribute is balanced in its share 1/A only.

    The mean weight over the training set is 1, within each pattern of known attributes: images whose age is
    unknown are balanced over their known attributes, among themselves, and keep their share of training;
    images without any known attribute weigh 1.

    ``max_weight`` bounds a weight, so that few images of a rare combination do not dominate gradients and are
    not memorised. The excess is shared out among the others in proportion, so the mean stays 1. Where the bound
    applies, groups are no longer balanced: the weights that are used are in the records.
    """

    name = "reweight"
    nonnegative = True
    uses_losses = False

    def __init__(self, groups: Groups, seed: int, *, combine: str = "joint", max_weight: float = 10.0) -> None:
        check_choice(self.name, "combine", combine, COMBINE)
        check_numbers(self.name, {"max_weight": (max_weight, 1, 1e6, False)})
        super().__init__(groups, seed, {"combine": combine, "max_weight": float(max_weight)})
        self.combine, self.max_weight = combine, float(max_weight)
        self._cell_weights = torch.zeros(0, dtype=torch.float64)

    def initialise(self, census: Census) -> None:
        """Compute the weights of the cells."""
        self._cell_weights = inverse_frequency(census, self.combine, self.max_weight)

    def weights(self, losses: Tensor, groups: Tensor, timesteps: Tensor, images_seen: int) -> Tensor:
        """Return w_i [B], positive, a function of the image's groups alone."""
        self.groups.check(groups, len(losses))
        cells = self.census.find(groups)
        return self._cell_weights[cells].to(losses)

    def cell_weights(self) -> Tensor:
        """Return the weight of each cell of the census, float64 [M]."""
        return self._cell_weights


def inverse_frequency(census: Census, combine: str, max_weight: float) -> Tensor:
    """Return the inverse frequency of each cell, [M], at most ``max_weight`` and with mean 1 over training images."""
    if combine == "joint":
        return census.normalise(1 / census.counts.double(), 0.0, max_weight)
    return census.combine(balancing_factors(census), combine, 0.0, max_weight)


def balancing_factors(census: Census) -> Tensor:
    """Return 1 / (G_a pi_{a,g}) for each group, [K]: balanced within its attribute; 1 for a group without images."""
    factors = torch.ones_like(census.shares)
    for columns in census.groups.slices.values():
        shares = census.shares[columns]
        present = shares > 0
        factors[columns] = torch.where(present, 1 / (present.sum() * shares), factors[columns])
    return factors
