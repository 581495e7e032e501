"""Errors that a user can mend: each names the place, the value and the way out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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
        return f"{head + ': ' if head else ''}{self.message} ({self.mend})"


class InputError(EquigenError):
    """Input that cannot be used, with every problem found, not only the first.

    Raised before any expensive work. ``problems`` keeps them as data; the text shows the first ``SHOWN``.
    """

    SHOWN = 20

    def __init__(self, title: str, problems: Sequence[Problem] = ()) -> None:
        self.title = title
        self.problems = list(problems)
        lines = [f"  {problem}" for problem in self.problems[: self.SHOWN]]
        hidden = len(self.problems) - self.SHOWN
        lines += [f"  ... and {hidden} more"] if hidden > 0 else []
        super().__init__("\n".join([title, *lines]))
