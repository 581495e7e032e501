"""Order the levels of a binary label as [negative, positive] if they are not listed."""

from __future__ import annotations

import re

from equigen.errors import Problem

_PAIRS = {
    ("0", "1"), ("false", "true"), ("f", "t"), ("no", "yes"), ("n", "y"), ("negative", "positive"), ("neg", "pos"),
    ("absent", "present"), ("-", "+"), ("control", "case"),
}  # fmt: skip
_NEGATIVE = {"normal", "healthy", "benign", "negative", "absent", "control", "unaffected", "no finding", "no findings"}
_WITHOUT = re.compile(r"(no|non|not|without)[ _-]+\w.*")


def binary_order(levels: list[str], subject: str, column: str) -> tuple[list[str], list[Problem]]:
    """Return two levels as [negative, positive] if their words tell, else unchanged with a problem.

    Recognised are pairs such as 0 and 1, no and yes, and a word for health ("normal", "benign", "no X") against another
    word.

    >>> binary_order(["glaucoma", "normal"], "label 'dx'", "dx")
    (['normal', 'glaucoma'], [])
    """
    first, second = (" ".join(level.casefold().split()) for level in levels)
    if (first, second) in _PAIRS or (_is_negative(first) and _is_positive(second)):
        return levels, []
    if (second, first) in _PAIRS or (_is_negative(second) and _is_positive(first)):
        return levels[::-1], []
    choices = f"levels: [{levels[0]}, {levels[1]}] or levels: [{levels[1]}, {levels[0]}]"
    message = f"{subject} is binary, and its column does not say whether '{levels[0]}' or '{levels[1]}' is positive"
    return levels, [Problem(message, f"write {choices}: the negative one first", column=column)]


def _is_negative(word: str) -> bool:
    return word in _NEGATIVE or _WITHOUT.fullmatch(word) is not None


def _is_positive(word: str) -> bool:
    """Whether a word can be the positive level: no number, truth value or word for health."""
    plain = {name for pair in _PAIRS for name in pair} - {"positive", "present", "pos", "case"}
    return not _is_negative(word) and word not in plain and not re.fullmatch(r"[+-]?[\d.,]+", word)
