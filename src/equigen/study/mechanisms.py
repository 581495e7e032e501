"""The mechanisms in the settings of a study or a comparison: their names, their files and their own settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equigen.config import settings_key
from equigen.equity import build_mechanism, is_mechanism_file, mechanism_identity, mechanism_names, mechanism_reference
from equigen.errors import InputError, Problem, suggestion

if TYPE_CHECKING:
    from equigen.equity import Groups
    from equigen.training import TrainSettings


def mechanism_choice(name: str, options: Mapping[str, Any], folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the mechanism of one key of ``mechanisms``, as ``TrainSettings`` holds it, and its own settings.

    ``folder``: folder that the path of a mechanism in a file is relative to.
    """
    rest = {key: value for key, value in options.items() if key != "mechanism"}
    return mechanism_reference(str(options.get("mechanism", name)), folder), rest


def mechanism_facts(trainings: Mapping[str, TrainSettings]) -> dict[str, str]:
    """Return the report's entries on mechanisms of files: class, file and the beginning of its SHA-256.

    ``trainings``: settings of a training by the name of its mechanism in the study or comparison.
    """
    facts = {}
    for name, training in trainings.items():
        if is_mechanism_file(training.mechanism):
            label, _, digest = mechanism_identity(training.mechanism).partition("@")
            file = Path(training.mechanism.rpartition(":")[0]).name
            facts[f"Mechanism {name}"] = f"{label} in {file}, SHA-256 {digest}"
    return facts


def check_mechanism_names(mechanisms: Mapping[str, Mapping[str, Any]], folder: Path, source: str) -> None:
    """Raise InputError for mechanisms that do not exist, and for files that are missing or lack the class.

    Nothing of a file is run.
    """
    registry = mechanism_names()
    rules = {name: str(options.get("mechanism", name)) for name, options in mechanisms.items()}
    problems = []
    for name, rule in rules.items():
        if is_mechanism_file(rule):
            with settings_key(f"mechanisms.{name}", source):
                mechanism_reference(rule, folder)
        elif rule not in registry:
            message = f"mechanisms.{name}: there is no mechanism '{rule}'"
            problems.append(Problem(message, suggestion(rule, registry), file=source))
    if problems:
        raise InputError("There is no such mechanism.", problems)


def check_mechanism_options(
    mechanisms: Mapping[str, Mapping[str, Any]], groups: Groups, seed: int, folder: Path, source: str
) -> None:
    """Build every mechanism for these groups. Raises InputError for an option that is unknown or wrong."""
    for name, options in mechanisms.items():
        with settings_key(f"mechanisms.{name}", source):
            rule, rest = mechanism_choice(name, options, folder)
            build_mechanism(rule, groups, seed, **rest)
