"""The words that mean "not known" in a table: one list for every command."""

from __future__ import annotations

from collections.abc import Iterable

UNKNOWN_WORDS = (
    "", "NA", "N/A", "#N/A", "<NA>", "NaN", "NaT", "null", "None", "?", "unknown", "unk", "missing",
    "not available", "not reported", "not known",
)
"""Default words, compared without case and outer blanks; ``missing`` of a cohort adds to them."""


def unknown_words(words: Iterable[str] = UNKNOWN_WORDS) -> frozenset[str]:
    """Words in the form in which cells are compared: casefolded, without outer blanks."""
    return frozenset(word.strip().casefold() for word in words)


_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"


def means_unknown(cell: str, words: frozenset[str]) -> bool:
    """Whether a cell's text means "not known"; ``words`` come from ``unknown_words``.

    >>> means_unknown(" Unknown ", unknown_words())
    True
    """
    text = cell.strip().strip(_INVISIBLE).strip().casefold()
    return text == "" or text in words
