"""Errors that a user can mend: each names the place, the value and the way out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

ALIKE = 20  # problems of one kind that are each given their line


class EquigenError(Exception):
    """Base of every error that equigen raises on purpose; the command prints it without a traceback."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with the input: where it stands, what it is, and how to mend it.

    ``row`` counts as a spreadsheet does: the header is row 1, the first data row is row 2. None means the
    problem is not of one row. ``column`` and ``file`` are None where they do not apply.
    """

    message: str
    mend: str
    row: int | None = None
    column: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        """Place, message and mend on one line."""
        place = [f"row {self.row}"] if self.row is not None else []
        place += [f"column '{self.column}'"] if self.column is not None else []
        place += [self.file] if self.file is not None else []
        head = ", ".join(place)
        return readable(f"{head + ': ' if head else ''}{self.message} ({self.mend})")


def readable(text: str) -> str:
    """The same text with bytes that are no UTF-8 (of a file's name) written out, so that it can be printed."""
    return text.encode("utf-8", "backslashreplace").decode()


def problem_lines(problems: Sequence[Problem]) -> list[str]:
    """A line for every problem, but three and a count for those of one kind (alike but for row and quoted words)."""
    kinds: dict[tuple[str, str | None, str | None], list[Problem]] = {}
    for problem in problems:
        message = re.sub(r"'[^']*'", "''", problem.message) if problem.row is not None else str(id(problem))
        kinds.setdefault((message, problem.column, problem.file), []).append(problem)
    lines = []
    for alike in kinds.values():
        short = alike if len(alike) <= ALIKE else alike[:3]
        lines += [str(problem) for problem in short]
        if len(alike) > len(short):
            lines.append(f"... and {len(alike) - len(short)} more rows like these (to row {alike[-1].row})")
    return lines


class InputError(EquigenError):
    """Input that cannot be used, with every problem found, not only the first.

    Raised before any expensive work. ``problems`` keeps them as data; the text shows the first ``SHOWN``.
    """

    SHOWN = 20

    def __init__(self, title: str, problems: Sequence[Problem] = ()) -> None:
        self.title = title
        self.problems = list(problems)
        told = problem_lines(self.problems)
        lines = [f"  {line}" for line in told[: self.SHOWN]]
        hidden = len(told) - self.SHOWN
        lines += [f"  ... and {hidden} more"] if hidden > 0 else []
        super().__init__(readable("\n".join([title, *lines])))
