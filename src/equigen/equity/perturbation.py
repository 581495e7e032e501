"""Fair Bayesian Perturbation as its authors released it, with its defects, for comparison."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from equigen.equity.bayes import propose
from equigen.equity.groups import Groups
from equigen.equity.interface import State
from equigen.equity.monitor import GroupLosses
from equigen.equity.noise import draw_noise, released_weights
from equigen.equity.state import Layout, Setting, check_groups, check_numbers, check_state, header, tensor_of
from equigen.seeds import derive_seed, torch_generator


class ReleasedPerturbation:
    """FairDiffusion's mechanism (Luo et al. 2025; METHODS section 2), for any attributes.

    For each image, with a fresh standard normal per image and attribute,

        w_i = 1 + sum_a sigma[a, g_{a,i}] * eps_{a,i}
        G   = sum_a ( max_g mean(l_i : g) - min_g mean(l_i : g) )        over the batch, unweighted losses

    and each step appends (sigma, -G) to a window. After ``time_window`` steps sigma becomes the maximiser
    of UCB (``bayes.propose``) and the window is emptied. After every step sigma <- rho sigma + (1 - rho) u,
    u uniform on [0, 1]^K. It starts at sigma = 1. An unknown group gives no noise and is in no mean.

    Its defects, which are reproduced here (numbered as in METHODS section 2):

    1. E[w_i] = 1 whatever sigma is, so in expectation the gradient is that of plain training; sigma only
       sets how noisy a group's gradient is.
    2. Weights are often negative: 28 % at the start with three attributes.
    3. A group that is absent from the batch makes its attribute's gap NaN, which becomes 0, the best reward.
    4. G is taken over a small batch at random timesteps; most of it is timestep noise.
    5. Mixing leaves rho^30 = 21 % of the chosen sigma by the end of a window of 30.

    Defect 6 is not reproduced: every process has the same sigma, and it is part of the state.
    """

    name = "perturbation-released"

    def __init__(
        self, groups: Groups, seed: int, *, time_window: int = 30, rho: float = 0.95, beta: float = 0.1
    ) -> None:
        check_groups(self.name, groups)
        check_numbers(
            self.name,
            {
                "time_window": (time_window, 1, 10**6, True),
                "rho": (rho, 0, 1, False),
                "beta": (beta, 0, 1e6, False),
            },
        )
        self.groups, self.seed = groups, seed
        self.time_window, self.rho, self.beta = time_window, float(rho), float(beta)
        self.sigma = torch.ones(len(groups), dtype=torch.float64)  # [K]
        self.points = torch.zeros(0, len(groups), dtype=torch.float64)  # sigmas of the window so far, [n, K]
        self.rewards = torch.zeros(0, dtype=torch.float64)  # [n]
        self.reward = float("nan")
        self.fallbacks, self.note = 0, ""

    def weights(self, losses: Tensor, groups: Tensor, timesteps: Tensor, images_seen: int) -> Tensor:
        """Return w_i of this step [B]; then append the reward of the step and update sigma."""
        self.groups.check(groups, len(losses))
        sigma = self.groups.image_values(self.sigma, groups)
        weights = released_weights(sigma, draw_noise(groups, self.seed, images_seen))
        self._step(-batch_gap(losses, groups, self.groups), images_seen)
        return weights.to(losses)

    def _step(self, reward: float, images_seen: int) -> None:
        self.reward = reward
        self.points = torch.cat([self.points, self.sigma[None]])
        self.rewards = torch.cat([self.rewards, torch.tensor([reward], dtype=torch.float64)])
        if len(self.rewards) >= self.time_window:
            self._propose(images_seen)
        generator = torch_generator(self.seed, "equity/mixing", images_seen)
        uniform = torch.rand(len(self.sigma), generator=generator, dtype=torch.float64)
        self.sigma = self.rho * self.sigma + (1 - self.rho) * uniform

    def _propose(self, images_seen: int) -> None:
        seed = derive_seed(self.seed, "equity/proposal", images_seen)
        proposal = propose(self.points, self.rewards, beta=self.beta, seed=seed)
        self.sigma = proposal.point
        if proposal.fallback is not None:
            self.fallbacks, self.note = self.fallbacks + 1, proposal.fallback
        self.points, self.rewards = self.points[:0], self.rewards[:0]

    def wants_probe(self, images_seen: int) -> bool:
        """Return False: it uses training batches only."""
        return False

    def observe_probe(self, monitor: GroupLosses, images_seen: int) -> None:
        """Do nothing: the probe is not used."""

    def records(self) -> dict[str, float]:
        """Return sigma of the next step and the reward of the last; ``fallbacks`` once a fit failed."""
        rewards = {} if math.isnan(self.reward) else {"reward": self.reward}
        failed = {"fallbacks": float(self.fallbacks)} if self.fallbacks else {}
        return {**self.groups.records("sigma", self.sigma), **rewards, **failed}

    def sampling_weights(self, groups: Tensor) -> Tensor | None:
        """Return None, for the uniform stream."""
        return None

    def state_dict(self) -> State:
        """Return sigma and the window so far."""
        last = torch.tensor(self.reward, dtype=torch.float64)  # a tensor, since JSON has no NaN
        return {
            **self._header(),
            "sigma": self.sigma.clone(),
            "points": self.points.clone(),
            "rewards": self.rewards.clone(),
            "reward": last,
            "fallbacks": self.fallbacks,
            "note": self.note,
        }

    def load_state_dict(self, state: State) -> None:
        """Load ``state``, also of the middle of a window; raises ``InputError`` where it does not fit."""
        k, real = len(self.groups), torch.float64
        layout: Layout = {
            "sigma": ((k,), real),
            "points": ((None, k), real),
            "rewards": ((None,), real),
            "reward": ((), real),
        }
        check_state(state, self._header(), layout, {"fallbacks": int, "note": str})
        self.sigma, self.points = tensor_of(state, "sigma"), tensor_of(state, "points")
        self.rewards, self.reward = tensor_of(state, "rewards"), float(state["reward"])
        self.fallbacks, self.note = int(state["fallbacks"]), str(state["note"])

    def _header(self) -> State:
        settings: dict[str, Setting] = {"time_window": self.time_window, "rho": self.rho, "beta": self.beta}
        return header(self.name, self.groups, self.seed, settings)


def batch_gap(losses: Tensor, groups: Tensor, names: Groups) -> float:
    """G of METHODS section 2 over one batch; as released, a NaN gap (an absent group) counts as 0."""
    values, index = losses.detach().cpu().double(), groups.cpu()
    total = 0.0
    for column, (_, levels) in enumerate(names.names):
        means = torch.stack([values[index[:, column] == level].mean() for level in range(len(levels))])
        gap = float((means.max() - means.min()).abs())
        total += 0.0 if math.isnan(gap) else gap
    return total
