"""Why an image file cannot be used, before it is known which row names it."""

from __future__ import annotations

from equigen.errors import Problem


class ImageFault(Exception):
    """What is wrong with one image file, and the mend; never holds a value read from the file's header."""

    def __init__(self, message: str, mend: str) -> None:
        super().__init__(message)
        self.message, self.mend = message, mend

    def problem(self, file: str, row: int | None = None, column: str | None = None) -> Problem:
        """The fault with its place."""
        return Problem(f"the image {file} {self.message}", self.mend, row=row, column=column)
