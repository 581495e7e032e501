"""Read a table as text: every cell unconverted, every row with its number in the spreadsheet."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from equigen.cohort.images.arrow import dataset_table, is_dataset
from equigen.cohort.tables.text import (
    PARQUET,
    SEPARATORS,
    decode_text,
    header_width,
    read_bytes,
    table_error,
    text_rows,
)
from equigen.cohort.tables.values import text_cells
from equigen.errors import InputError, Problem, suggestion
from equigen.parquet import parquet_frame

ROW = "row"
NOTES = "notes"
NESTED = "nested"
TEXT_SUFFIXES = {".csv": ",", ".tsv": "\t", ".txt": ","}
SUFFIXES = (*TEXT_SUFFIXES, ".parquet")
COMPRESSED = (".gz", ".zip", ".bz2", ".xz")
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"


def table_suffix(path: str | Path) -> str:
    """Return the suffix of a table's file name in lower case, without that of compression.

    >>> table_suffix("Table.CSV.gz")
    '.csv'
    """
    file = Path(path)
    suffixes = [suffix.lower() for suffix in file.suffixes]
    while suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def is_table(path: str | Path) -> bool:
    """Whether a file's suffix is that of a table."""
    return table_suffix(path) in SUFFIXES


def read_table(source: str | Path | pd.DataFrame) -> pd.DataFrame:
    """Read a table with every cell as text (object dtype, "" = empty), by spreadsheet row.

    The header is row 1, the first data row is row 2; blank rows are left out but counted. A file may be csv (also with
    semicolons or tabs), tsv, Parquet, any of these compressed by gzip, bzip2, xz or zip (told by the content, whatever
    the name), or a folder that the library ``datasets`` saved. A frame may have columns of any type; a column of lists
    or raw bytes is left out. Notes (blank rows, columns without a name) are in ``table_notes``.

    Raises:
        InputError: no such file, unknown kind of file, an encoding other than UTF-8, damage,
            a repeated column, rows with too many or too few cells; with file, row and column if known.

    """
    if isinstance(source, pd.DataFrame):
        return _table_from_frame(source, None)
    file = Path(source)
    if is_dataset(file):
        return _table_from_frame(dataset_table(file), str(file))
    if not file.is_file():
        if file.is_dir():
            raise table_error(str(file), "is a folder, not a table", "give one table")
        near = sorted(item.name for item in file.parent.glob("*") if is_table(item))
        raise table_error(str(file), "there is no such table", suggestion(file.name, near))
    if not is_table(file):
        message = f"'{file.suffix}' is no kind of table" if file.suffix else "has no suffix that says which table it is"
        raise table_error(str(file), message, "save it as .csv, .tsv or .parquet")
    data = read_bytes(file)
    if data.startswith(PARQUET):
        return _table_from_frame(parquet_frame(data, str(file)), str(file))
    suffix = table_suffix(file)
    if suffix == ".parquet":
        raise table_error(str(file), "is no readable Parquet file", "write it again; name a text table .csv or .tsv")
    return _table_from_text(decode_text(data, str(file)), TEXT_SUFFIXES[suffix], str(file))


def table_notes(table: pd.DataFrame) -> list[Problem]:
    """Return the notes of ``read_table`` on a table as warnings."""
    return [Problem(message, mend) for message, mend in table.attrs.get(NOTES, [])]


def _table_from_text(text: str, separator: str, file: str) -> pd.DataFrame:
    """Parse a text table, and check its shape."""
    rows, actual = text_rows(text, separator, file)
    header = [name.strip().strip(_INVISIBLE).strip() for name in rows[0]]
    width = header_width(header)
    if width == 0:
        raise table_error(file, "has no header", "put the columns' names into the first row", row=1)
    full = [(row, cells) for row, cells in enumerate(rows[1:], start=2) if any(cell.strip() for cell in cells)]
    problems = _shape_problems(header, full, actual)
    if problems:
        raise InputError(f"The table {Path(file).name} is malformed.", problems)
    notes = []
    if actual != separator:
        message = f"{file}: the cells are separated by {SEPARATORS[actual]}"
        notes.append((message, f"its name promises {SEPARATORS[separator]}"))
    last = len(rows)
    while last > 1 and not any(cell.strip() for cell in rows[last - 1]):
        last -= 1
    blank = last - 1 - len(full)
    if blank:
        notes.append((f"{file}: {blank} blank row{'s are' if blank > 1 else ' is'} passed over", "fill or remove them"))
    if "\ufffd" in text:
        notes.append((f"{file}: holds the character \ufffd where another program lost letters", "save the source anew"))
    columns: dict[str, list[str]] = {}
    for position, name in enumerate(header[:width]):
        if name:
            columns[name] = [cells[position] for _, cells in full]
        elif any(cells[position].strip() for _, cells in full):
            notes.append((f"{file}: column {position + 1} has no name and is passed over", "name it if it is needed"))
    return _build_table(columns, pd.Index([row for row, _ in full], name=ROW, dtype="int64"), notes)


