"""Plans as files: csv or tsv for editing in spreadsheets, or parquet."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd

from equigen.cohort import UNKNOWN_WORDS, means_unknown, read_table, table_suffix, text_cells, unknown_words
from equigen.errors import InputError, Problem
from equigen.files import write_text
from equigen.parquet import read_parquet, write_parquet

SEPARATORS = {".csv": ",", ".tsv": "\t"}
KINDS = (*SEPARATORS, ".parquet")
UNKNOWN = "unknown"  # of a label or attribute; in a csv an empty label means no finding
ABSENT = unknown_words(UNKNOWN_WORDS) - {"none"}  # "none" may be a level; `generate` checks that
NUMBERS = {"guidance": float, "guidance_low": float, "guidance_high": float, "steps": int, "seed": int, "pair": int}
LARGEST = 2**63 - 1
DTYPES = {int: "int64", float: "float64", str: "object"}
NOT_INTEGER = "is no whole number"


def write_plan(path: str | Path, rows: pd.DataFrame) -> Path:
    """Write a plan atomically as csv, tsv or parquet; in text an unknown label or attribute is "unknown"."""
    file = _check_suffix(Path(path), Path(path).suffix.lower())
    if file.suffix.lower() == ".parquet":
        table = rows.copy()
        table.attrs = {}  # a file names the guidance of its rows
        write_parquet(file, table)
        return file
    table = rows.copy()
    for column in (str(name) for name in rows.columns if str(name).startswith(("label.", "attr."))):
        table[column] = rows[column].astype(object).where(rows[column].notna(), UNKNOWN)
    write_text(file, table.to_csv(index=False, sep=SEPARATORS[file.suffix.lower()]))
    return file


def read_plan(path: str | Path) -> pd.DataFrame:
    """Read a plan from csv, tsv or parquet; ``generate`` checks its conditions.

    In csv and tsv an empty cell is missing, except in a label, where it is an image without a finding. In a label or
    attribute every word of ``equigen.cohort.tables.values`` but "none" means "not known". Raises InputError for
    a missing or unreadable file, and for invalid numbers with row and column.
    """
    file = _check_suffix(Path(path), table_suffix(path))
    if not file.is_file():
        problem = Problem("there is no such file", "give a table that `equigen plan` wrote", file=str(file))
        raise InputError("There is no plan.", [problem])
    try:
        binary = table_suffix(file) == ".parquet"
        frame = read_parquet(file).reset_index(drop=True) if binary else read_table(file)
    except InputError as error:
        raise InputError("The plan cannot be read.", error.problems) from error
    # Columns of parquet have types; only those of integers may hold something else.
    names = [name for name, kind in NUMBERS.items() if kind is int and name in frame] if binary else list(frame.columns)
    columns: dict[str, pd.Series] = {}
    problems: list[Problem] = []
    for name in map(str, names):
        cells = text_cells(frame[name]) or [""] * len(frame) if binary else [str(cell).strip() for cell in frame[name]]
        values = []
        for row, cell in zip(range(2, len(frame) + 2) if binary else frame.index, cells, strict=True):
            value, fault = _parse_number(name, cell) if name in NUMBERS else (_parse_text(name, cell), None)
            values.append(value)
            if fault is not None:
                problems.append(Problem(f"'{cell}' {fault[0]}", fault[1], file=str(file), row=int(row), column=name))
        columns[name] = pd.Series(values, dtype=DTYPES[NUMBERS.get(name, str)])
    if problems:
        raise InputError("The plan cannot be read.", problems)
    return frame.assign(**columns) if binary else pd.DataFrame(columns)


def _check_suffix(file: Path, suffix: str) -> Path:
    """The file; InputError where its suffix is of no format of plans."""
    if suffix not in KINDS:
        problem = Problem("is no kind of table that is known", f"name it with {', '.join(KINDS)}", file=str(file))
        raise InputError("This cannot hold a plan.", [problem])
    return file


def _parse_text(column: str, cell: str) -> str | None:
    """A cell's text; None for one that means "not known" in a condition, and for an empty one elsewhere."""
    if not column.startswith(("label.", "attr.")):
        return cell or None
    if column.startswith("label.") and cell == "":
        return cell
    return None if means_unknown(cell, ABSENT) else cell


def _parse_number(column: str, cell: str) -> tuple[float | None, tuple[str, str] | None]:
    """A cell's number and its fault (message, mend) or None; an empty cell of an optional column is None."""
    if cell == "" and column.startswith("guidance_"):
        return None, None
    if NUMBERS[column] is int:
        if re.fullmatch(r"[+-]?[0-9]{1,30}(\.0+)?", cell) is None:
            return 0, (NOT_INTEGER, "write it out; a spreadsheet rounds long numbers unless their column is text")
        integer, least = int(cell.partition(".")[0]), 1 if column == "steps" else 0
        in_range = least <= integer <= LARGEST
        return (
            (integer, None) if in_range else (0, ("is out of range", f"give a whole number from {least} to 2**63 - 1"))
        )
    try:
        number = float(cell)
    except ValueError:
        comma = re.fullmatch(r"[+-]?[0-9]+,[0-9]+", cell) is not None
        return 0.0, ("is no number", f"write {cell.replace(',', '.')}" if comma else "give one, such as 2")
    if math.isfinite(number) and "_" not in cell:
        return number, None
    return 0.0, ("is no number", "give one, such as 2")
