"""Checks of the weights that a mechanism returns."""

from __future__ import annotations

import torch

from equigen.errors import InputError, Problem


def check_weights(
    weights: object, count: int, name: str, images_seen: int, nonnegative: bool = False, hint: str = ""
) -> torch.Tensor:
    """Return ``weights`` unchanged; raises InputError unless they are a tensor [count] of finite floating numbers.

    Weights [count, 1] would broadcast to [count, count] with the losses and train as if there were none, so nothing is
    reshaped or cast. ``name`` of the mechanism; ``nonnegative``: whether it declares weights of 0 or more; ``hint``:
    appended to the message where they are not finite.
    """
    problem = _kind_problem(weights, count, "weights(...)", "losses.shape and losses.dtype")
    if problem is None and isinstance(weights, torch.Tensor):
        least = 0.0 if nonnegative else -float("inf")
        problem = _value_problem(weights.detach(), least, f"after {images_seen} images{hint}")
    return _require_tensor(weights, problem, name)


def check_sampling_weights(weights: object, count: int, name: str) -> torch.Tensor | None:
    """Return sampling weights unchanged; raises InputError unless None, or finite [count] >= 0 with a sum above 0."""
    if weights is None:
        return None
    problem = _kind_problem(weights, count, "sampling_weights(...)", "one a training image")
    if problem is None and isinstance(weights, torch.Tensor):
        problem = _value_problem(weights, 0.0, "for sampling")
        if problem is None and not bool(weights.sum() > 0):
            problem = Problem("it gave sampling weights that are all 0", "give at least one image a weight above 0")
    return _require_tensor(weights, problem, name)


def _require_tensor(weights: object, problem: Problem | None, name: str) -> torch.Tensor:
    if problem is not None or not isinstance(weights, torch.Tensor):
        raise InputError(f"The weights of the mechanism '{name}' cannot be used.", [problem] if problem else [])
    return weights


def _kind_problem(weights: object, count: int, method: str, like: str) -> Problem | None:
    """Return the problem of the class, shape or dtype of a method's result, or None."""
    mend = f"let {method} return a floating torch.Tensor of shape ({count},): {like}"
    if not isinstance(weights, torch.Tensor):
        kind = f"{type(weights).__module__}.{type(weights).__qualname__}".removeprefix("builtins.")
        return Problem(f"it gave a {kind} in place of a torch.Tensor", mend)
    if tuple(weights.shape) != (count,):
        return Problem(f"it gave the shape {tuple(weights.shape)} in place of ({count},)", mend)
    if not weights.is_floating_point():
        return Problem(f"it gave {weights.dtype} in place of floating numbers", mend)
    return None


def _value_problem(weights: torch.Tensor, least: float, context: str) -> Problem | None:
    """Return the problem of weights that are not finite, or below ``least``, or None."""
    bad = ~weights.isfinite()
    if bool(bad.any()):
        message = f"it gave a weight that is not finite {context}: {int(bad.sum())} of {len(weights)}"
        return Problem(message, "look for a division by zero, a logarithm of zero or an overflow in it")
    bad = weights < least
    if bool(bad.any()):
        count = f"{int(bad.sum())} of {len(weights)} weights below {least:g}"
        message = f"it gave {count} {context}, the least {weights.min():g}"
        return Problem(message, "give weights of 0 or more, or do not declare nonnegative = True")
    return None
