"""Weights by the relative loss of each group at each noise level."""

from __future__ import annotations

import torch
from torch import Tensor

from equigen.equity import running_means
from equigen.equity.base import CensusMechanism
from equigen.equity.group_dro import COMBINE, bound_factors
from equigen.equity.groups import Groups
from equigen.equity.state import check_choice, check_numbers


class MinMaxNoise(CensusMechanism):
    """Worst group per noise level from moving group losses: our reading of EGT (arXiv 2602.08660).

    The formulas are ours, from the description in METHODS section 3. Timesteps fall into ``strata`` of equal
    width. For stratum s and group g of an attribute,

        x_{s,g} = moving mean over the group's images at s of (l_i - m_s) / m_s
        v_{s,g} = exp(x_{s,g} / temperature) / sum_h pi_h exp(x_{s,h} / temperature)
        w_i     = mean_a v_{s(i), a, g_{a,i}}                      or their product

    m_s being the moving mean loss of the stratum and pi_g the group's share of the training images whose group
    is known. The expected weight is 1 at each noise level, so the balance between noise levels does not change.
    Temperature to 0 is the worst group alone, to infinity plain training.

    **Moving means** are relative to the stratum at the time, since losses fall during training, and count in
    images of the cell, with half-life ``memory``: all cells have the same precision, since otherwise the worst
    group would be the noisiest one. Batch size plays no part. A cell with fewer than ``minimum`` images counts
    as average (x = 0).

    **Settings.** ``temperature`` in relative loss: 0.1 gives a group that is 10 % worse e times the weight. v
    stays within ``min_weight`` and ``max_weight``, the mean kept. ``combine``: "mean" or "product".
    ``noise_levels``: how many timesteps there are. An unknown group has v = 1.
    """

    name = "minmax_noise"

    def __init__(
        self,
        groups: Groups,
        seed: int,
        *,
        temperature: float = 0.1,
        strata: int = 10,
        memory: float = 300.0,
        minimum: int = 30,
        combine: str = "mean",
        min_weight: float = 0.1,
        max_weight: float = 10.0,
        noise_levels: float = 1000,
    ) -> None:
        check_choice(self.name, "combine", combine, COMBINE)
        check_numbers(
            self.name,
            {
                "temperature": (temperature, 1e-4, 1e6, False),
                "strata": (strata, 1, 1000, True),
                "memory": (memory, 1, 1e9, False),
                "minimum": (minimum, 1, 1e9, True),
                "min_weight": (min_weight, 1e-6, 1, False),
                "max_weight": (max_weight, 1, 1e6, False),
                "noise_levels": (noise_levels, 1e-6, 1e9, False),
            },
        )
        super().__init__(
            groups,
            seed,
            {
                "temperature": float(temperature),
                "strata": strata,
                "memory": float(memory),
                "minimum": minimum,
                "combine": combine,
                "min_weight": float(min_weight),
                "max_weight": float(max_weight),
                "noise_levels": float(noise_levels),
            },
        )
        self.temperature, self.strata, self.half_life = float(temperature), strata, float(memory)
        self.minimum, self.combine, self.noise_levels = minimum, combine, float(noise_levels)
        self.bounds = float(min_weight), float(max_weight)
        self.memory |= {
            "strata": running_means.empty_means(strata),
            "excess": running_means.empty_means(strata * len(groups)),  # cell s * K + g
        }

    def weights(self, losses: Tensor, groups: Tensor, timesteps: Tensor, images_seen: int) -> Tensor:
        """Return w_i [B], positive, after the update of the moving means by this batch."""
        self.groups.check(groups, len(losses))
        cells = self.census.find(groups)
        strata = running_means.stratum_index(timesteps, self.noise_levels, self.strata)
        self._update_excess(groups.cpu().long(), strata, running_means.check_losses(losses))
        return self.table()[strata, cells].to(losses)

    def _update_excess(self, index: Tensor, strata: Tensor, losses: Tensor) -> None:
        self.memory["strata"] = running_means.update_means(self.memory["strata"], strata, losses, self.half_life)
        expected = running_means.means(self.memory["strata"])[strata]
        excess = (losses - expected) / expected.clamp_min(1e-12)
        starts = torch.tensor([columns.start for columns in self.groups.slices.values()])
        row, column = (index >= 0).nonzero(as_tuple=True)  # each image once for each of its known groups
        cells = strata[row] * len(self.groups) + starts[column] + index[row, column]
        self.memory["excess"] = running_means.update_means(self.memory["excess"], cells, excess[row], self.half_life)

    @property
    def excess(self) -> Tensor:
        """x_{s,g} [S, K]: moving relative excess loss; 0 where it is not known yet."""
        return running_means.means(self.memory["excess"], self.minimum).nan_to_num(0.0).view(self.strata, -1)

    def table(self) -> Tensor:
        """Return the weight of each cell of the census at each noise level, float64 [S, M]."""
        factors = bound_factors(self.excess / self.temperature, self.census, *self.bounds).exp()
        return self.census.combine(factors, self.combine, *self.bounds)

    def cell_weights(self) -> Tensor:
        """Return the mean weight over the noise levels of each cell of the census, float64 [M]."""
        return self.table().mean(0)
