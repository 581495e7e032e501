"""Columns read from files: ``@npz:race`` from the image's own NPZ, ``@json:race`` from the JSON of its sample.

Files of one sample share the part of their name before the first dot: ``000123.jpg`` goes with ``000123.json``, in
the same shard or folder (the WebDataset convention).
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from equigen.cohort.images.arrays import read_value
from equigen.cohort.images.faults import ImageFault, quiet_decoders
from equigen.cohort.images.sources import open_image
from equigen.errors import Problem

MEMBERS = ("@npz:", "@json:")

Cell = str | tuple[str, str]  # the value as text, or (message, mend)


def add_members(table: pd.DataFrame, columns: Collection[str], paths: list[str]) -> list[Problem]:
    """Fill the ``@npz:KEY`` and ``@json:KEY`` columns of a table; "" where the row has no image.

    A value is a single number, truth value or text; arrays of Python objects are refused, never unpickled.

    Returns:
        The problems of rows whose file is no NPZ or JSON, lacks the key, or holds something else there.

    """
    problems = list[Problem]()
    for prefix in MEMBERS:
        keys = sorted({column.removeprefix(prefix) for column in columns if column.startswith(prefix)})
        rows: list[list[Cell]] = []
        for path in paths if keys else []:
            if not path:
                rows.append([""] * len(keys))
            elif prefix == "@npz:":
                rows.append([_npz_value(path, key) for key in keys])
            else:
                rows.append(_json_values(path, keys))
        for number, key in enumerate(keys):
            column, cells = prefix + key, [row[number] for row in rows]
            texts = ["" if isinstance(cell, tuple) else cell for cell in cells]
            table[column] = pd.Series(texts, index=table.index, dtype=object)
            problems += [
                Problem(cell[0], cell[1], row=int(row), column=column)
                for row, cell in zip(table.index, cells, strict=True)
                if isinstance(cell, tuple)
            ]
    return problems


def _npz_value(path: str, key: str) -> Cell:
    """Return the value of a key in an image's NPZ."""
    name = Path(path).name
    try:
        with open_image(Path(path)) as handle, quiet_decoders():
            if handle.read(2) != b"PK":
                return f"'{name}' is no NPZ", "take the column from the table instead"
            handle.seek(0)
            value = read_value(handle, key)
    except KeyError as error:
        return f"'{name}' has no '{key}'", f"it has: {', '.join(error.args[0][:12])}"
    except OSError as error:
        return f"'{name}' cannot be read: {error.strerror}", "copy it again from its source"
    except ImageFault as fault:
        return f"'{name}' {fault.message}, so its '{key}' is not read", fault.mend
    if value is None:
        return f"'{key}' in '{name}' is no single plain value", "save one number or text; objects are never unpickled"
    return str(value)


def _json_values(path: str, keys: list[str]) -> list[Cell]:
    """Return the value of each key in the JSON of an image's sample."""
    file = Path(path).with_name(Path(path).name.partition(".")[0] + ".json")
    try:
        with open_image(file) as handle:
            values = json.load(handle)
    except ImageFault:
        return [(f"there is no '{file.name}' with the image", "add it, or take the column from the table")] * len(keys)
    except (OSError, ValueError, RecursionError):
        return [(f"'{file.name}' is no JSON", "write it again, or take the column from the table")] * len(keys)
    if not isinstance(values, dict):
        return [(f"'{file.name}' holds no mapping of keys", "write one object a file")] * len(keys)
    cells = list[Cell]()
    for key in keys:
        value = values.get(key)
        if key not in values:
            cells.append((f"'{file.name}' has no '{key}'", f"it has: {', '.join(list(values)[:12])}"))
        elif isinstance(value, dict | list):
            cells.append((f"'{key}' in '{file.name}' is no single plain value", "save one number or text"))
        else:
            cells.append("" if value is None else str(value))
    return cells
