"""The texts that mean a missing value in a table, the same for every command."""

from __future__ import annotations

from collections.abc import Iterable

UNKNOWN_WORDS = (
    "",
    "NA",
    "N/A",
    "#N/A",
    "<NA>",
    "NaN",
    "NaT",
    "null",
    "None",
    "?",
    "unknown",
    "unk",
    "missing",
    "not available",
    "not reported",
    "not known",
)
"""Default texts, compared without case and outer blanks; ``missing`` of a cohort adds to them."""


def unknown_words(texts: Iterable[str] = UNKNOWN_WORDS) -> frozenset[str]:
    """Return texts in the form in which cells are compared: casefolded, without outer blanks."""
    return frozenset(text.strip().casefold() for text in texts)


_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"


def means_unknown(cell: str, missing: frozenset[str]) -> bool:
    """Whether a cell means a missing value; ``missing`` comes from ``unknown_words``.

    >>> means_unknown(" Unknown ", unknown_words())
    True
    """
    text = cell.strip().strip(_INVISIBLE).strip().casefold()
    return text == "" or text in missing
