"""A training stream that is balanced over the groups."""

from __future__ import annotations

from torch import Tensor

from equigen.equity.base import CensusMechanism
from equigen.equity.groups import Groups
from equigen.equity.reweight import COMBINE, inverse_frequency
from equigen.equity.state import check_choice, check_numbers


class Balanced(CensusMechanism):
    """Images are drawn with replacement, each with a chance inversely proportional to its groups' frequency.

    Every image weighs 1 in the loss. The chances are those of `reweight` (see there for ``combine`` and for
    unknown groups): the two have the same expected gradient, but a rare group is drawn often here and weighs
    much there, so this one has gradients of less variance and repeats images. ``max_weight`` is the largest
    ratio of an image's chance to that of the uniform stream: a bound on memorisation of rare groups.
    """

    name = "balanced"
    uses_losses = False

    def __init__(self, groups: Groups, seed: int, *, combine: str = "joint", max_weight: float = 10.0) -> None:
        check_choice(self.name, "combine", combine, COMBINE)
        check_numbers(self.name, {"max_weight": (max_weight, 1, 1e6, False)})
        super().__init__(groups, seed, {"combine": combine, "max_weight": float(max_weight)})
        self.combine, self.max_weight = combine, float(max_weight)

    def sampling_weights(self, groups: Tensor) -> Tensor | None:
        """Count the training images [N, A]; returns each one's chance relative to the uniform stream, [N], mean 1."""
        super().sampling_weights(groups)
        return self.cell_weights()[self.census.find(groups)]

    def cell_weights(self) -> Tensor:
        """Return the chance of an image of each cell relative to the uniform stream, float64 [M].

        It is recorded as ``weight/<attribute>/<group>``.
        """
        return inverse_frequency(self.census, self.combine, self.max_weight)
