"""Errors of a settings file, with the key that each is about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from equigen.errors import InputError


@contextmanager
def at(key: str, source: str) -> Iterator[None]:
    """Say of every problem found within, which key of which file it is about."""
    try:
        yield
    except InputError as error:
        problems = [
            replace(problem, message=f"{key}: {problem.message}", file=source) for problem in error.problems
        ]
        raise InputError(error.title, problems) from error
