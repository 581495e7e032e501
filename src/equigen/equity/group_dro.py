"""Group distributionally robust optimisation: the weights of groups with larger losses grow."""

from __future__ import annotations

import torch
from torch import Tensor

from equigen.equity import running_means
from equigen.equity.base import CensusMechanism
from equigen.equity.group_counts import Census, bound_weights
from equigen.equity.groups import Groups
from equigen.equity.reweight import balancing_factors
from equigen.equity.state import check_choice, check_numbers

STARTS = ("uniform", "frequency")
COMBINE = ("mean", "product")


class GroupDRO(CensusMechanism):
    """Exponentiated weights on group losses (Sagawa, Koh, Hashimoto and Liang, ICLR 2020, algorithm 1).

    Each attribute has a simplex q of its own over its groups; pi_g is a group's share of the training images
    whose group is known. For each batch, in this order,

        e_i = (l_i - m_{s(i)}) / m                               excess over the mean of noise level s
        log q_g += eta sum_{i in g} (e_i + C / sqrt(n_g)) / pi_g      then q is normalised
        v_g = q_g / pi_g,  w_i = mean_a v_{a,g}                  or their product

    so that the expected loss mean_i(w_i l_i) over the training stream is sum_g q_g mean(l : g), the robust
    objective, without group means of the batch, and the expected weight is 1.

    **Noise levels.** m_s is the moving mean loss of timestep stratum s (``strata`` of equal width), m the mean
    of them. Without it q would follow the groups that happened to draw the hard timesteps. Subtracting m_s changes
    no difference between groups' expected losses, since all groups draw their timesteps alike; dividing by m keeps
    the scale of eta as losses fall during training.

    **Images.** ``eta`` is per image: a group whose loss is 10 % above the others for 10 000 images gains a
    factor of exp(eta 1000). The sum over the group's images divided by pi_g is, in expectation, the number of
    images times the group's mean excess, whatever the batch size; an absent group adds nothing to its own
    log q. The noise in log q grows as 1 / sqrt(pi_g).

    **Bounds.** v_g stays within ``min_weight`` and ``max_weight`` with mean 1, and log q is set to the bounded
    values, so a group's weight neither vanishes nor takes long to grow again. Without bounds q would concentrate on
    the group whose images are the hardest to denoise, however well they are learned.

    **Settings.** ``start``: "uniform" (the paper's code: begin as `reweight`) or "frequency" (begin as
    `none`). ``adjustment``: C of the paper's generalisation adjustment, in units of the mean
    loss, n_g being the group's training images; 0 is none. ``combine``: "mean" (the objective is the mean over
    the attributes) or "product" (a stronger lever). ``memory``: half-life of m_s, in images of the stratum.
    ``noise_levels``: how many timesteps there are. An unknown group has v = 1.
    """

    name = "group_dro"
    nonnegative = True

    def __init__(
        self,
        groups: Groups,
        seed: int,
        *,
        eta: float = 3e-4,
        adjustment: float = 0.0,
        start: str = "uniform",
        combine: str = "mean",
        min_weight: float = 0.1,
        max_weight: float = 10.0,
        strata: int = 20,
        memory: float = 300.0,
        noise_levels: float = 1000,
    ) -> None:
        check_choice(self.name, "start", start, STARTS)
        check_choice(self.name, "combine", combine, COMBINE)
        check_numbers(
            self.name,
            {
                "eta": (eta, 0, 10, False),
                "adjustment": (adjustment, 0, 1e6, False),
                "min_weight": (min_weight, 1e-6, 1, False),
                "max_weight": (max_weight, 1, 1e6, False),
                "strata": (strata, 1, 1000, True),
                "memory": (memory, 1, 1e9, False),
                "noise_levels": (noise_levels, 1e-6, 1e9, False),
            },
        )
        super().__init__(
            groups,
            seed,
            {
                "eta": float(eta),
                "adjustment": float(adjustment),
                "start": start,
                "combine": combine,
                "min_weight": float(min_weight),
                "max_weight": float(max_weight),
                "strata": strata,
                "memory": float(memory),
                "noise_levels": float(noise_levels),
            },
        )
        self.eta, self.adjustment, self.start, self.combine = float(eta), float(adjustment), start, combine
        self.bounds = float(min_weight), float(max_weight)
        self.strata, self.half_life, self.noise_levels = strata, float(memory), float(noise_levels)
        self.memory |= {
            "log_factors": torch.zeros(len(groups), dtype=torch.float64),  # log v_g, [K]
            "strata": running_means.empty_means(strata),
        }

    def initialise(self, census: Census) -> None:
        """Set the first q."""
        if self.start == "uniform":
            self.memory["log_factors"] = bound_factors(balancing_factors(census).log(), census, *self.bounds)

    def weights(self, losses: Tensor, groups: Tensor, timesteps: Tensor, images_seen: int) -> Tensor:
        """Return w_i [B], positive, after the update of q by this batch."""
        self.groups.check(groups, len(losses))
        index, cells = groups.cpu().long(), self.census.find(groups)
        excess = self._excess(running_means.check_losses(losses), timesteps)
        step = self.eta * self._log_gradient(index, excess)
        self.memory["log_factors"] = bound_factors(self.memory["log_factors"] + step, self.census, *self.bounds)
        return self.cell_weights()[cells].to(losses)

    def _excess(self, losses: Tensor, timesteps: Tensor) -> Tensor:
        """Return e_i [B]; the strata's means are updated first, so the first image of a stratum has excess 0."""
        strata = running_means.stratum_index(timesteps, self.noise_levels, self.strata)
        self.memory["strata"] = running_means.update_means(self.memory["strata"], strata, losses, self.half_life)
        expected = running_means.means(self.memory["strata"])
        return (losses - expected[strata]) / expected.nanmean().clamp_min(1e-12)

    def _log_gradient(self, index: Tensor, excess: Tensor) -> Tensor:
        """Return sum_{i in g} (e_i + C / sqrt(n_g)) / pi_g for each group, [K]; 0 for an absent one."""
        sums, counts = torch.zeros_like(self.census.shares), torch.zeros_like(self.census.shares)
        for column, columns in enumerate(self.groups.slices.values()):
            mask = index[:, column] >= 0
            levels = columns.stop - columns.start
            sums[columns] = torch.bincount(index[mask, column], excess[mask], levels)
            counts[columns] = torch.bincount(index[mask, column], minlength=levels).double()
        bonus = counts * self.adjustment / self.census.group_counts.clamp_min(1.0).sqrt()
        return torch.where(counts > 0, (sums + bonus) / self.census.shares, 0.0)

    def cell_weights(self) -> Tensor:
        """Return the current weight of each cell of the census, float64 [M]."""
        return self.census.combine(self.memory["log_factors"].exp(), self.combine, *self.bounds)


def bound_factors(logs: Tensor, census: Census, low: float, high: float) -> Tensor:
    """Return log factors [..., K] rescaled, attribute by attribute, to mean factor 1 over the shares, within bounds.

    Groups without training images have factor 1.
    """
    result = torch.zeros_like(logs)
    for columns in census.groups.slices.values():
        present = census.shares[columns] > 0
        values = logs[..., columns][..., present]
        if values.shape[-1]:
            # exp(-600) is no number too small to divide by, and far below any bound.
            relative = (values - values.amax(-1, keepdim=True)).clamp_min(-600).exp()
            shares = census.shares[columns][present]
            result[..., columns][..., present] = bound_weights(relative, shares, low, high).log()
    return result
