"""Cells of a table of predictions: text to truth, score, split, seed and names of groups."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from equigen.cohort import means_unknown, normalize_cell

TRUTHS = {"0": 0.0, "1": 1.0, "false": 0.0, "true": 1.0}
ROUNDING = 1e-6  # a probability may lie this far outside [0, 1] by the rounding of single precision
_WHOLE = re.compile(r"[+-]?[0-9]+")


def by_cell(cells: pd.Series, function: Callable[[str], Any]) -> pd.Series:
    """Values of ``function`` by row, asked once for each distinct text.

    Args:
        cells: [N] text by row number.
        function: from the text of a cell to its value.

    Returns:
        [N] objects by row number.

    """
    codes, distinct = pd.factorize(cells.to_numpy(dtype=object))
    values = np.empty(len(distinct), dtype=object)
    values[:] = [function(str(cell)) for cell in distinct]
    return pd.Series(values[codes], index=cells.index, dtype=object)


def names_of(cells: pd.Series, unknown: frozenset[str]) -> pd.Series:
    """Names by row, without outer blanks and without the ``.0`` of whole numbers; None where unknown."""
    return by_cell(cells, lambda cell: None if _unknown(cell, unknown) else normalize_cell(cell))


def _unknown(cell: str, unknown: frozenset[str]) -> bool:
    """Whether a cell means "not known", as it is written or without the ``.0`` of a whole number."""
    return means_unknown(cell, unknown) or means_unknown(normalize_cell(cell), unknown)


def numbers_of(cells: pd.Series) -> pd.Series:
    """Numbers by row in full precision; NaN for what is no number.

    >>> numbers_of(pd.Series(["0.25", "1e-3", "half"])).tolist()
    [0.25, 0.001, nan]
    """
    return pd.Series([_number(cell) for cell in cells], index=cells.index, dtype=np.float64)


def _number(cell: str) -> float:
    try:
        return float(cell) if "_" not in cell else math.nan
    except ValueError:
        return math.nan


def truth_of(cells: pd.Series, positive: str | None) -> pd.Series:
    """Truth by row: 1.0, 0.0, or NaN for what says neither.

    Args:
        cells: [N] text by row number.
        positive: the word that means 1, every other word then means 0; None reads 0, 1, true and false.

    """
    if positive is not None:
        word = normalize_cell(positive)
        return by_cell(cells, lambda cell: float(normalize_cell(cell) == word)).astype(float)
    return by_cell(cells, _truth).astype(float)


def _truth(cell: str) -> float:
    value = TRUTHS.get(normalize_cell(cell).casefold())
    number = _number(cell) if value is None else value
    return number if number in (0.0, 1.0) else math.nan


def without_rounding(scores: pd.Series) -> tuple[pd.Series, int]:
    """Scores with those that rounding put outside [0, 1] set to 0 or 1, and how many these are.

    >>> without_rounding(pd.Series([1.0000001, 0.5, 1.1]))[0].tolist()
    [1.0, 0.5, 1.1]
    """
    inside = scores.clip(0, 1)
    near = (scores != inside) & ((scores - inside).abs() <= ROUNDING)
    return scores.mask(near, inside), int(near.sum())


def seeds_of(names: pd.Series) -> pd.Series:
    """Seeds by row: whole numbers where every one is a whole number, else text."""
    if all(_WHOLE.fullmatch(name) for name in names.unique()):
        return by_cell(names, int).astype(np.int64)
    return names


def split_word(cell: str) -> str:
    """The word of a split without case and outer blanks."""
    return cell.strip().casefold()
