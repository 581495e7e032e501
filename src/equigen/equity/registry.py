"""Mechanisms by name: those of this package, and those of other packages by entry points."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from equigen.equity.balanced import Balanced
from equigen.equity.group_dro import GroupDRO
from equigen.equity.groups import Groups
from equigen.equity.interface import Mechanism
from equigen.equity.minmax_noise import MinMaxNoise
from equigen.equity.none import UniformWeights
from equigen.equity.perturbation import ReleasedPerturbation
from equigen.equity.perturbation_corrected import CorrectedPerturbation
from equigen.equity.random_noise import RandomWeights
from equigen.equity.reweight import Reweight
from equigen.errors import InputError, Problem

Factory = Callable[..., Any]
ENTRY_POINTS = "equigen.mechanisms"
BUILT_IN: dict[str, dict[str, Factory]] = {
    "none": {"": UniformWeights},
    "perturbation": {"corrected": CorrectedPerturbation, "released": ReleasedPerturbation},
    "random": {"": RandomWeights},
    "reweight": {"": Reweight},
    "balanced": {"": Balanced},
    "group_dro": {"": GroupDRO},
    "minmax_noise": {"": MinMaxNoise},
}
"""Name -> variant -> class; the first variant is the default."""


def mechanism_names() -> list[str]:
    """Return the names of all mechanisms: the built-in ones, then those of installed packages."""
    return [*BUILT_IN, *sorted(point.name for point in _entry_points() if point.name not in BUILT_IN)]


def build_mechanism(name: str, groups: Groups, seed: int, **settings: object) -> Mechanism:
    """Return the mechanism ``name`` for these groups, with all draws from ``seed``.

    ``settings`` are its own keyword arguments; ``perturbation`` also takes ``variant`` ("corrected", the
    default, or "released"). Another package adds a mechanism by an entry point in the group
    "equigen.mechanisms" that names a callable (groups, seed, **settings) -> Mechanism. Raises ``InputError``
    for a name, variant or setting that is not known, and for an outside object that is no mechanism.
    """
    factory = _factory(name, settings)
    _check_settings(name, factory, settings)
    mechanism = factory(groups, seed, **settings)
    if not isinstance(mechanism, Mechanism):
        kind = type(mechanism).__name__
        problem = Problem(f"it gave a {kind}", "see equigen.equity.Mechanism for what it must have")
        raise InputError(f"The entry point '{name}' makes no mechanism.", [problem])
    return mechanism


def _factory(name: str, settings: dict[str, object]) -> Factory:
    """Return the callable of a name; removes ``variant`` from the settings where the name has variants."""
    if name not in BUILT_IN:
        return _load(name)
    variants = BUILT_IN[name]
    default = next(iter(variants))
    variant = str(settings.pop("variant", default)) if len(variants) > 1 else default
    if variant not in variants:
        problem = Problem(f"variant '{variant}' is not known", f"use one of: {', '.join(variants)}")
        raise InputError(f"The settings of the mechanism '{name}' cannot be used.", [problem])
    return variants[variant]


def _load(name: str) -> Factory:
    matches = [point for point in _entry_points() if point.name == name]
    if not matches:
        raise InputError(
            "There is no such mechanism.",
            [Problem(f"'{name}' is not known", f"use one of: {', '.join(mechanism_names())}")],
        )
    factory: Factory = matches[0].load()
    return factory


def _check_settings(name: str, factory: Factory, settings: dict[str, object]) -> None:
    parameters = inspect.signature(factory).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    allowed = [parameter.name for parameter in parameters if parameter.name not in ("groups", "seed")]
    choice = f"use some of: {', '.join(allowed)}" if allowed else "it takes no settings"
    problems = [Problem(f"'{key}' is not known", choice) for key in settings if key not in allowed]
    if problems:
        raise InputError(f"The settings of the mechanism '{name}' cannot be used.", problems)


def _entry_points() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=ENTRY_POINTS))
