"""Sampling requests of a plan's rows, and the interface of a generator."""

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
FULL_INTERVAL: Interval = (0.0, 1.0)
OPTIONAL_COLUMNS = ("solver", "guidance_low", "guidance_high", "negative")  # columns of a plan that may be absent


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
    interval: Interval = FULL_INTERVAL
    negative: str = ""

    @property
    def guided(self) -> bool:
        """Return whether guidance changes the prediction: the scale is not 1."""
        return self.guidance != 1.0

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of a call beyond guidance and steps that differ from their defaults."""
        options = {"solver": self.solver, "interval": self.interval, "negative": self.negative}
        usual = {"solver": DEFAULT_SOLVER, "interval": FULL_INTERVAL, "negative": ""}
        return {name: value for name, value in options.items() if value != usual[name]}

    def kind(self, *, mixed: bool) -> Hashable:
        """Rows of one kind may pass through a network together. ``mixed``: guided rows may have scales of their own.

        Unguided rows stand apart: beside a guided row they would be computed as u + 1 (c - u), which rounds
        differently from c. They have neither an interval nor a negative prompt.
        """
        if not self.guided:
            return self.steps, self.solver
        return self.steps, self.solver, self.interval, self.negative, None if mixed else self.guidance


class Generator(Protocol):
    """The interface of generators: ``EquigenPipeline``, ``TextGenerator``, or a user's class.

    A user's class need not have ``device`` (then a CPU is assumed) or ``mixes_guidance`` (then True is assumed), and
    needs the arguments ``solver``, ``interval`` and ``negative`` only if plans use them.
    """

    mixes_guidance: bool
    """Whether the images of one call may have different scales of guidance."""

    @property
    def hash(self) -> str:
        """Hash of weights and settings, which names the generator in tables."""

    @property
    def size(self) -> int:
        """Side of an image in pixels."""

    @property
    def latent_side(self) -> int:
        """Side of the network's input, the latents."""

    @property
    def device(self) -> torch.device:
        """The device of the network."""

    def check(self, plan: pd.DataFrame) -> None:
        """Raise InputError for rows that cannot be made."""

    def __call__(
        self,
        conditions: pd.DataFrame,
        seeds: Sequence[int],
        guidance: float | Sequence[float] = 2.0,
        steps: int = 20,
        solver: str = DEFAULT_SOLVER,
        interval: Interval = FULL_INTERVAL,
        negative: str = "",
    ) -> NDArray[np.uint8]:
        """One image [size, size, 3] for each row and seed."""


def sampling_requests(plan: pd.DataFrame) -> tuple[list[Request], NDArray[np.int64]]:
    """Return the distinct sampling requests of a plan in order of appearance, and the index of each row's one [N].

    Columns ``guidance`` and ``steps``, and if present ``solver``, ``guidance_low``, ``guidance_high`` and ``negative``,
    in which an empty cell means the default. Raises InputError, with the row, for guidance that is no number of at
    least 0, an interval that is not within 0 and 1, and steps below 1.
    """
    columns = ["guidance", "steps", *(name for name in OPTIONAL_COLUMNS if name in plan)]
    cells_of_plan = plan[columns].astype(object).where(plan[columns].notna(), None)
    numbers, different = pd.factorize(pd.MultiIndex.from_frame(cells_of_plan))
    distinct, problems = [], []
    for number, cells in enumerate(different):
        values = {name: cell for name, cell in zip(columns, cells, strict=True) if not pd.isna(cell)}
        distinct.append(
            Request(
                float(values.get("guidance", math.nan)),
                int(values.get("steps", 0)),
                str(values.get("solver", "")) or DEFAULT_SOLVER,
                (float(values.get("guidance_low", 0.0)), float(values.get("guidance_high", 1.0))),
                str(values.get("negative", "")),
            )
        )
        row = int(np.argmax(numbers == number)) + 2
        request = distinct[-1]
        low, high = request.interval
        tests = [
            (
                math.isfinite(request.guidance) and request.guidance >= 0,
                request.guidance,
                "use 0 or more; 1 is plain conditional sampling",
                "guidance",
            ),
            (request.steps >= 1, request.steps, "use at least 1", "steps"),
            (0 <= low < high, low, "use a noise level t / T from 0 to below guidance_high", "guidance_low"),
            (low < high <= 1, high, "use a noise level t / T above guidance_low, up to 1", "guidance_high"),
        ]
        problems += [
            Problem(f"{value}", mend, row=row, column=column) for fine, value, mend, column in tests if not fine
        ]
    if problems:
        raise InputError("This plan cannot be carried out.", problems)
    return distinct, numbers.astype(np.int64)


def check_sampler(requests: Sequence[Request], make: Callable[[str], Any]) -> None:
    """Raise InputError for requests whose solver, steps or interval are impossible; ``make`` returns a scheduler."""
    settings = [(request.steps, request.solver, request.guided and request.interval) for request in requests]
    for steps, name, interval in dict.fromkeys(settings):
        scheduler = make(name)
        total = int(scheduler.config["num_train_timesteps"])
        if not 1 <= steps <= total:
            problem = Problem(f"{steps} steps", f"use a whole number from 1 to {total}")
            raise InputError("These images cannot be made.", [problem])
        if interval and interval != FULL_INTERVAL:
            if scheduler.config.get("use_dynamic_shifting"):
                problem = Problem(
                    "noise levels depend on the size of the image", "leave out guidance_low and guidance_high"
                )
                raise InputError("Guidance cannot be limited with this model.", [problem])
            if not any(in_interval(level, interval) for level in noise_levels(set_steps(scheduler, steps))):
                message = f"none of {steps} steps lies at a noise level from {interval[0]} to {interval[1]}"
                raise InputError(
                    "Guidance would do nothing.", [Problem(message, "widen the interval, or take more steps")]
                )


def in_interval(level: float, interval: Interval) -> bool:
    """Return whether a noise level t / T lies in an interval."""
    return interval[0] <= level <= interval[1]
