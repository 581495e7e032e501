"""The worst group of each noise level gets more weight at that noise level."""

from __future__ import annotations

import torch
from torch import Tensor

from equigen.equity import running_means
from equigen.equity.base import CountedRule
from equigen.equity.group_dro import COMBINE, within
from equigen.equity.groups import Groups
from equigen.equity.state import check_choice, check_numbers


class MinMaxNoise(CountedRule):
    """Worst group per noise level from moving group losses: our reading of EGT (arXiv 2602.08660).

    All that could be had of that work is the sentence in METHODS section 3, so the formulas are ours. Timesteps
    fall into ``strata`` of equal width. For stratum s and group g of an attribute,

        x_{s,g} = moving mean over the group's images at s of (l_i - m_s) / m_s
        v_{s,g} = exp(x_{s,g} / temperature) / sum_h pi_h exp(x_{s,h} / temperature)
        w_i     = mean_a v_{s(i), a, g_{a,i}}                      or their product

    m_s being the moving mean loss of the stratum and pi_g the group's share of the training images whose group
    is known. The expected weight is 1 at each noise level, so the balance between noise levels is left alone:
    only groups are traded, where a group is behind. Temperature to 0 is the worst group alone, to infinity
    plain training.

    **Moving means** are relative to the stratum at the time (losses fall; an old loss of a rare group would
    look bad for its age) and count in images of the cell, ``memory`` being the half-life: all cells are as
    exact as each other, for the worst of unequally noisy numbers is the noisiest. Batch size plays no part. A
    cell with fewer than ``minimum`` images counts as average (x = 0), neither worst nor best.

    **Settings.** ``temperature`` in relative loss: 0.1 gives a group that is 10 % worse e times the weight. v
    stays within ``min_weight`` and ``max_weight``, the mean kept. ``combine``: "mean" or "product".
    ``noise_levels``: how many timesteps there are. An unknown group has v = 1.
    """

    name = "minmax_noise"

    def __init__(self, groups: Groups, seed: int, *, temperature: float = 0.1, strata: int = 10,
                 memory: float = 300.0, minimum: int = 30, combine: str = "mean", min_weight: float = 0.1,
                 max_weight: float = 10.0, noise_levels: float = 1000) -> None:
        check_choice(self.name, "combine", combine, COMBINE)
        check_numbers(self.name, {
            "temperature": (temperature, 1e-4, 1e6, False), "strata": (strata, 1, 1000, True),
            "memory": (memory, 1, 1e9, False), "minimum": (minimum, 1, 1e9, True),
            "min_weight": (min_weight, 1e-6, 1, False), "max_weight": (max_weight, 1, 1e6, False),
            "noise_levels": (noise_levels, 1e-6, 1e9, False),
        })
        super().__init__(groups, seed, {
            "temperature": float(temperature), "strata": strata, "memory": float(memory), "minimum": minimum,
            "combine": combine, "min_weight": float(min_weight), "max_weight": float(max_weight),
            "noise_levels": float(noise_levels),
        })
        self.temperature, self.strata, self.half_life = float(temperature), strata, float(memory)
        self.minimum, self.combine, self.noise_levels = minimum, combine, float(noise_levels)
        self.bounds = float(min_weight), float(max_weight)
        self.memory |= {
            "strata": running_means.empty(strata),
            "excess": running_means.empty(strata * len(groups)),  # cell s * K + g
        }

    def weights(self, losses: Tensor, groups: Tensor, timesteps: Tensor, images_seen: int) -> Tensor:
        """w_i [B], positive, after the moving means have taken in this batch."""
        self.groups.check(groups, len(losses))
        cells = self.census.find(groups)
        strata = running_means.strata_of(timesteps, self.noise_levels, self.strata)
        self._learn(groups.cpu().long(), strata, running_means.finite(losses))
        return self.table()[strata, cells].to(losses)

    def _learn(self, index: Tensor, strata: Tensor, losses: Tensor) -> None:
        self.memory["strata"] = running_means.moved(self.memory["strata"], strata, losses, self.half_life)
        expected = running_means.means(self.memory["strata"])[strata]
        excess = (losses - expected) / expected.clamp_min(1e-12)
        starts = torch.tensor([part.start for part in self.groups.slices.values()])
        row, column = (index >= 0).nonzero(as_tuple=True)  # each image once for each of its known groups
        cells = strata[row] * len(self.groups) + starts[column] + index[row, column]
        self.memory["excess"] = running_means.moved(self.memory["excess"], cells, excess[row], self.half_life)

    @property
    def excess(self) -> Tensor:
        """x_{s,g} [S, K]: moving relative excess loss; 0 where it is not known yet."""
        return running_means.means(self.memory["excess"], self.minimum).nan_to_num(0.0).view(self.strata, -1)

    def table(self) -> Tensor:
        """The weight of each cell of the census at each noise level, float64 [S, M]."""
        factors = within(self.excess / self.temperature, self.census, *self.bounds).exp()
        return self.census.combine(factors, self.combine, *self.bounds)

    def cell_weights(self) -> Tensor:
        """The mean weight over the noise levels of each cell of the census, float64 [M]."""
        return self.table().mean(0)
