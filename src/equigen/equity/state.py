"""Checks of a mechanism's saved state and settings."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from equigen.equity.groups import Groups
from equigen.equity.interface import State
from equigen.errors import InputError, Problem

Setting = float | int | str
Layout = Mapping[str, tuple[tuple[int | None, ...], torch.dtype]]
"""Shape (None: any length) and dtype of each tensor in a state."""


def header(mechanism: str, groups: Groups, seed: int, settings: Mapping[str, Setting]) -> State:
    """Return the header of a state: mechanism, groups, seed and settings; they must be equal when it is loaded."""
    return {
        "mechanism": mechanism,
        "groups": json.dumps(groups.names),
        "seed": seed,
        "settings": json.dumps(dict(settings), sort_keys=True),
    }


def check_state(state: State, head: State, layout: Layout, scalars: Mapping[str, type]) -> None:
    """Raise InputError with every difference of a state from the expected header, tensors and scalars."""
    expected = {**head, **dict.fromkeys(layout, ""), **dict.fromkeys(scalars, "")}
    problems = [_problem(f"'{key}' is missing") for key in expected if key not in state]
    problems += [_problem(f"'{key}' is not known") for key in state if key not in expected]
    problems += [
        _problem(f"'{key}' is {state[key]!r} there and {value!r} here")
        for key, value in head.items()
        if key in state and state[key] != value
    ]
    problems += [
        _problem(f"'{key}' is no {kind.__name__}")
        for key, kind in scalars.items()
        if key in state and not isinstance(state[key], kind)
    ]
    problems += [
        _problem(f"'{key}' is not {dtype} of shape {shape}")
        for key, (shape, dtype) in layout.items()
        if key in state and not _fits(state[key], shape, dtype)
    ]
    if problems:
        raise InputError("The state of the mechanism cannot be loaded.", problems)


def tensor_of(state: State, key: str) -> Tensor:
    """Return a tensor of a checked state, copied to the CPU."""
    return torch.as_tensor(state[key]).detach().cpu().clone()


def check_numbers(mechanism: str, settings: Mapping[str, tuple[object, float, float, bool]]) -> None:
    """Raise InputError for settings out of range; each is name -> (value, lowest, highest, whether an integer)."""
    kinds = {True: "whole number", False: "number"}
    problems = [
        Problem(f"'{name}' is {value!r}", f"give a {kinds[integer]} from {low:g} to {high:g}")
        for name, (value, low, high, integer) in settings.items()
        if not _is_number(value, low, high, integer)
    ]
    if problems:
        raise InputError(f"The settings of the mechanism '{mechanism}' cannot be used.", problems)


def check_choice(mechanism: str, name: str, value: object, choices: Collection[str]) -> None:
    """Raise InputError for a setting that is none of its choices."""
    if value not in choices:
        problem = Problem(f"'{name}' is {value!r}", f"use one of: {', '.join(choices)}")
        raise InputError(f"The settings of the mechanism '{mechanism}' cannot be used.", [problem])


def check_groups(mechanism: str, groups: Groups) -> None:
    """Raise InputError where a mechanism needs groups and the cohort has none."""
    if not len(groups):
        problem = Problem("the cohort has no attributes", "name at least one, or use the mechanism 'none'")
        raise InputError(f"The mechanism '{mechanism}' needs groups.", [problem])


def _problem(message: str) -> Problem:
    return Problem(message, "go on with the cohort, seed and settings of the first run, or start a new run")


def _is_number(value: object, low: float, high: float, integer: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int if integer else int | float):
        return False
    return low <= value <= high


def _fits(value: object, shape: tuple[int | None, ...], dtype: torch.dtype) -> bool:
    if not isinstance(value, Tensor) or value.dtype != dtype or value.ndim != len(shape):
        return False
    return all(want is None or want == have for want, have in zip(shape, value.shape, strict=True))
