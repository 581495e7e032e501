"""Errors of the user's input: each names the location, the value and the remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MAX_SIMILAR = 20  # problems of one kind that are printed in full


class EquigenError(Exception):
    """Base of equigen's own errors; commands print them without a traceback."""


@dataclass(frozen=True)
class Problem:
    """One problem of the input: its location, its message, and how to mend it.

    ``row`` counts as a spreadsheet does: the header is row 1, the first data row is row 2. None means the
    problem is not of one row. ``column`` and ``file`` are None where they do not apply.
    """

    message: str
    mend: str
    row: int | None = None
    column: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        """Return location, message and mend on one line."""
        parts = [f"row {self.row}"] if self.row is not None else []
        parts += [f"column '{self.column}'"] if self.column is not None else []
        parts += [self.file] if self.file is not None else []
        head = ", ".join(parts)
        return printable_text(f"{head + ': ' if head else ''}{self.message} ({self.mend})")


def suggestion(value: str, allowed: Iterable[str]) -> str:
    """Return a hint that names the closest allowed value, or lists the allowed values when none is close."""
    names = list(allowed)
    by_lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(value.lower(), list(by_lower), n=1, cutoff=0.6)
    if close:
        return f"did you mean '{by_lower[close[0]]}'?"
    listed = ", ".join(f"'{name}'" for name in names[:12]) + (", ..." if len(names) > 12 else "")
    return f"there is: {listed}" if names else "there is none"


def printable_text(text: str) -> str:
    """Return a text with bytes that are no UTF-8 (of a file's name) as escape codes, so that it can be printed."""
    return text.encode("utf-8", "backslashreplace").decode()


def problem_lines(problems: Sequence[Problem]) -> list[str]:
    """Return a line per problem; of many that differ only in row and quoted text, three lines and a count."""
    kinds: dict[tuple[str, str | None, str | None], list[Problem]] = {}
    for problem in problems:
        message = re.sub(r"'[^']*'", "''", problem.message) if problem.row is not None else str(id(problem))
        kinds.setdefault((message, problem.column, problem.file), []).append(problem)
    lines = []
    for similar in kinds.values():
        printed = similar if len(similar) <= MAX_SIMILAR else similar[:3]
        lines += [str(problem) for problem in printed]
        if len(similar) > len(printed):
            lines.append(f"... and {len(similar) - len(printed)} more rows like these (to row {similar[-1].row})")
    return lines


class InputError(EquigenError):
    """Input that cannot be used, with all of its problems, not only the first.

    Raised before any expensive work. ``problems`` keeps them as data; the text shows the first ``SHOWN``.
    """

    SHOWN = 20

    def __init__(self, title: str, problems: Sequence[Problem] = ()) -> None:
        self.title = title
        self.problems = list(problems)
        all_lines = problem_lines(self.problems)
        lines = [f"  {line}" for line in all_lines[: self.SHOWN]]
        hidden = len(all_lines) - self.SHOWN
        lines += [f"  ... and {hidden} more"] if hidden > 0 else []
        super().__init__(printable_text("\n".join([title, *lines])))
