"""What a mechanism gives back, checked in one place before it weighs anything."""

from __future__ import annotations

import torch

from equigen.errors import InputError, Problem


def checked_weights(
    weights: object, count: int, name: str, images_seen: int, nonnegative: bool = False, hint: str = ""
) -> torch.Tensor:
    """``weights`` as they are, once they are finite floating numbers [count] in a tensor.

    Weights [count, 1] would broadcast to [count, count] with the losses and train as if there were none, so nothing is
    reshaped or cast. ``name`` of the mechanism; ``nonnegative``: whether it promises weights of 0 or more; ``hint``:
    what to say more where they are not finite. Raises InputError with what was given and what belongs there.
    """
    problem = _path_fault(weights, count, "weights(...)", "losses.shape and losses.dtype")
    if problem is None and isinstance(weights, torch.Tensor):
        least = 0.0 if nonnegative else -float("inf")
        problem = _bad_number(weights.detach(), least, f"after {images_seen} images{hint}")
    return _given(weights, problem, name)


def checked_sampling(weights: object, count: int, name: str) -> torch.Tensor | None:
    """Sampling weights as they are, once they are None, or finite numbers [count] of 0 or more with a sum above 0."""
    if weights is None:
        return None
    problem = _path_fault(weights, count, "sampling_weights(...)", "one a training image")
    if problem is None and isinstance(weights, torch.Tensor):
        problem = _bad_number(weights, 0.0, "for sampling")
        if problem is None and not bool(weights.sum() > 0):
            problem = Problem("it gave sampling weights that are all 0", "give at least one image a weight above 0")
    return _given(weights, problem, name)


def _given(weights: object, problem: Problem | None, name: str) -> torch.Tensor:
    if problem is not None or not isinstance(weights, torch.Tensor):
        raise InputError(f"The weights of the mechanism '{name}' cannot be used.", [problem] if problem else [])
    return weights


def _path_fault(weights: object, count: int, method: str, like: str) -> Problem | None:
    """What is wrong with the kind, shape or type of what a method gave."""
    mend = f"let {method} return a floating torch.Tensor of shape ({count},): {like}"
    if not isinstance(weights, torch.Tensor):
        kind = f"{type(weights).__module__}.{type(weights).__qualname__}".removeprefix("builtins.")
        return Problem(f"it gave a {kind} in place of a torch.Tensor", mend)
    if tuple(weights.shape) != (count,):
        return Problem(f"it gave the shape {tuple(weights.shape)} in place of ({count},)", mend)
    if not weights.is_floating_point():
        return Problem(f"it gave {weights.dtype} in place of floating numbers", mend)
    return None


def _bad_number(weights: torch.Tensor, least: float, where: str) -> Problem | None:
    """Which weights are not finite, or below ``least``."""
    bad = ~weights.isfinite()
    if bool(bad.any()):
        message = f"it gave a weight that is not finite {where}: {int(bad.sum())} of {len(weights)}"
        return Problem(message, "look for a division by zero, a logarithm of zero or an overflow in it")
    bad = weights < least
    if bool(bad.any()):
        count = f"{int(bad.sum())} of {len(weights)} weights below {least:g}"
        message = f"it gave {count} {where}, the least {weights.min():g}"
        return Problem(message, "give weights of 0 or more, or do not declare nonnegative = True")
    return None
