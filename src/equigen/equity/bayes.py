"""One step of Bayesian optimisation on the unit cube, by the upper confidence bound of a Gaussian process."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from equigen.errors import InputError, Problem

NEWEST = 64


@dataclass(frozen=True)
class Proposal:
    """The next point [K] in [0, 1], float64, and the reason of a fallback (None: it is the maximiser of UCB)."""

    point: Tensor
    fallback: str | None


def propose(
    points: Tensor,
    rewards: Tensor,
    *,
    seed: int,
    beta: float = 0.1,
    times: Tensor | None = None,
    current_time: float | None = None,
) -> Proposal:
    """Return the maximiser over [0,1]^K of UCB = mu + sqrt(beta) s of a Gaussian process given (points, rewards).

    METHODS section 2: ``SingleTaskGP``, exact marginal likelihood, ``optimize_acqf`` with q=1, 5 restarts
    and 20 raw samples; in float64, rewards standardised, and on the newest 64 points, which bounds the cost.

    points   [n, K] in [0, 1], oldest first, n >= 1
    rewards  [n], finite; larger is better
    times    [n] or None: when each reward was measured (any unit). Time is then one more input of the
             process, so that old rewards count less where rewards drift, and UCB is maximised at
             ``current_time``
    seed     fixes the result, whatever the number of threads; the global random state of torch is the same before
             and after

    Where the process cannot be fitted (its covariance is not positive definite, the fit does not converge)
    the point with the best reward is returned again, and ``fallback`` is the reason.
    Raises ``InputError`` for shapes that do not fit, points outside the cube, rewards that are not finite.
    """
    _check(points, rewards, times, current_time)
    x, y = points[-NEWEST:].double(), rewards[-NEWEST:].double()
    bounds = torch.tensor([[0.0], [1.0]], dtype=torch.float64).repeat(1, x.shape[1])
    fixed = None
    if times is not None and current_time is not None:
        # Time is the last input; its range is at least one unit, since Normalize cannot divide by none.
        when = times[-NEWEST:].double()
        span = torch.tensor([[min(float(when.min()), current_time - 1.0)], [current_time]], dtype=torch.float64)
        x, bounds, fixed = torch.cat([x, when[:, None]], 1), torch.cat([bounds, span], 1), {x.shape[1]: current_time}
    with _process() as process, _local_randomness(seed), _one_thread():
        try:
            best = process.maximise(x, y, bounds, beta, fixed)
        except process.FAILURES as error:
            best_point = points[-NEWEST:].double()[y.argmax()].clone()
            return Proposal(best_point, f"{type(error).__name__}: {error}"[:200])
    return Proposal(best[: points.shape[1]].clamp(0.0, 1.0), None)


def sobol_points(dimensions: int, n: int, seed: int) -> Tensor:
    """Return the first n points of a scrambled Sobol sequence, float64 [n, dimensions] in [0, 1]."""
    engine = SobolEngine(dimensions, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    return engine.draw(n, dtype=torch.float64)


@contextmanager
def _process() -> Iterator[ModuleType]:
    """Yield the BoTorch module, imported when first used, with its harmless warnings silenced."""
    with warnings.catch_warnings():
        with warnings.catch_warnings():
            # Of its dependency linear_operator, which still compiles with torch.jit when it is imported.
            warnings.filterwarnings("ignore", message=r".*torch\.jit", category=DeprecationWarning)
            from equigen.equity import gaussian_process as process
        for category in process.KNOWN_WARNINGS:
            warnings.simplefilter("ignore", category)
        yield process


@contextmanager
def _local_randomness(seed: int) -> Iterator[None]:
    # BoTorch draws its start points from torch's global generator: only the CPU's is seeded, and put back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def _one_thread() -> Iterator[None]:
    # Several threads would round otherwise, so that machines would differ; matrices of 64 rows gain nothing by them.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check(points: Tensor, rewards: Tensor, times: Tensor | None, current_time: float | None) -> None:
    if points.ndim != 2 or 0 in points.shape or rewards.shape != points.shape[:1]:
        shapes = f"points {tuple(points.shape)} and rewards {tuple(rewards.shape)}"
        raise InputError("No point can be proposed.", [_problem(f"{shapes} are not (n, K) and (n,)")])
    faults = {
        "points lie outside [0, 1]": not bool(((points >= 0) & (points <= 1)).all()),
        "rewards are not all finite": not bool(rewards.isfinite().all()),
        "times and now need each other": (times is None) != (current_time is None),
        "times need one value a point": times is not None and times.shape != rewards.shape,
    }
    problems = [_problem(text) for text, wrong in faults.items() if wrong]
    if problems:
        raise InputError("No point can be proposed.", problems)


def _problem(message: str) -> Problem:
    return Problem(message, "mend what the mechanism remembers")
