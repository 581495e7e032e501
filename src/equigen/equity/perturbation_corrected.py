"""Fair Bayesian Perturbation with weights that change the expected gradient, and a reward on the fixed probe."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from equigen.equity.bayes import Proposal, sobol_points
from equigen.equity.groups import Groups
from equigen.equity.interface import State
from equigen.equity.monitor import GroupLosses
from equigen.equity.noise import draw_noise, lognormal_weights
from equigen.equity.proposer import Proposer
from equigen.equity.request import ProposalRequest
from equigen.equity.state import Layout, Setting, check_groups, check_numbers, check_state, header, tensor_of
from equigen.errors import InputError, Problem
from equigen.seeds import derive_seed


class CorrectedPerturbation:
    """FairDiffusion's mechanism without its defects (METHODS section 3, variant ``corrected``).

    **Weights.** With a fresh standard normal per image and attribute, never negative,

        w_i = exp( sum_a sigma[a, g_{a,i}] eps_{a,i} ) / mean_j exp( sum_a sigma[a, g_{a,j}]^2 / 2 )

    The normaliser is the batch mean of the *expected* weights, so the expected weight over the batch is 1
    (the learning rate keeps its scale) while an image of a group with sigma weighs exp(sigma^2 / 2) times
    one with none, in expectation: sigma changes the expected gradient, not only its noise. Dividing by the
    *realised* mean instead would let one large draw reduce the other weights. An unknown group has sigma 0.

    **Windows.** One sigma is held for a whole window of ``window_images`` images. A window ends with the
    first batch at or past a multiple of it, whatever the batch size. Then the loop measures the fixed probe.

    **Reward.** -sum_a gap_a / m on the held-out probe, gap_a between the mean losses of the attribute's
    groups with at least ``minimum`` images, m the probe's mean loss. The gap is relative because losses fall
    several times over during training, and gaps with them: absolute gaps would favour the latest sigma. The
    remaining drift is modelled by the process, which has time (images seen) as one more input and is maximised
    at the current time: old windows count less where rewards drift.

    **Choice.** Window 0 is plain training (sigma 0), the reference; windows 1 to ``design`` - 1 are scrambled
    Sobol points of the cube; from then on sigma = sigma_max times the maximiser of UCB (``bayes.propose``).
    The history of all windows is kept; the process sees the newest 64.

    **Delay.** A proposal takes as long as many training steps, so a background process computes it (``Proposer``).
    The proposal requested at the end t of a window takes effect at the first batch at or past t + ``delay_images``,
    however fast either process is; the previous sigma is used until then. ``delay_images`` None: an eighth of the
    window; 0: the step at t waits, without a background process. The reward of a window is attributed to the sigma
    at its end, which was used for at least half of it (the delay is at most half a window), up to rounding to whole
    batches. A proposal for which the next window ends too early takes effect later, and is not credited with that
    window. Design points take effect at once. Pending proposals are in the state as the times of their requests:
    a process that loads it requests them again, with the same result. One takes about 0.5 s of one core with 5
    groups, 1.5 s with 10: longer than an eighth of a window where a GPU trains on several thousand images a second;
    then choose a longer delay, or windows.
    """

    name = "perturbation-corrected"
    nonnegative = True
    uses_losses = False

    def __init__(
        self,
        groups: Groups,
        seed: int,
        *,
        window_images: int = 10_000,
        sigma_max: float = 1.0,
        beta: float = 0.1,
        design: int = 3,
        minimum: int = 8,
        delay_images: int | None = None,
    ) -> None:
        check_groups(self.name, groups)
        check_numbers(
            self.name,
            {
                "window_images": (window_images, 1, 10**12, True),
                "sigma_max": (sigma_max, 1e-6, 3, False),
                "beta": (beta, 0, 1e6, False),
                "design": (design, 1, 64, True),
                "minimum": (minimum, 1, 10**9, True),
            },
        )
        delay_images = window_images // 8 if delay_images is None else delay_images
        check_numbers(self.name, {"delay_images": (delay_images, 0, window_images // 2, True)})
        self.groups, self.seed = groups, seed
        self.window_images, self.design, self.minimum = window_images, design, minimum
        self.delay_images = delay_images
        self.sigma_max, self.beta = float(sigma_max), float(beta)
        self.window = 0  # the current window's number
        self.point = torch.zeros(len(groups), dtype=torch.float64)  # sigma / sigma_max, [K]
        self.points = torch.zeros(0, len(groups), dtype=torch.float64)  # of the finished windows, [n, K]
        self.rewards = torch.zeros(0, dtype=torch.float64)  # [n]
        self.times = torch.zeros(0, dtype=torch.int64)  # images seen when each reward was measured, [n]
        self.probe_counts = torch.zeros(len(groups), dtype=torch.int64)  # zeros: no probe seen yet
        self.pending = torch.zeros(0, dtype=torch.int64)  # times of the requests of pending proposals, oldest first
        self.fallbacks, self.note = 0, ""
        self.proposer = Proposer()
        self._submitted: int | None = None  # time of the pending request that was submitted to the worker

    @property
    def sigma(self) -> Tensor:
        """The sigma of the current window, float64 [K] in [0, sigma_max]."""
        return self.sigma_max * self.point

    def weights(self, losses: Tensor, groups: Tensor, timesteps: Tensor, images_seen: int) -> Tensor:
        """Return w_i [B], positive, with expected mean 1 over the batch.

        The state does not change, unless a proposal is due that ``decide`` was not called for.
        """
        self.groups.check(groups, len(losses))
        self._apply_due_proposals(images_seen)
        sigma = self.groups.image_values(self.sigma, groups)
        return lognormal_weights(sigma, draw_noise(groups, self.seed, images_seen)).to(losses)

    def decide(self, images_seen: int, first: bool = True) -> bool:
        """Submit pending requests and apply due proposals, before each batch; returns whether one took effect.

        ``first``: whether this is the first process, which computes proposals; the others get its state when one
        takes effect. All processes return the same.
        """
        if first:
            self._submit_pending()
            return self._apply_due_proposals(images_seen)
        due = self._due(images_seen)
        self.pending = self.pending[due:]
        return due > 0

    def close(self) -> None:
        """End the background process; a later ``decide`` starts another where one is needed."""
        self.proposer.close()
        self._submitted = None

    def wants_probe(self, images_seen: int) -> bool:
        """Return True from the end of the current window until ``observe_probe`` starts the next."""
        return images_seen // self.window_images > self.window

    def observe_probe(self, monitor: GroupLosses, images_seen: int) -> None:
        """End the window: append (sigma, reward, time), and set the next sigma or request a proposal.

        Called before the end of a window (at the start, say) it only checks the probe. Raises ``InputError``
        when the probe cannot measure any gap, or is not the probe of the earlier windows.
        """
        self._check_probe(monitor)
        self.probe_counts = monitor.counts.clone()
        if not self.wants_probe(images_seen):
            return
        reward = torch.tensor([-relative_gap(monitor, self.minimum)], dtype=torch.float64)
        self.points = torch.cat([self.points, self.point[None]])
        self.rewards = torch.cat([self.rewards, reward])
        self.times = torch.cat([self.times, torch.tensor([images_seen])])
        self.window = images_seen // self.window_images
        finished = len(self.rewards)
        if finished < self.design:
            self.point = sobol_points(len(self.groups), finished, derive_seed(self.seed, "equity/design"))[-1]
        elif self.delay_images:
            self.pending = torch.cat([self.pending, self.times[-1:]])
        else:
            self._apply_proposal(self._proposal_request(images_seen).compute())

    def _proposal_request(self, request_time: int) -> ProposalRequest:
        """Return the request of the window that ended at ``request_time``, with all results until then."""
        mask = self.times <= request_time
        return ProposalRequest(
            self.points[mask],
            self.rewards[mask],
            self.times[mask],
            float(request_time),
            self.beta,
            derive_seed(self.seed, "equity/proposal", request_time),
        )

    def _submit_pending(self) -> None:
        """Submit the oldest pending request; before the first one, start the background process in time."""
        if len(self.pending):
            request_time = int(self.pending[0])
            if request_time != self._submitted:
                self.proposer.ask(self._proposal_request(request_time))
                self._submitted = request_time
        elif self.delay_images and len(self.rewards) >= self.design - 1:
            self.proposer.start()

    def _due(self, images_seen: int) -> int:
        """Return how many of the pending proposals take effect now."""
        return int((self.pending + self.delay_images <= images_seen).sum())

    def _apply_due_proposals(self, images_seen: int) -> bool:
        due = self._due(images_seen)
        for request_time in self.pending[:due].tolist():
            self._apply_proposal(self.proposer.answer(self._proposal_request(request_time)))
        self.pending = self.pending[due:]
        return due > 0

    def _apply_proposal(self, proposal: Proposal) -> None:
        self.point = proposal.point
        if proposal.fallback is not None:
            self.fallbacks, self.note = self.fallbacks + 1, proposal.fallback

    def _check_probe(self, monitor: GroupLosses) -> None:
        comparable = [int(monitor.is_measured(self.minimum)[columns].sum()) for columns in self.groups.slices.values()]
        problems = []
        if monitor.groups.names != self.groups.names:
            problems.append(Problem("its groups are others", "measure it on the attributes of the mechanism"))
        elif max(comparable) < 2:
            problems.append(
                Problem(
                    f"no attribute has two groups with {self.minimum} images (counts: {monitor.counts.tolist()})",
                    "make the probe larger, lower 'minimum', or use the mechanism 'none'",
                )
            )
        elif int(self.probe_counts.sum()) and not torch.equal(self.probe_counts, monitor.counts):
            problems.append(
                Problem(
                    f"it has {monitor.counts.tolist()} images per group, and had {self.probe_counts.tolist()}",
                    "go on with the same cohort and probe, or start a new run",
                )
            )
        if problems:
            raise InputError("The probe cannot steer the mechanism.", problems)

    def records(self) -> dict[str, float]:
        """Return the current sigma and the reward of the last window; ``fallbacks`` once a fit failed."""
        rewards = {"reward": float(self.rewards[-1])} if len(self.rewards) else {}
        failed = {"fallbacks": float(self.fallbacks)} if self.fallbacks else {}
        return {**self.groups.records("sigma", self.sigma), **rewards, **failed}

    def sampling_weights(self, groups: Tensor) -> Tensor | None:
        """Return None, for the uniform stream."""
        return None

    def state_dict(self) -> State:
        """Return the current window and the history of all windows."""
        return {
            **self._header(),
            "point": self.point.clone(),
            "points": self.points.clone(),
            "rewards": self.rewards.clone(),
            "times": self.times.clone(),
            "probe_counts": self.probe_counts.clone(),
            "pending": self.pending.clone(),
            "fallbacks": torch.tensor(self.fallbacks),
            "window": self.window,
            "note": self.note,
        }

    def load_state_dict(self, state: State) -> None:
        """Load ``state``, also of the middle of a window; raises ``InputError`` where it does not fit."""
        k, real, integer = len(self.groups), torch.float64, torch.int64
        layout: Layout = {
            "point": ((k,), real),
            "points": ((None, k), real),
            "rewards": ((None,), real),
            "times": ((None,), integer),
            "probe_counts": ((k,), integer),
            "pending": ((None,), integer),
            "fallbacks": ((), integer),
        }
        check_state(state, self._header(), layout, {"window": int, "note": str})
        self.point, self.points = tensor_of(state, "point"), tensor_of(state, "points")
        self.rewards, self.times = tensor_of(state, "rewards"), tensor_of(state, "times")
        self.probe_counts, self.window = tensor_of(state, "probe_counts"), int(state["window"])
        self.pending, self._submitted = tensor_of(state, "pending"), None
        self.fallbacks, self.note = int(state["fallbacks"]), str(state["note"])

    def _header(self) -> State:
        settings: dict[str, Setting] = {
            "window_images": self.window_images,
            "sigma_max": self.sigma_max,
            "beta": self.beta,
            "design": self.design,
            "minimum": self.minimum,
            "delay_images": self.delay_images,
        }
        return header(self.name, self.groups, self.seed, settings)


def relative_gap(monitor: GroupLosses, minimum: int) -> float:
    """Return sum_a gap_a / m over the attributes whose gap is known; NaN if none is.

    On a fixed probe the same attributes are known in every window, so leaving out others favours no sigma.
    """
    gaps = [gap for gap in monitor.gaps(minimum).values() if not math.isnan(gap)]
    return sum(gaps) / monitor.overall if gaps else float("nan")