def _shape_problems(header: list[str], rows: list[tuple[int, list[str]]], separator: str) -> list[Problem]:
    """Return problems of repeated columns, rows of another length than the header, and cells without a column name."""
    width = header_width(header)
    problems = _repeated_columns(header, None)
    for row, cells in rows:
        if len(cells) not in (len(header), width):
            message = f"has {len(cells)} cells where the header has {len(header)}"
            mend = f"quote cells that hold the separator ({SEPARATORS[separator]})"
            problems.append(Problem(message, mend, row=row))
        elif any(cell.strip() for cell in cells[width:]):
            position = next(position for position, cell in enumerate(cells) if position >= width and cell.strip())
            message = f"'{cells[position]}' stands in column {position + 1}, which has no name"
            problems.append(Problem(message, "name the column in the first row, or clear the cell", row=row))
    return problems


def _repeated_columns(header: list[str], file: str | None) -> list[Problem]:
    repeated = sorted({name for name in header if name and header.count(name) > 1})
    return [Problem("the column is there twice", "rename one", row=1, column=name, file=file) for name in repeated]


def _table_from_frame(frame: pd.DataFrame, file: str | None) -> pd.DataFrame:
    """Convert a frame of any types to text, with row numbers; named levels of the index become columns."""
    if isinstance(frame.columns, pd.MultiIndex):
        raise table_error(file, "has several rows of column names", "give each column one name")
    index: pd.Index = pd.RangeIndex(2, len(frame) + 2, name=ROW)
    if frame.index.name == ROW and frame.index.is_unique and pd.api.types.is_integer_dtype(frame.index.dtype):
        index = frame.index  # rows that already have their numbers
    header = []
    for column in list[Any](frame.columns):
        unnamed = column is None or column is pd.NA or (isinstance(column, float) and math.isnan(column))
        header.append("" if unnamed else str(column).strip())
    series = [frame.iloc[:, position] for position in range(frame.shape[1])]
    for level, name in enumerate(frame.index.names if index is not frame.index else []):
        if name is not None and str(name) not in header:
            header.append(str(name))
            series.append(pd.Series(frame.index.get_level_values(level)))
    problems, notes, columns = _repeated_columns(header, file), [tuple(note) for note in frame.attrs.get(NOTES, [])], {}
    nested = list(frame.attrs.get(NESTED, []))
    for name, values in zip(header, series, strict=True):
        cells = text_cells(values)
        if cells is None:
            nested.append(name)
        elif not name:
            if any(cells):
                notes.append(("a column has no name and is passed over", "name it if it is needed"))
        else:
            columns[name] = cells
            problems += _encoding_problems(cells, index, name, file)
    if problems:
        raise InputError("The table cannot be read.", problems)
    table = _build_table(columns, index, notes)
    table.attrs[NESTED] = nested
    return table


def _encoding_problems(cells: list[str], index: pd.Index, column: str, file: str | None) -> list[Problem]:
    """Return problems of cells with the character NUL, or with text that cannot be encoded as UTF-8."""
    try:
        "".join(cells).encode()
        if not any("\0" in cell for cell in cells):
            return []
    except UnicodeEncodeError:
        pass
    bad = [
        row
        for row, cell in zip(index, cells, strict=True)
        if "\0" in cell or cell.encode(errors="replace").decode() != cell
    ]
    return [Problem("the cell is no text", "mend the cell", row=int(row), column=column, file=file) for row in bad]


def _build_table(columns: dict[str, list[str]], index: pd.Index, notes: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Build a frame of text columns with its notes in ``attrs``."""
    frame = pd.DataFrame(
        {name: pd.Series(cells, index=index, dtype=object) for name, cells in columns.items()}, index=index
    )
    frame.columns = pd.Index(list(columns), dtype=object)
    frame.attrs[NOTES] = [list(note) for note in notes]
    return frame


def check_columns(table: pd.DataFrame, roles: Iterable[tuple[str, str]], file: str) -> None:
    """Raise ``InputError`` for every role whose column is missing, suggesting the closest name."""
    names = [str(name) for name in table.columns]
    nested = table.attrs.get(NESTED, [])
    problems = []
    for role, column in roles:
        if column in nested:
            message = f"{role}: the column holds lists or raw bytes, not one text or number a row"
            problems.append(Problem(message, "write it as text", column=column, file=file))
        elif column not in names:
            problems.append(
                Problem(f"{role}: the table has no such column", suggestion(column, names), column=column, file=file)
            )
    if problems:
        raise InputError(f"The table {file} lacks columns that the specification names.", problems)
