"""Reading a table as text: every cell as it is written, every row with its number in the spreadsheet."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from equigen.cohort.arrow import dataset_table, is_dataset
from equigen.cohort.spec import nearest
from equigen.errors import InputError, Problem

ROW = "row"
_SEPARATORS = {".csv": ",", ".tsv": "\t"}


def read_table(path: str | Path) -> pd.DataFrame:
    """Read csv, tsv, parquet or a saved dataset with every cell as text ("" = nothing there), by spreadsheet row.

    The header is row 1, the first data row is row 2; blank lines are left out but counted.

    Raises:
        InputError: no such file, unknown kind of file, not UTF-8, a column twice, rows with too many or too
            few cells.

    """
    file = Path(path)
    if is_dataset(file):
        return _of_values(dataset_table(file))
    if not file.is_file():
        found = sorted(
            item.name for item in file.parent.glob("*") if item.suffix in {*_SEPARATORS, ".parquet"}
        )
        raise _refused(file, "there is no such table", nearest(file.name, found))
    if file.suffix == ".parquet":
        return _read_parquet(file)
    if file.suffix not in _SEPARATORS:
        raise _refused(file, f"'{file.suffix}' is no kind of table", "save it as .csv, .tsv or .parquet")
    return _read_text(file, _SEPARATORS[file.suffix])


def _refused(file: Path, message: str, mend: str) -> InputError:
    return InputError("The table cannot be read.", [Problem(message, mend, file=str(file))])


def _read_parquet(file: Path) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(file)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors or OSErrors
        raise _refused(file, "is no readable Parquet file", "write it again") from error
    return _of_values(frame)


def _of_values(frame: pd.DataFrame) -> pd.DataFrame:
    """Values of any kind as text, every row with its number."""
    text = {str(name): _as_text(column) for name, column in frame.items()}
    return pd.DataFrame(text, index=pd.RangeIndex(2, len(frame) + 2, name=ROW), dtype=object)


def _as_text(column: pd.Series) -> list[str]:
    """Values as text; null and NaN become nothing."""
    return ["" if gone else str(value) for value, gone in zip(column, column.isna(), strict=True)]


def _read_text(file: Path, separator: str) -> pd.DataFrame:
    try:
        with file.open(encoding="utf-8-sig", newline="") as handle:
            lines = list(csv.reader(handle, delimiter=separator, strict=True))
    except UnicodeDecodeError as error:
        raise _refused(file, "is not UTF-8 text", "save the table as UTF-8") from error
    except csv.Error as error:
        raise _refused(file, f"is no well-formed table: {error}", "check the quotes") from error
    if not lines or not lines[0]:
        raise _refused(file, "has no header", "put the columns' names into the first row")
    header = [name.strip() for name in lines[0]]
    _check_shape(file, header, lines, separator)
    kept = [
        (row, cells) for row, cells in enumerate(lines[1:], start=2) if any(cell.strip() for cell in cells)
    ]
    index = pd.Index([row for row, _ in kept], name=ROW, dtype="int64")
    return pd.DataFrame([cells for _, cells in kept], columns=header, index=index, dtype=object)


def _check_shape(file: Path, header: list[str], lines: list[list[str]], separator: str) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    problems = [Problem("the column is there twice", "rename one", row=1, column=name) for name in twice]
    if len(header) == 1 and separator == "," and ";" in header[0]:
        problems.append(
            Problem("the cells are separated by ';'", "save the table with commas", row=1, file=str(file))
        )
    for row, cells in enumerate(lines[1:], start=2):
        if len(cells) != len(header) and any(cell.strip() for cell in cells):
            message = f"has {len(cells)} cells where the header has {len(header)}"
            problems.append(Problem(message, "quote cells that hold the separator", row=row))
    if problems:
        raise InputError(f"The table {file.name} is malformed.", problems)


def check_columns(table: pd.DataFrame, roles: Iterable[tuple[str, str]], file: str) -> None:
    """Raise ``InputError`` for every role whose column the table does not have, naming the nearest one."""
    names = [str(name) for name in table.columns]
    problems = [
        Problem(f"{role}: the table has no such column", nearest(column, names), column=column, file=file)
        for role, column in roles
        if column not in names
    ]
    if problems:
        raise InputError(f"The table {file} lacks columns that the specification names.", problems)
