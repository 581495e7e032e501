"""Convert columns of any pandas type to text cells."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

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
