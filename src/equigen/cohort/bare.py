"""Roles for tables and folders that come without a YAML file: what to evaluate or audit, all of it "test"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from equigen.cohort.images import SUFFIXES
from equigen.errors import InputError, Problem


def table_values(
    table: Path,
    groups: Sequence[str] | Mapping[str, str],
    labels: Sequence[str] | Mapping[str, str],
    image: str,
    patient: str | None,
    root: str,
) -> dict[str, Any]:
    """A cohort specification for a table, as a mapping."""
    return {
        "name": _name(table),
        "table": table.name,
        "image": {"column": image, "root": root},
        "patient": patient,
        "split": {"fractions": {"test": 1.0}},
        "labels": {name: {"kind": "multiclass", "column": column} for name, column in _columns(labels).items()},
        "attributes": {name: {"column": column} for name, column in _columns(groups).items()},
    }


def _columns(names: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Name -> column; a bare name is its own column."""
    return dict(names) if isinstance(names, Mapping) else {name: name for name in names}


def folder_values(folder: Path, groups: list[str]) -> tuple[dict[str, Any], pd.DataFrame]:
    """A cohort specification for a folder of images, and the table that it lacks.

    Raises:
        InputError: groups are asked of it, or it has no image.

    """
    if groups:
        problem = Problem(f"groups: {', '.join(groups)}", "give a table with these columns", file=str(folder))
        raise InputError("A folder of images has no groups.", [problem])
    found = sorted(item.relative_to(folder).as_posix() for item in folder.rglob("*") if _is_image(item))
    if not found:
        problem = Problem("there is no image in it", f"it may hold {', '.join(SUFFIXES)}", file=str(folder))
        raise InputError("The folder has no images.", [problem])
    values = {
        "name": _name(folder),
        "table": folder.name or ".",
        "image": {"column": "file"},
        "patient": None,
        "split": {"fractions": {"test": 1.0}},
    }
    index = pd.RangeIndex(2, len(found) + 2, name="row")
    return values, pd.DataFrame({"file": found}, index=index, dtype=object)


def _is_image(item: Path) -> bool:
    return item.suffix.lower() in SUFFIXES and not item.name.startswith(".") and item.is_file()


def _name(place: Path) -> str:
    """A cohort's name from a file's or folder's."""
    stem = place.resolve().stem
    kept = "".join(letter if letter.isalnum() or letter in "_.- " else "_" for letter in stem)
    return kept.lstrip(".- ") or "table"
