"""Errors about the keys of a settings file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from equigen.errors import InputError


@contextmanager
def settings_key(key: str, source: str) -> Iterator[None]:
    """Add a settings key and its file to every problem of an InputError that the block raises."""
    try:
        yield
    except InputError as error:
        problems = [replace(problem, message=f"{key}: {problem.message}", file=source) for problem in error.problems]
        raise InputError(error.title, problems) from error
