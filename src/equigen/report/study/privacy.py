"""Real images and file names on a page: whether names could be those of persons, and notices to the reader."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import pandas as pd

from equigen.report.images import ClosePairs, Grid

MIN_LETTERS = 3  # shorter words are initials, sides or views
_WORD = re.compile(rf"[^\W\d_]{{{MIN_LETTERS},}}")
_ROW = re.compile(r"row \d+")  # an image in memory, which has no file
_DIGEST = re.compile(r"\b[0-9a-f]{8,}\b", re.IGNORECASE)
_COLUMNS = ("generated", "training")


def could_name_people(names: Iterable[str]) -> bool:
    """Whether file names hold words that tell files apart, as names of persons do.

    A word of at least three letters that most of the names share (``ISIC_0024306``, ``ISIC_0031217``) says nothing of
    one file; any other word, in the file's or a folder's name, could be a person's. Suffixes and hexadecimal digests
    are no words. Fewer than three names share nothing.

    >>> could_name_people(["ISIC_0024306.jpg", "ISIC_0031217.jpg", "ISIC_0029999.jpg"])
    False
    >>> could_name_people(["scan_mueller.png", "scan_okafor.png", "scan_ivanova.png"])
    True
    """
    word_sets = []
    for name in dict.fromkeys(names):
        if not _ROW.fullmatch(name):
            path = PurePosixPath(name.replace("\\", "/"))
            text = _DIGEST.sub(" ", " ".join([*path.parts[:-1], path.stem]))
            word_sets.append({word.casefold() for word in _WORD.findall(text)})
    counts = Counter(word for name_words in word_sets for word in name_words)
    shared = {word for word, count in counts.items() if len(word_sets) > 2 and 2 * count > len(word_sets)}
    return any(name_words - shared for name_words in word_sets)


def hide_names(copies: pd.DataFrame | None, blind: bool, names: bool | None) -> tuple[pd.DataFrame | None, bool]:
    """The table of closest pairs with file names where they may be shown, and whether any were left out.

    ``names``: True shows them, False leaves them out, None leaves out a column whose names could be people's. Instead
    of a name stands its row, "image 3". ``blind`` leaves them out whatever ``names`` says.
    """
    if copies is None or copies.empty:
        return copies, False
    table = copies.copy()
    hidden = [
        column for column in _COLUMNS
        if blind or names is False or (names is None and could_name_people(map(str, table[column])))
    ]  # fmt: skip
    for column in hidden:
        table[column] = [f"image {row}" for row in range(1, len(table) + 1)]
    return table, bool(hidden)


def remove_real_images(grids: Sequence[Grid], copies: Sequence[ClosePairs]) -> tuple[list[Grid], list[ClosePairs]]:
    """Grids of generated images alone, and no pairs, since each shows a training image."""
    return [replace(grid, real=None) for grid in grids if grid.generated], []


def privacy_notices(
    grids: Sequence[Grid], copies: Sequence[ClosePairs], names: bool, *, blind: bool, phantom: bool, hidden: bool
) -> list[str]:
    """Notices on real images and file names; empty where the page shows none.

    ``names``: whether file names stand on the page; ``hidden``: whether some were left out.
    """
    if phantom:
        return []
    if blind:
        return ["Real images and file names are left out of this page (--blind)."]
    tiles = sum(grid.real.shape[0] * grid.real.shape[1] for grid in grids if grid.real is not None)
    training = sum(len(pairs.training) for pairs in copies)
    images = [f"{tiles} held-out images"] * bool(tiles) + [f"{training} training images"] * bool(training)
    lines = []
    if images:
        suffix = ", with their file names" if names else ""
        lines.append(
            f"This page shows real images of patients: {' and '.join(images)}{suffix}. Make sure that everybody who "
            "gets it may see them; --blind leaves them out."
        )
    if hidden:
        lines.append("File names are left out, since they could be names of persons; --names shows them.")
    return lines
