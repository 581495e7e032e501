"""The error of an image file that cannot be used, before its row in the table is known."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from equigen.errors import Problem


class ImageFault(Exception):
    """Error of one image file with its message and mend; never quotes a value of the file's header."""

    def __init__(self, message: str, mend: str) -> None:
        super().__init__(message)
        self.message, self.mend = message, mend

    def problem(self, file: str, row: int | None = None, column: str | None = None) -> Problem:
        """Return the error as a ``Problem`` with file, row and column."""
        return Problem(f"the image {file} {self.message}", self.mend, row=row, column=column)


_FILTER = ("ignore", None, Warning, re.compile(r"(PIL|pydicom|numpy\.lib)(\.|$)"), 0)
_lock = threading.Lock()
_decoders: list[None] = []  # one entry for each decoder that runs


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Silence the warnings of the libraries that decode images while a block runs; safe in threads.

    Their text may quote a file's header, and what they warn of is checked here. ``warnings.catch_warnings`` would let
    two threads undo each other's filters.
    """
    filters: list[object] = warnings.filters  # type: ignore[assignment]
    with _lock:
        _decoders.append(None)
        if _FILTER not in filters[:1]:
            filters.insert(0, _FILTER)
    try:
        yield
    finally:
        with _lock:
            _decoders.pop()
            filters = warnings.filters  # type: ignore[assignment]
            while not _decoders and _FILTER in filters:
                filters.remove(_FILTER)
