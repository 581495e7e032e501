"""Random weights: the ablation in which nothing is learned."""

from __future__ import annotations

import torch
from torch import Tensor

from equigen.equity.base import BaseMechanism
from equigen.equity.groups import Groups
from equigen.equity.noise import draw_noise, lognormal_weights, released_weights
from equigen.equity.state import check_choice

FORMS = {"released": released_weights, "lognormal": lognormal_weights}


class RandomWeights(BaseMechanism):
    """FairDiffusion's ablation: the noise of Fair Bayesian Perturbation with sigma = 1 for every group, always.

    ``form`` is "released" (the paper's, the default), w_i = 1 + sum_a eps_{a,i} (METHODS section 2), or
    "lognormal", w_i = exp(sum_a eps_{a,i}) divided by its expected batch mean: the ablation of the corrected
    variant. Either measures the effect of noise without a choice of groups. The released form has negative
    weights (16 % of them with one attribute, 28 % with three); the log-normal form has none. An unknown group
    has no noise.
    """

    name = "random"
    uses_losses = False

    def __init__(self, groups: Groups, seed: int, *, form: str = "released") -> None:
        check_choice(self.name, "form", form, FORMS)
        super().__init__(groups, seed, {"form": form})
        self.form = FORMS[form]

    def weights(self, losses: Tensor, groups: Tensor, timesteps: Tensor, images_seen: int) -> Tensor:
        """Return w_i [B] of this batch; the losses are not used."""
        self.groups.check(groups, len(losses))
        sigma = self.groups.image_values(torch.ones(len(self.groups)), groups)
        return self.form(sigma, draw_noise(groups, self.seed, images_seen)).to(losses)

    def records(self) -> dict[str, float]:
        """``sigma/<attribute>/<group>``: 1."""
        return self.groups.records("sigma", torch.ones(len(self.groups)))
