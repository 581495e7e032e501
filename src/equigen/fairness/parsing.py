"""Parsing of the cells of a table of predictions: truth, score, split, seed and names of groups."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from equigen.cohort import means_unknown, normalize_cell

TRUTHS = {"0": 0.0, "1": 1.0, "false": 0.0, "true": 1.0}
ROUNDING = 1e-6  # rounding error of a probability in single precision
_INTEGER = re.compile(r"[+-]?[0-9]+")


def map_cells(cells: pd.Series, function: Callable[[str], Any]) -> pd.Series:
    """Values of ``function`` by row, computed once for each distinct text.

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


def parse_names(cells: pd.Series, unknown: frozenset[str]) -> pd.Series:
    """Names by row, without outer blanks and the ``.0`` of integers; None where unknown, as written or normalised."""

    def name(cell: str) -> str | None:
        normal = normalize_cell(cell)
        return None if means_unknown(cell, unknown) or means_unknown(normal, unknown) else normal

    return map_cells(cells, name)


def parse_numbers(cells: pd.Series) -> pd.Series:
    """Numbers by row in full precision; NaN for other text.

    >>> parse_numbers(pd.Series(["0.25", "1e-3", "half"])).tolist()
    [0.25, 0.001, nan]
    """
    return pd.Series([_number(cell) for cell in cells], index=cells.index, dtype=np.float64)


def _number(cell: str) -> float:
    try:
        return float(cell) if "_" not in cell else math.nan
    except ValueError:
        return math.nan


def parse_truth(cells: pd.Series, positive: str | None) -> pd.Series:
    """Truth by row: 1.0, 0.0, or NaN for other text.

    Args:
        cells: [N] text by row number.
        positive: the word that means 1, all others then mean 0; None reads 0, 1, true and false.

    """
    if positive is not None:
        word = normalize_cell(positive)
        return map_cells(cells, lambda cell: float(normalize_cell(cell) == word)).astype(float)

    def truth(cell: str) -> float:
        value = TRUTHS.get(normalize_cell(cell).casefold())
        number = _number(cell) if value is None else value
        return number if number in (0.0, 1.0) else math.nan

    return map_cells(cells, truth).astype(float)


def clip_rounding(scores: pd.Series) -> tuple[pd.Series, int]:
    """Scores with those outside [0, 1] by rounding set to 0 or 1, and their number.

    >>> clip_rounding(pd.Series([1.0000001, 0.5, 1.1]))[0].tolist()
    [1.0, 0.5, 1.1]
    """
    inside = scores.clip(0, 1)
    rounded = (scores != inside) & ((scores - inside).abs() <= ROUNDING)
    return scores.mask(rounded, inside), int(rounded.sum())


def parse_seeds(names: pd.Series) -> pd.Series:
    """Seeds by row: integers where all are integers, else text."""
    if all(_INTEGER.fullmatch(name) for name in names.unique()):
        return map_cells(names, int).astype(np.int64)
    return names


def parse_split(cell: str) -> str:
    """The name of a split in lower case without outer blanks."""
    return cell.strip().casefold()
