"""Columns that stand inside the images' own NPZ files: ``@npz:race`` is the value under ``race``."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from equigen.errors import Problem

MEMBER = "@npz:"


def add_members(table: pd.DataFrame, columns: Iterable[str], paths: list[str]) -> list[Problem]:
    """Fill the ``@npz:KEY`` columns of a table from each row's image file; "" where the row has no image.

    A value is a single number, truth value or text; arrays of Python objects are refused, never unpickled.

    Returns:
        The problems of rows whose file is no NPZ, lacks the key, or holds something else there.

    """
    keys = sorted({column for column in columns if column.startswith(MEMBER)})
    problems: list[Problem] = []
    for column in keys:
        cells = [_value(path, column.removeprefix(MEMBER)) for path in paths]
        table[column] = pd.Series([_text(cell) for cell in cells], index=table.index, dtype=object)
        for row, cell in zip(table.index, cells, strict=True):
            if isinstance(cell, tuple):
                problems.append(Problem(cell[0], cell[1], row=int(row), column=column))
    return problems


def _text(cell: str | tuple[str, str]) -> str:
    return "" if isinstance(cell, tuple) else cell


def _value(path: str, key: str) -> str | tuple[str, str]:
    """The value as text, or (message, mend)."""
    if not path:
        return ""
    name = Path(path).name
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                return f"'{name}' is no NPZ", "take the column from the table instead"
            if key not in archive.files:
                return f"'{name}' has no '{key}'", f"it has: {', '.join(archive.files[:12])}"
            value = archive[key]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return (
            f"'{key}' in '{name}' is no single plain value",
            "save numbers or text; objects are never unpickled",
        )
    if value.size != 1:
        return f"'{key}' in '{name}' is no single plain value", "save one number or text"
    return str(value.reshape(-1)[0])
