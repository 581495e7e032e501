"""Find spellings of one value that differ only in zeros, case, Unicode form or invisible characters."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from decimal import Decimal

from equigen.errors import Problem

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
