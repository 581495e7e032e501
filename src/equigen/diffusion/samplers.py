"""Samplers by name: schedulers of diffusers with the noise schedule that a network was trained with."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from equigen.errors import InputError, Problem

DEFAULT_SOLVER = "dpm++"
# Settings of a scheduler that describe the noise of training. All others describe sampling (Karras' noise levels,
# clipping, thresholding) and are not inherited, so that a solver's name means the same for every model.
NOISE = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
    "steps_offset",
)
# The first step is at t = T, the strongest noise of training (Lin et al. 2024, arXiv 2305.08891); the last ends at 0.
ENDS = {"timestep_spacing": "trailing", "final_sigmas_type": "zero"}
SOLVERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "dpm++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", **ENDS}),
    # clip_sample would cut latents off at 1; set_alpha_to_one ends at no noise, as the others do
    "ddim": (DDIMScheduler, {"timestep_spacing": "trailing", "clip_sample": False, "set_alpha_to_one": True}),
    "unipc": (UniPCMultistepScheduler, ENDS),
    "euler": (EulerDiscreteScheduler, ENDS),
}
FLOW_ENDS = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "final_sigmas_type": "zero"}
FLOW_SOLVERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "dpm++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", **FLOW_ENDS}),
    "unipc": (UniPCMultistepScheduler, FLOW_ENDS),
    "euler": (FlowMatchEulerDiscreteScheduler, {}),
}
SHIFTS = (
    "num_train_timesteps",
    "shift",
    "use_dynamic_shifting",
    "base_shift",
    "max_shift",
    "base_image_seq_len",
    "max_image_seq_len",
    "shift_terminal",
    "time_shift_type",
)


def solver(name: str, scheduler: Any) -> Any:
    """Return a new scheduler of diffusers for the named solver, with the noise schedule of ``scheduler``.

    ``dpm++``: DPM-Solver++ of second order (Lu et al. 2022, arXiv 2211.01095); ``ddim``: Song et al. 2021 without
    added noise; ``unipc``: Zhao et al. 2023, of second order; ``euler``: Karras et al. 2022, algorithm 1. For flow
    matching (Lipman et al. 2023) ``euler``, ``dpm++`` and ``unipc`` in their versions for flows. All are deterministic:
    an image depends on its starting noise alone. Plain diffusers gives the same by
    ``from_config(scheduler.config, **settings)`` of the class in ``SOLVERS`` or ``FLOW_SOLVERS``.

    With ``ddim``, diffusers steps from t to t - floor(T / steps), which is up to one timestep off its own grid where
    ``steps`` does not divide T.

    Raises InputError for an unknown solver, one that cannot be used with this kind of model, or an unsupported
    scheduler.
    """
    flows = is_flow(scheduler)
    possible = possible_solvers(scheduler)
    if name not in possible:
        reason = "is not possible with this model" if name in SOLVERS else "is unknown"
        problem = Problem(f"solver '{name}' {reason}", f"use one of {', '.join(possible)}")
        raise InputError("This solver cannot be used.", [problem])
    kind, settings = (FLOW_SOLVERS if flows else SOLVERS)[name]
    config = scheduler.config
    inherited = {key: config[key] for key in (SHIFTS if flows else NOISE) if key in config}
    if flows:
        inherited["flow_shift"] = inherited.get("shift", config.get("flow_shift", 1.0))
    parameters = inspect.signature(kind.__init__).parameters
    try:
        return kind(**{**{key: value for key, value in inherited.items() if key in parameters}, **settings})
    except NotImplementedError as error:
        problem = Problem(f"solver '{name}': {error}", "use another solver, or another model")
        raise InputError("This solver cannot be used.", [problem]) from error


def possible_solvers(scheduler: Any) -> list[str]:
    """Return the names of the solvers that can be used with the noise schedule of ``scheduler``."""
    if not is_flow(scheduler):
        return list(SOLVERS)
    # diffusers' pipelines compute shifts that depend on the image's size for the Euler scheduler alone.
    return ["euler"] if scheduler.config.get("use_dynamic_shifting") else list(FLOW_SOLVERS)


def is_flow(scheduler: Any) -> bool:
    """Return whether a scheduler is for flow matching; InputError unless it is for that or for diffusion with betas."""
    config = scheduler.config
    if "FlowMatch" in type(scheduler).__name__ or config.get("prediction_type") == "flow_prediction":
        return True
    if "beta_schedule" in config:
        return False
    mend = "use a model of diffusion with betas, or of flow matching"
    problem = Problem(f"its scheduler is {type(scheduler).__name__}", mend)
    raise InputError("The noise schedule of this model is not supported.", [problem])


def set_steps(scheduler: Any, steps: int, device: Any = None) -> Any:
    """Set the number of steps of a scheduler, and return the scheduler."""
    with ignore_array_warnings():
        scheduler.set_timesteps(steps, device=device)
    return scheduler


def noise_levels(scheduler: Any) -> list[float]:
    """Return the noise level t / T of each step, the largest first; ``set_steps`` has to be called before."""
    total = scheduler.config["num_train_timesteps"]
    return [time / total for time in scheduler.timesteps.tolist()]


@contextmanager
def ignore_array_warnings() -> Iterator[None]:
    """Ignore the deprecation warning of NumPy 2 on ``__array__``, which diffusers causes, within the block."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="__array__ implementation", category=DeprecationWarning)
        yield
