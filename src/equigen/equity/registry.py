"""Mechanisms by name: those of this package, of other packages by entry points, and of the user's files."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equigen.equity.mechanism_file import copy_file, error_place, file_source, fix_content, load_file, parse_file_name
from equigen.equity.python_object import object_source, register_object, registered_factory
from equigen.errors import InputError, Problem

if TYPE_CHECKING:
    from equigen.equity.groups import Groups
    from equigen.equity.interface import Mechanism

Factory = Callable[..., Any]
ENTRY_POINTS = "equigen.mechanisms"


@dataclass(frozen=True)
class Entry:
    """One mechanism of this package: one sentence about it, and ``module:class`` of each variant, the default first."""

    summary: str
    variants: dict[str, str]


BUILT_IN: dict[str, Entry] = {
    "none": Entry("Plain training: every image has weight 1.", {"": "none:UniformWeights"}),
    "perturbation": Entry(
        "Log-normal weights with one sigma per group, chosen by Bayesian optimisation to narrow a held-out gap.",
        {"corrected": "perturbation_corrected:CorrectedPerturbation", "released": "perturbation:ReleasedPerturbation"},
    ),
    "random": Entry(
        "The noise of perturbation with the same sigma for all: its control.", {"": "random_noise:RandomWeights"}
    ),
    "reweight": Entry("Weights in inverse proportion to the group's frequency.", {"": "reweight:Reweight"}),
    "balanced": Entry("Training images are drawn equally often from every group.", {"": "balanced:Balanced"}),
    "group_dro": Entry(
        "More weight for groups with the larger loss at the same noise level (Sagawa et al., ICLR 2020).",
        {"": "group_dro:GroupDRO"},
    ),
    "minmax_noise": Entry(
        "At each noise level, more weight for the group that is worst there.", {"": "minmax_noise:MinMaxNoise"}
    ),
}


def mechanism_names() -> list[str]:
    """Return the names of all mechanisms: the built-in ones, then those of installed packages."""
    return [*BUILT_IN, *sorted(point.name for point in _entry_points() if point.name not in BUILT_IN)]


def package_class(name: str) -> str:
    """Return ``module:class`` of a mechanism of an installed package."""
    return next(point.value for point in _entry_points() if point.name == name)


def mechanism_reference(mechanism: Any, folder: Path | None = None) -> str:
    """Return the name of a mechanism as settings hold it.

    Args:
        mechanism: a name, which is returned as it is; ``FILE.py:CLASS``, which gets an absolute path and a hash of the
            file's content, without running it; or a class or an object, which gets a name of this process.
        folder: folder that the file's path is relative to; None: the working folder.

    Raises:
        InputError: the file is missing, or does not define the class.

    """
    if not isinstance(mechanism, str):
        return register_object(mechanism)
    file = parse_file_name(mechanism)
    return mechanism if file is None else str(fix_content(file, folder))


def mechanism_identity(name: str) -> str:
    """Return what a run's key holds of a mechanism's name: for one of a file, class and content without the path.

    >>> mechanism_identity("balanced"), mechanism_identity("/home/me/my.py:Tilt@0123456789abcdef")
    ('balanced', 'Tilt@0123456789abcdef')
    """
    file = parse_file_name(name)
    return name if file is None else file.identity


def mechanism_label(name: str) -> str:
    """Return a mechanism's short name, for folders and headings.

    >>> mechanism_label("/home/me/my.py:Tilt@0123456789abcdef"), mechanism_label("balanced")
    ('Tilt', 'balanced')
    """
    return mechanism_identity(name).partition("@")[0]


def is_mechanism_file(name: str) -> bool:
    """Return whether a name is ``FILE.py:CLASS``."""
    return parse_file_name(name) is not None


def mechanism_copy(name: str, folder: Path) -> str:
    """Return the name with a copy of its file in ``folder``, which is written; other names are returned as they are."""
    file = parse_file_name(name)
    return name if file is None else str(copy_file(fix_content(file), folder))


def mechanism_source(name: str) -> str | None:
    """Return the source of a mechanism of a file or of a Python program; None for others, or where there is none."""
    file = parse_file_name(name)
    return object_source(name) if file is None else file_source(file)


def check_mechanism_name(name: str) -> None:
    """Raise InputError for a name that no mechanism has; nothing is loaded."""
    exists = name in mechanism_names() or is_mechanism_file(name) or registered_factory(name) is not None
    if not exists:
        raise _unknown_name(name)


def build_mechanism(name: str, groups: Groups, seed: int, **settings: object) -> Mechanism:
    """Return the mechanism ``name`` for these groups, with all draws from ``seed``.

    ``settings`` are its own keyword arguments; ``perturbation`` also takes ``variant`` ("corrected", the
    default, or "released"). Another package adds a mechanism by an entry point in the group
    "equigen.mechanisms" that names a callable (groups, seed, **settings) -> Mechanism; ``FILE.py:CLASS`` names one in
    a file. Raises ``InputError`` for a name, variant or setting that is not known, and for an outside object that is
    no mechanism.
    """
    factory = _factory(name, settings)
    _check_settings(name, factory, settings)
    if name in BUILT_IN:
        mechanism: Mechanism = factory(groups, seed, **settings)
        return mechanism
    mechanism = _call(name, factory, groups, seed, settings)
    _check_interface(name, mechanism)
    return mechanism


def _factory(name: str, settings: dict[str, object]) -> Factory:
    """Return the callable of a name; removes ``variant`` from the settings where the name has variants."""
    if name not in BUILT_IN:
        return _load(name)
    variants = BUILT_IN[name].variants
    default = next(iter(variants))
    variant = str(settings.pop("variant", default)) if len(variants) > 1 else default
    if variant not in variants:
        problem = Problem(f"variant '{variant}' is not known", f"use one of: {', '.join(variants)}")
        raise InputError(f"The settings of the mechanism '{name}' cannot be used.", [problem])
    module, _, symbol = variants[variant].partition(":")
    factory: Factory = getattr(import_module(f"equigen.equity.{module}"), symbol)
    return factory


def _load(name: str) -> Factory:
    """Return the callable of a file, of this Python program, or of an installed package."""
    file = parse_file_name(name)
    factory: Factory | None = registered_factory(name) if file is None else load_file(fix_content(file))
    matches = [point for point in _entry_points() if point.name == name] if factory is None else []
    if matches:
        factory = matches[0].load()
    if factory is None:
        raise _unknown_name(name)
    return factory


def _unknown_name(name: str) -> InputError:
    """Return the error for a name that no mechanism has."""
    mend = f"use one of: {', '.join(mechanism_names())}, or FILE.py:CLASS"
    if "@" in name:
        mend = f"'{mechanism_label(name)}' was a class of another Python program: give the class again"
    return InputError("There is no such mechanism.", [Problem(f"'{name}' is not known", mend)])


def _call(name: str, factory: Factory, groups: Groups, seed: int, settings: dict[str, object]) -> Any:
    """Call an outside factory; an error of its code is an InputError with the line."""
    try:
        return factory(groups, seed, **settings)
    except InputError:
        raise
    except Exception as error:
        file = parse_file_name(name)
        module = sys.modules.get(getattr(factory, "__module__", ""))
        path = getattr(module, "__file__", None) if file is None else str(file.path)
        mend = "it is called with (groups, seed, **settings); see docs/mechanisms.md"
        problem = Problem(f"{path}: making it failed at {error_place(error, str(path))}", mend)
        raise InputError(f"The mechanism '{mechanism_label(name)}' cannot be made.", [problem]) from error


def _check_interface(name: str, mechanism: object) -> None:
    """Raise InputError where an outside object lacks members of ``equigen.equity.Mechanism``."""
    from equigen.equity.interface import Mechanism

    members = ["name", *(key for key, value in vars(Mechanism).items() if inspect.isfunction(value) and key[0] != "_")]
    missing = [key for key in members if not hasattr(mechanism, key)]
    if missing:
        kind = type(mechanism).__name__
        mend = "derive it from equigen.equity.BaseMechanism, or see equigen.equity.Mechanism for what it must have"
        problem = Problem(f"it gave a {kind}, which lacks {', '.join(missing)}", mend)
        points = {point.name for point in _entry_points()}
        subject = f"The entry point '{name}'" if name in points else f"'{mechanism_label(name)}'"
        raise InputError(f"{subject} makes no mechanism.", [problem])


def _check_settings(name: str, factory: Any, settings: dict[str, object]) -> None:
    if not callable(factory):
        problem = Problem(f"it is a {type(factory).__name__}", "name a class with the methods of a mechanism")
        raise InputError(f"'{mechanism_label(name)}' makes no mechanism.", [problem])
    parameters = inspect.signature(factory).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    allowed = [parameter.name for parameter in parameters if parameter.name not in ("groups", "seed")]
    choice = f"use some of: {', '.join(allowed)}" if allowed else "it takes no settings"
    problems = [Problem(f"'{key}' is not known", choice) for key in settings if key not in allowed]
    if problems:
        raise InputError(f"The settings of the mechanism '{mechanism_label(name)}' cannot be used.", problems)


def _entry_points() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=ENTRY_POINTS))
