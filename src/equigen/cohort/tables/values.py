"""Cells of a table: their text, the words for a missing value, and names in several spellings."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from equigen.errors import Problem

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


EXACT = 2.0**53  # integers of this size and more are rounded in floating point


def text_cells(column: pd.Series) -> list[str] | None:
    """Return a column's values as text, "" if missing; None for lists, mappings, arrays or raw bytes.

    Whole floating-point numbers lose their ``.0`` (a missing cell makes a column of whole numbers one of floats), dates
    without a time of day are dates alone, and booleans are ``True`` and ``False``.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        levels = text_cells(pd.Series(column.cat.categories))
        return None if levels is None else [levels[code] if code >= 0 else "" for code in column.cat.codes]
    if pd.api.types.is_float_dtype(column.dtype):  # with the digits of their own precision: 0.1 of float32 is 0.1
        kind: Any = getattr(column.dtype, "numpy_dtype", column.dtype)
        return [_number_text(value) for value in column.to_numpy(dtype=kind, na_value=np.nan)]
    cells = [_value_text(value) for value in column.astype(object)]
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        midnight = " 00:00:00"
        if all(cell in ("", None) or midnight in str(cell) for cell in cells):
            cells = [str(cell).partition(midnight)[0] for cell in cells]
    texts = [cell for cell in cells if cell is not None]
    return texts if len(texts) == len(cells) else None


def _number_text(value: Any) -> str:
    """Return a floating-point number as text; an integer without ``.0`` while it is exact."""
    if np.isnan(value):
        return ""
    if np.isfinite(value) and float(value).is_integer():
        return str(int(value)) if abs(value) < EXACT else np.format_float_scientific(value, trim="-")
    return str(value)


def _value_text(value: Any) -> str | None:
    """Return one value as text; None for a value that is not scalar."""
    text: str | None
    if isinstance(value, bytes):
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = None
    elif isinstance(value, list | tuple | set | frozenset | Mapping | np.ndarray | np.void):
        text = None
    elif value is None or value is pd.NA or value is pd.NaT:
        text = ""
    elif isinstance(value, float | np.floating):
        text = _number_text(value)
    elif isinstance(value, Decimal):
        text = "" if value.is_nan() else f"{value:f}"
    else:
        text = "" if isinstance(value, np.datetime64 | np.timedelta64) and np.isnat(value) else str(value)
    return text


_NUMBER = re.compile(r"[+-]?\d{1,400}(\.\d{1,400})?")
_PLAIN_NUMBER = re.compile(r"[1-9][0-9]{0,20}")  # a number in its folded form
_LEADING_ZEROS = re.compile(r"(?<![\d.,])0+(?=\d)")
_ROUNDED = re.compile(r"[+-]?\d(?:[.,]\d+)?[eE]\+\d+")
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212"), "-")
SHOWN = 5


def fold_spelling(text: str) -> str:
    """Return a text in the form that is the same for all of its spellings.

    Compatibility form of Unicode, case, blanks, dashes, invisible characters, leading zeros of whole numbers, and zeros
    behind a decimal point are made the same.

    >>> [fold_spelling(text) for text in (" 007 ", "NF\u200b", "1.05")]
    ['7', 'nf', '1.05']
    """
    plain = text
    if not text.isascii():  # ASCII has a single Unicode form and no invisible characters
        plain = unicodedata.normalize("NFKC", text).translate(_DASHES)
        plain = "".join(character for character in plain if unicodedata.category(character) != "Cf")
    plain = " ".join(plain.casefold().split())
    plain = plain if plain.isascii() else unicodedata.normalize("NFC", plain)
    if plain[-1:].isdigit() and _NUMBER.fullmatch(plain):
        if _PLAIN_NUMBER.fullmatch(plain):
            return plain
        number = Decimal(plain)
        return f"{number.normalize():f}" if number else "0"
    return _LEADING_ZEROS.sub("", plain) if not plain.isascii() or "0" in plain else plain


def spelling_variants(values: Iterable[str]) -> list[dict[str, int]]:
    """Return groups of values with the same ``fold_spelling``, each a mapping of spelling to its number of rows.

    >>> spelling_variants(["7", "007", "8", "7"])
    [{'7': 2, '007': 1}]
    """
    groups: dict[str, dict[str, int]] = {}
    for value, count in Counter(values).items():
        groups.setdefault(fold_spelling(value), {})[value] = count
    return [group for group in groups.values() if len(group) > 1]


def spelling_warnings(
    values: Iterable[str], subject: str, column: str, canonical_form: Callable[[str], str] = str
) -> list[Problem]:
    """Return warnings of values that differ only in spelling; ``canonical_form`` gives the level of a value."""
    groups = spelling_variants(values)
    warnings = []
    for group in groups[:SHOWN]:
        counts = (f"{quote_visible(value)} ({count} row{'s' * (count > 1)})" for value, count in group.items())
        spellings = ", ".join(counts)
        number = len({canonical_form(value) for value in group})
        consequence = "are taken for the same" if number == 1 else f"are taken for {number} different ones"
        message = f"{subject}: {spellings} differ only in zeros, case, blanks or invisible characters and {consequence}"
        warnings.append(Problem(message, "write them the same where they are the same", column=column))
    if len(groups) > SHOWN:
        message = f"{subject}: {len(groups) - SHOWN} more values have several spellings"
        warnings.append(Problem(message, "write them the same where they are the same", column=column))
    return warnings


def quote_visible(value: str) -> str:
    r"""Return a value in quotes, with invisible and combining characters as escape codes.

    >>> quote_visible("F\u200b")
    "'F\\u200b'"
    """
    hidden = {"Cf", "Cc", "Zs", "Mn", "Zl", "Zp"}
    characters = (
        f"\\u{ord(character):04x}" if character != " " and unicodedata.category(character) in hidden else character
        for character in value
    )
    return f"'{''.join(characters)}'"


def is_rounded(value: str) -> bool:
    """Whether a spreadsheet rounded a long number: ``1.23457E+11``."""
    return _ROUNDED.fullmatch(value.strip()) is not None
