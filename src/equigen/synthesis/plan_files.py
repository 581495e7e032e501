"""A plan as a file that people edit: csv or tsv for spreadsheets, or parquet."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from equigen.cohort import UNKNOWN_WORDS, means_unknown, read_table, table_suffix, text_cells, unknown_words
from equigen.errors import InputError, Problem
from equigen.files import read_parquet, write_parquet, write_text

SEPARATORS = {".csv": ",", ".tsv": "\t"}
KINDS = (*SEPARATORS, ".parquet")
UNKNOWN = "unknown"  # of a label or attribute; in a csv an empty label would mean that nothing is found
ABSENT = unknown_words(UNKNOWN_WORDS) - {"none"}  # "none" may be a level; where it is none, `generate` refuses it
NUMBERS = {"guidance": float, "guidance_low": float, "guidance_high": float, "steps": int, "seed": int, "pair": int}
LARGEST = 2**63 - 1
WHOLE = "is no whole number"


def write_plan(path: str | Path, rows: pd.DataFrame) -> Path:
    """Write a plan as csv, tsv or parquet, whole or not at all; in text an unknown label or attribute is "unknown"."""
    file = _named(Path(path), Path(path).suffix.lower())
    if file.suffix.lower() == ".parquet":
        write_parquet(file, rows)
        return file
    shown = rows.copy()
    for column in _conditions(rows):
        shown[column] = rows[column].astype(object).where(rows[column].notna(), UNKNOWN)
    write_text(file, shown.to_csv(index=False, sep=SEPARATORS[file.suffix.lower()]))
    return file


def read_plan(path: str | Path) -> pd.DataFrame:
    """Read a plan that ``write_plan`` wrote, or somebody by hand; what is in the columns is for ``generate`` to check.

    In csv and tsv an empty cell is none, but of a label: there it is an image without a finding. In a label or
    attribute every word of ``equigen.cohort.tables.unknown_words`` but "none" means "not known". Raises InputError for
    a file that is not there or cannot be read, and for numbers that are none, with row and column.
    """
    file = _named(Path(path), table_suffix(path))
    if not file.is_file():
        problem = Problem("there is no such file", "give a table that `equigen plan` wrote", file=str(file))
        raise InputError("There is no plan.", [problem])
    try:
        if table_suffix(file) == ".parquet":
            return _whole_seeds(read_parquet(file).reset_index(drop=True), file)
        return _typed(read_table(file), file)
    except InputError as error:
        raise InputError("The plan cannot be read.", error.problems) from error


def _whole_seeds(frame: pd.DataFrame, file: Path) -> pd.DataFrame:
    """A typed plan, once its columns of whole numbers hold nothing else."""
    problems: list[Problem] = []
    for name in (name for name, kind in NUMBERS.items() if kind is int and name in frame.columns):
        numbers, wrong = _numbers(name, text_cells(frame[name]) or [""] * len(frame), range(2, len(frame) + 2))
        problems += [replace(problem, file=str(file)) for problem in wrong]
        frame[name] = numbers if not wrong else frame[name]
    if problems:
        raise InputError("The plan cannot be read.", problems)
    return frame


def _named(file: Path, suffix: str) -> Path:
    if suffix not in KINDS:
        problem = Problem("is no kind of table that is known", f"name it with {', '.join(KINDS)}", file=str(file))
        raise InputError("This cannot hold a plan.", [problem])
    return file


def _conditions(rows: pd.DataFrame) -> list[str]:
    return [str(name) for name in rows.columns if str(name).startswith(("label.", "attr."))]


def _typed(frame: pd.DataFrame, file: Path) -> pd.DataFrame:
    """Words as text and missing ones as None, numbers as numbers."""
    made: dict[str, pd.Series] = {}
    problems: list[Problem] = []
    for name in frame.columns:
        cells = [str(cell).strip() for cell in frame[name]]
        if name in NUMBERS:
            made[str(name)], wrong = _numbers(str(name), cells, frame.index)
            problems += [replace(problem, file=str(file)) for problem in wrong]
        else:
            made[str(name)] = pd.Series([_word(str(name), cell) for cell in cells], dtype=object)
    if problems:
        raise InputError("The plan cannot be read.", problems)
    return pd.DataFrame(made)


def _word(column: str, cell: str) -> str | None:
    """A cell's text; None for one that means "not known" in a condition, and for an empty one elsewhere."""
    if not column.startswith(("label.", "attr.")):
        return cell or None
    if column.startswith("label.") and cell == "":
        return cell
    return None if means_unknown(cell, ABSENT) else cell


def _numbers(name: str, cells: Sequence[str], rows: Iterable[int]) -> tuple[pd.Series, list[Problem]]:
    """Cells as numbers, those of optional columns missing where they are empty; and what is wrong, with the row."""
    kind, wrong = NUMBERS[name], list[Problem]()
    values: list[float | int | None] = []
    for row, cell in zip(rows, cells, strict=True):
        if cell == "" and name.startswith("guidance_"):
            values.append(None)
            continue
        number, fault = _whole(cell, 1 if name == "steps" else 0) if kind is int else _real(cell)
        values.append(number)
        wrong += [Problem(f"'{cell}' {fault[0]}", fault[1], row=int(row), column=name)] if fault else []
    return pd.Series(values, dtype="float64" if kind is float else "int64"), wrong


def _whole(cell: str, least: int) -> tuple[int, tuple[str, str] | None]:
    """A whole number of at least ``least`` that 64 bits hold, and what is wrong with it: (message, mend)."""
    if re.fullmatch(r"[+-]?[0-9]{1,30}(\.0+)?", cell) is None:
        return 0, (WHOLE, "write it out; a spreadsheet rounds long numbers unless their column is text")
    number = int(cell.partition(".")[0])
    if not least <= number <= LARGEST:
        return 0, ("is out of range", f"give a whole number from {least} to 2**63 - 1")
    return number, None


def _real(cell: str) -> tuple[float, tuple[str, str] | None]:
    """A finite number, and what is wrong with it: (message, mend)."""
    try:
        number = float(cell)
    except ValueError:
        comma = re.fullmatch(r"[+-]?[0-9]+,[0-9]+", cell) is not None
        return 0.0, ("is no number", f"write {cell.replace(',', '.')}" if comma else "give one, such as 2")
    if math.isfinite(number) and "_" not in cell:
        return number, None
    return 0.0, ("is no number", "give one, such as 2")
