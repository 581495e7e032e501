"""Group distributionally robust optimisation: weight moves to the groups with the larger loss."""

from __future__ import annotations

import torch
from torch import Tensor

from equigen.equity import running_means
from equigen.equity.base import CountedRule
from equigen.equity.group_counts import Census, bounded
from equigen.equity.groups import Groups
from equigen.equity.reweight import balancing_factors
from equigen.equity.state import check_choice, check_numbers

STARTS = ("uniform", "frequency")
COMBINE = ("mean", "product")


class GroupDRO(CountedRule):
    """Exponentiated weights on group losses (Sagawa, Koh, Hashimoto and Liang, ICLR 2020, algorithm 1).

    Each attribute has a simplex q of its own over its groups; pi_g is a group's share of the training images
    whose group is known. For each batch, in this order,

        e_i = (l_i - m_{s(i)}) / m                               what noise level s does not explain
        log q_g += eta sum_{i in g} (e_i + C / sqrt(n_g)) / pi_g      then q is normalised
        v_g = q_g / pi_g,  w_i = mean_a v_{a,g}                  or their product

    so that the expected loss mean_i(w_i l_i) over the training stream is sum_g q_g mean(l : g), the robust
    objective, without group means of the batch, and the expected weight is 1.

    **Noise levels.** m_s is the moving mean loss of timestep stratum s (``strata`` of equal width), m the mean
    of them. Without it q would follow which group happened to draw the hard timesteps. Taking m_s away changes
    no difference between groups' expected losses, for all groups draw their timesteps alike; dividing by m
    makes eta mean the same early and late in training, as losses fall several times over.

    **Images.** ``eta`` is per image: a group whose loss is 10 % above the others for 10 000 images gains a
    factor of exp(eta 1000). The sum over the group's images divided by pi_g is, in expectation, the number of
    images times the group's mean excess, whatever the batch size; an absent group adds nothing to its own
    log q. The noise in log q grows as 1 / sqrt(pi_g).

    **Bounds.** v_g stays within ``min_weight`` and ``max_weight`` (mean 1 kept), and log q is put back to
    where that leaves it, so a group is never dropped, and can come back as fast as it went. Without it q ends
    on the group whose images are the hardest to denoise, however well they are learned.

    **Settings.** ``start``: "uniform" (the paper's code: begin as `reweight`) or "frequency" (begin as
    `none`). ``adjustment``: C of the paper's generalisation adjustment, in units of the mean
    loss, n_g being the group's training images; 0 is none. ``combine``: "mean" (the objective is the mean over
    the attributes) or "product" (a stronger lever). ``memory``: half-life of m_s, in images of the stratum.
    ``noise_levels``: how many timesteps there are. An unknown group has v = 1.
    """

    name = "group_dro"
    nonnegative = True

    def __init__(self, groups: Groups, seed: int, *, eta: float = 3e-4, adjustment: float = 0.0,
                 start: str = "uniform", combine: str = "mean", min_weight: float = 0.1, max_weight: float = 10.0,
                 strata: int = 20, memory: float = 300.0, noise_levels: float = 1000) -> None:
        check_choice(self.name, "start", start, STARTS)
        check_choice(self.name, "combine", combine, COMBINE)
        check_numbers(self.name, {
            "eta": (eta, 0, 10, False), "adjustment": (adjustment, 0, 1e6, False),
            "min_weight": (min_weight, 1e-6, 1, False), "max_weight": (max_weight, 1, 1e6, False),
            "strata": (strata, 1, 1000, True), "memory": (memory, 1, 1e9, False),
            "noise_levels": (noise_levels, 1e-6, 1e9, False),
        })
        super().__init__(groups, seed, {
            "eta": float(eta), "adjustment": float(adjustment), "start": start, "combine": combine,
            "min_weight": float(min_weight), "max_weight": float(max_weight), "strata": strata,
            "memory": float(memory), "noise_levels": float(noise_levels),
        })
        self.eta, self.adjustment, self.start, self.combine = float(eta), float(adjustment), start, combine
        self.bounds = float(min_weight), float(max_weight)
        self.strata, self.half_life, self.noise_levels = strata, float(memory), float(noise_levels)
        self.memory |= {
            "log_factors": torch.zeros(len(groups), dtype=torch.float64),  # log v_g, [K]
            "strata": running_means.empty(strata),
        }

    def begin(self, census: Census) -> None:
        """Where q starts."""
        if self.start == "uniform":
            self.memory["log_factors"] = within(balancing_factors(census).log(), census, *self.bounds)

    def weights(self, losses: Tensor, groups: Tensor, timesteps: Tensor, images_seen: int) -> Tensor:
        """w_i [B], positive, after q has learned from this batch."""
        self.groups.check(groups, len(losses))
        index, cells = groups.cpu().long(), self.census.find(groups)
        excess = self._excess(running_means.finite(losses), timesteps)
        step = self.eta * self._pull(index, excess)
        self.memory["log_factors"] = within(self.memory["log_factors"] + step, self.census, *self.bounds)
        return self.cell_weights()[cells].to(losses)

    def _excess(self, losses: Tensor, timesteps: Tensor) -> Tensor:
        """e_i [B]; the strata's means take in the batch first, so a first image of a stratum says nothing."""
        strata = running_means.strata_of(timesteps, self.noise_levels, self.strata)
        self.memory["strata"] = running_means.moved(self.memory["strata"], strata, losses, self.half_life)
        expected = running_means.means(self.memory["strata"])
        return (losses - expected[strata]) / expected.nanmean().clamp_min(1e-12)

    def _pull(self, index: Tensor, excess: Tensor) -> Tensor:
        """sum_{i in g} (e_i + C / sqrt(n_g)) / pi_g for each group, [K]; 0 for an absent one."""
        sums, counts = torch.zeros_like(self.census.shares), torch.zeros_like(self.census.shares)
        for column, part in enumerate(self.groups.slices.values()):
            known = index[:, column] >= 0
            levels = part.stop - part.start
            sums[part] = torch.bincount(index[known, column], excess[known], levels)
            counts[part] = torch.bincount(index[known, column], minlength=levels).double()
        bonus = counts * self.adjustment / self.census.group_counts.clamp_min(1.0).sqrt()
        return torch.where(counts > 0, (sums + bonus) / self.census.shares, 0.0)

    def cell_weights(self) -> Tensor:
        """The weight of each cell of the census now, float64 [M]."""
        return self.census.combine(self.memory["log_factors"].exp(), self.combine, *self.bounds)


def within(logs: Tensor, census: Census, low: float, high: float) -> Tensor:
    """Log factors [..., K] moved, attribute by attribute, to a mean factor of 1 over the shares, within bounds.

    Groups without training images have factor 1.
    """
    result = torch.zeros_like(logs)
    for part in census.groups.slices.values():
        there = census.shares[part] > 0
        values = logs[..., part][..., there]
        if values.shape[-1]:
            # exp(-600) is no number too small to divide by, and far below any bound.
            relative = (values - values.amax(-1, keepdim=True)).clamp_min(-600).exp()
            result[..., part][..., there] = bounded(relative, census.shares[part][there], low, high).log()
    return result
