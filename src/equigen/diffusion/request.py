"""What each row of a plan asks of the sampler, and what a generator must have to be asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from equigen.diffusion.samplers import DEFAULT_SOLVER, noise_levels, set_steps
from equigen.errors import InputError, Problem

Interval = tuple[float, float]
EVERYWHERE: Interval = (0.0, 1.0)
OPTIONAL = ("solver", "guidance_low", "guidance_high", "negative")  # columns of a plan that may be absent


@dataclass(frozen=True)
class Request:
    """How one image is to be sampled.

    ``guidance``: scale w of classifier-free guidance (Ho & Salimans 2022), f(z, t, free) + w (f(z, t, c) -
    f(z, t, free)); 1 is plain conditional sampling. ``interval``: guided only at noise levels low <= t / T <= high
    (Kynkäänniemi et al., NeurIPS 2024, arXiv 2404.07724; their interval is of sigma, ours of the timestep), elsewhere
    plain conditional. ``negative``: a prompt that takes the place of *free*; "" for none.
    """

    guidance: float
    steps: int
    solver: str = DEFAULT_SOLVER
    interval: Interval = EVERYWHERE
    negative: str = ""

    @property
    def guided(self) -> bool:
        """Whether the network is asked twice at any step."""
        return self.guidance != 1.0

    @property
    def more(self) -> dict[str, Any]:
        """What is asked beyond guidance and steps: arguments of a call that differ from their defaults."""
        own = {"solver": self.solver, "interval": self.interval, "negative": self.negative}
        usual = {"solver": DEFAULT_SOLVER, "interval": EVERYWHERE, "negative": ""}
        return {name: value for name, value in own.items() if value != usual[name]}

    def kind(self, *, mixed: bool) -> Hashable:
        """Rows of one kind may pass through a network together. ``mixed``: guided rows may have scales of their own.

        Unguided rows stand apart: beside a guided row they would be computed as u + 1 (c - u), which rounds
        differently from c. They have neither an interval nor a negative prompt.
        """
        if not self.guided:
            return self.steps, self.solver
        return self.steps, self.solver, self.interval, self.negative, None if mixed else self.guidance


class Generator(Protocol):
    """Whatever makes images of a plan's rows: ``EquigenPipeline``, ``TextGenerator``, or a user's own.

    One of a user's own need not say where it is (then it is taken to be on a CPU) or whether it mixes guidance (then
    it does), and need take ``solver``, ``interval`` and ``negative`` only if plans ask for them.
    """

    mixes_guidance: bool
    """Whether the images of one call may have different scales of guidance."""

    @property
    def hash(self) -> str:
        """Name of weights and settings in provenance."""

    @property
    def size(self) -> int:
        """Side of an image in pixels."""

    @property
    def latent_side(self) -> int:
        """Side of what the network sees."""

    @property
    def device(self) -> torch.device:
        """Where the network is."""

    def check(self, plan: pd.DataFrame) -> None:
        """Raise InputError for rows that cannot be made."""

    def __call__(
        self,
        conditions: pd.DataFrame,
        seeds: Sequence[int],
        guidance: float | Sequence[float] = 2.0,
        steps: int = 20,
        solver: str = DEFAULT_SOLVER,
        interval: Interval = EVERYWHERE,
        negative: str = "",
    ) -> NDArray[np.uint8]:
        """One image [size, size, 3] for each row and seed."""


def requests(plan: pd.DataFrame) -> tuple[list[Request], NDArray[np.int64]]:
    """What the rows of a plan ask of the sampler: the different requests as they first come, and each row's one [N].

    Columns ``guidance`` and ``steps``, and if they are there ``solver``, ``guidance_low``, ``guidance_high`` and
    ``negative``, in which an empty cell means the default. Raises InputError, with the row, for guidance that is no
    number of at least 0, an interval that is none between 0 and 1, and steps below 1.
    """
    columns = ["guidance", "steps", *(name for name in OPTIONAL if name in plan)]
    words = plan[columns].astype(object).where(plan[columns].notna(), None)
    numbers, different = pd.factorize(pd.MultiIndex.from_frame(words))
    found, problems = [], []
    for number, cells in enumerate(different):
        given = {name: cell for name, cell in zip(columns, cells, strict=True) if not pd.isna(cell)}
        asked = _request(given)
        row = int(np.argmax(numbers == number)) + 2
        problems += [Problem(told, mend, row=row, column=column) for told, mend, column in _faults(asked)]
        found.append(asked)
    if problems:
        raise InputError("This plan cannot be carried out.", problems)
    return found, numbers.astype(np.int64)


def _request(given: dict[str, Any]) -> Request:
    """One request from the cells that are not empty."""
    interval = (float(given.get("guidance_low", 0.0)), float(given.get("guidance_high", 1.0)))
    negative = str(given.get("negative", ""))
    solver = str(given.get("solver", "")) or DEFAULT_SOLVER
    return Request(float(given.get("guidance", math.nan)), int(given.get("steps", 0)), solver, interval, negative)


def _faults(asked: Request) -> list[tuple[str, str, str]]:
    """What is wrong with one request: what was found, how to mend it, and the column."""
    low, high = asked.interval
    tests = [
        (math.isfinite(asked.guidance) and asked.guidance >= 0, asked.guidance,
         "use 0 or more; 1 is plain conditional sampling", "guidance"),
        (asked.steps >= 1, asked.steps, "use at least 1", "steps"),
        (0 <= low < high, low, "use a noise level t / T from 0 to below guidance_high", "guidance_low"),
        (low < high <= 1, high, "use a noise level t / T above guidance_low, up to 1", "guidance_high"),
    ]
    return [(f"{value}", mend, column) for fine, value, mend, column in tests if not fine]


def check_sampler(asked: Sequence[Request], make: Callable[[str], Any]) -> None:
    """InputError for rows whose solver, steps or interval cannot be had; ``make`` gives the scheduler of a name."""
    for steps, name, interval in dict.fromkeys((one.steps, one.solver, one.guided and one.interval) for one in asked):
        scheduler = make(name)
        total = int(scheduler.config["num_train_timesteps"])
        if not 1 <= steps <= total:
            problem = Problem(f"{steps} steps", f"use a whole number from 1 to {total}")
            raise InputError("These images cannot be made.", [problem])
        if interval and interval != EVERYWHERE:
            _check_interval(scheduler, steps, interval)


def _check_interval(scheduler: Any, steps: int, interval: Interval) -> None:
    """InputError where no step of the sampler lies in the interval: guidance would do nothing, and nobody be told."""
    if scheduler.config.get("use_dynamic_shifting"):
        problem = Problem("noise levels depend on the size of the image", "leave out guidance_low and guidance_high")
        raise InputError("Guidance cannot be limited with this model.", [problem])
    if not any(within(level, interval) for level in noise_levels(set_steps(scheduler, steps))):
        told = f"none of {steps} steps lies at a noise level from {interval[0]} to {interval[1]}"
        raise InputError("Guidance would do nothing.", [Problem(told, "widen the interval, or take more steps")])


def within(level: float, interval: Interval) -> bool:
    """Whether a noise level t / T is guided."""
    return interval[0] <= level <= interval[1]
