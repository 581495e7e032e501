"""A training stream that is balanced over the groups."""

from __future__ import annotations

from torch import Tensor

from equigen.equity.base import CountedRule
from equigen.equity.groups import Groups
from equigen.equity.reweight import COMBINE, inverse_frequency
from equigen.equity.state import check_choice, check_numbers


class Balanced(CountedRule):
    """Images are drawn with replacement, each with a chance inversely proportional to its groups' frequency.

    Every image weighs 1 in the loss. The chances are those of `reweight` (see there for ``combine`` and for
    unknown groups): the two have the same expected gradient, but a rare group is seen often here and weighs
    much there, so this one has calmer gradients and repeats its images. ``max_weight`` is the most times an
    image is drawn for one time in the uniform stream: a bound on how much a rare group is learned by heart.
    """

    name = "balanced"
    uses_losses = False

    def __init__(self, groups: Groups, seed: int, *, combine: str = "joint", max_weight: float = 10.0) -> None:
        check_choice(self.name, "combine", combine, COMBINE)
        check_numbers(self.name, {"max_weight": (max_weight, 1, 1e6, False)})
        super().__init__(groups, seed, {"combine": combine, "max_weight": float(max_weight)})
        self.combine, self.max_weight = combine, float(max_weight)

    def sampling_weights(self, groups: Tensor) -> Tensor | None:
        """Count the training images [N, A]; how often each is drawn relative to the uniform stream, [N], mean 1."""
        super().sampling_weights(groups)
        return self.cell_weights()[self.census.find(groups)]

    def cell_weights(self) -> Tensor:
        """How often an image of each cell is drawn relative to the uniform stream, float64 [M].

        The records give it as ``weight/<attribute>/<group>``: what an image of the group counts for in training.
        """
        return inverse_frequency(self.census, self.combine, self.max_weight)
