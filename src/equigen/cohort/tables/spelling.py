"""Spellings of one word that differ only in zeros, case, Unicode form or characters that cannot be seen."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from decimal import Decimal

from equigen.errors import Problem

_NUMBER = re.compile(r"[+-]?\d{1,400}(\.\d{1,400})?")
_PLAIN_NUMBER = re.compile(r"[1-9][0-9]{0,20}")  # what a number is folded to already
_LEADING_ZEROS = re.compile(r"(?<![\d.,])0+(?=\d)")
_ROUNDED = re.compile(r"[+-]?\d(?:[.,]\d+)?[eE]\+\d+")
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212"), "-")
SHOWN = 5


def fold_spelling(text: str) -> str:
    """A text without what tells its spellings apart.

    Compatibility form of Unicode, case, blanks, dashes, invisible characters, leading zeros of whole numbers, and zeros
    behind a decimal point are made the same.

    >>> [fold_spelling(text) for text in (" 007 ", "NF\u200b", "1.05")]
    ['7', 'nf', '1.05']
    """
    plain = text
    if not text.isascii():  # ASCII has one form alone, and nothing invisible of the kind Cf
        plain = unicodedata.normalize("NFKC", text).translate(_DASHES)
        plain = "".join(sign for sign in plain if unicodedata.category(sign) != "Cf")
    plain = " ".join(plain.casefold().split())
    plain = plain if plain.isascii() else unicodedata.normalize("NFC", plain)
    if plain[-1:].isdigit() and _NUMBER.fullmatch(plain):
        if _PLAIN_NUMBER.fullmatch(plain):
            return plain
        number = Decimal(plain)
        return f"{number.normalize():f}" if number else "0"
    return _LEADING_ZEROS.sub("", plain) if not plain.isascii() or "0" in plain else plain


def spelling_variants(values: Iterable[str]) -> list[dict[str, int]]:
    """Groups of values that ``fold_spelling`` makes the same: each a mapping of spelling to its number of rows.

    >>> spelling_variants(["7", "007", "8", "7"])
    [{'7': 2, '007': 1}]
    """
    groups: dict[str, dict[str, int]] = {}
    for value, count in Counter(values).items():
        groups.setdefault(fold_spelling(value), {})[value] = count
    return [group for group in groups.values() if len(group) > 1]


def spelling_warnings(
    values: Iterable[str], what: str, column: str, same: Callable[[str], str] = str
) -> list[Problem]:
    """Warnings about values of a column that differ only in their spelling; ``same`` gives what each is taken for."""
    groups = spelling_variants(values)
    warnings = []
    for group in groups[:SHOWN]:
        spellings = ", ".join(f"{visible(value)} ({count} row{'s' * (count > 1)})" for value, count in group.items())
        number = len({same(value) for value in group})
        taken = "are taken for the same" if number == 1 else f"are taken for {number} different ones"
        message = f"{what}: {spellings} differ only in zeros, case, blanks or invisible characters and {taken}"
        warnings.append(Problem(message, "write them the same where they are the same", column=column))
    if len(groups) > SHOWN:
        message = f"{what}: {len(groups) - SHOWN} more values have several spellings"
        warnings.append(Problem(message, "write them the same where they are the same", column=column))
    return warnings


def visible(value: str) -> str:
    r"""A value in quotes, with the code of each character that cannot be seen or is composed in another form.

    >>> visible("F\u200b")
    "'F\\u200b'"
    """
    hidden = {"Cf", "Cc", "Zs", "Mn", "Zl", "Zp"}
    signs = (
        f"\\u{ord(sign):04x}" if sign != " " and unicodedata.category(sign) in hidden else sign for sign in value
    )
    return f"'{''.join(signs)}'"


def is_rounded(value: str) -> bool:
    """Whether a spreadsheet rounded a long number: ``1.23457E+11``."""
    return _ROUNDED.fullmatch(value.strip()) is not None

