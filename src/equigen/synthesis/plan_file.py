"""A plan as a file that people edit: csv or tsv for spreadsheets, or parquet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from equigen.errors import InputError, Problem
from equigen.files import write_parquet, write_text

SEPARATORS = {".csv": ",", ".tsv": "\t"}
KINDS = (*SEPARATORS, ".parquet")
UNKNOWN = "unknown"  # of a label or attribute; in a csv an empty label would mean that nothing is found
NUMBERS = {"guidance": float, "guidance_low": float, "guidance_high": float, "steps": int, "seed": int, "pair": int}
WHOLE = "is no whole number"


def write_plan(path: str | Path, rows: pd.DataFrame) -> Path:
    """Write a plan as csv, tsv or parquet, whole or not at all; in text an unknown label or attribute is "unknown"."""
    file = _named(Path(path))
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

    In csv and tsv an empty cell is none, but of a label: there it is an image without a finding. Raises InputError for
    a file that is not there or cannot be read, and for numbers that are none, with row and column.
    """
    file = _named(Path(path))
    try:
        if file.suffix.lower() == ".parquet":
            return pd.read_parquet(file).reset_index(drop=True)
        frame = pd.read_csv(file, sep=SEPARATORS[file.suffix.lower()], dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:  # errors of pandas and pyarrow are ValueErrors or OSErrors
        reason = str(error).strip().partition("\n")[0]
        problem = Problem(f"cannot be read ({reason})", "give a table that `equigen plan` wrote", file=str(file))
        raise InputError("There is no plan.", [problem]) from error
    return _typed(frame, file)


def _named(file: Path) -> Path:
    if file.suffix.lower() not in KINDS:
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
            made[str(name)], wrong = _numbers(str(name), cells)
            problems += [replace(problem, file=str(file)) for problem in wrong]
        else:
            label = str(name).startswith("label.")
            none = {UNKNOWN} if label else {UNKNOWN, ""} if str(name).startswith("attr.") else {""}
            made[str(name)] = pd.Series([None if cell in none else cell for cell in cells], dtype=object)
    if problems:
        raise InputError("The plan cannot be read.", problems)
    return pd.DataFrame(made)


def _numbers(name: str, cells: list[str]) -> tuple[pd.Series, list[Problem]]:
    """Cells as numbers, those of optional columns missing where they are empty; and what is wrong, with the row."""
    kind, wrong = NUMBERS[name], list[Problem]()
    values: list[float | int | None] = []
    for row, cell in enumerate(cells, start=2):
        try:
            values.append(None if cell == "" and name.startswith("guidance_") else kind(cell))
        except ValueError:
            mend = "write it out; a spreadsheet rounds long numbers unless their column is text"
            told = (WHOLE, mend) if kind is int else ("is no number", "give one, such as 2")
            wrong.append(Problem(f"'{cell}' {told[0]}", told[1], row=row, column=name))
            values.append(0)
    return pd.Series(values, dtype="float64" if kind is float else "int64"), wrong
