"""Reading a table as text: every cell as it is written, every row with its number in the spreadsheet."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from equigen.cohort.images.arrow import dataset_table, is_dataset
from equigen.cohort.spec import suggestion
from equigen.cohort.tables.text import (
    PARQUET,
    SEPARATORS,
    decode_text,
    file_bytes,
    named_cells,
    refusal,
    text_rows,
)
from equigen.cohort.tables.values import text_cells
from equigen.errors import InputError, Problem
from equigen.files import parquet_frame

ROW = "row"
NOTES = "notes"
NESTED = "nested"
TEXT_SUFFIXES = {".csv": ",", ".tsv": "\t", ".txt": ","}
SUFFIXES = (*TEXT_SUFFIXES, ".parquet")
COMPRESSED = (".gz", ".zip", ".bz2", ".xz")
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"


def table_suffix(path: str | Path) -> str:
    """The kind of table that a file's name promises, in lower case and without a suffix of compression.

    >>> table_suffix("Table.CSV.gz")
    '.csv'
    """
    file = Path(path)
    suffixes = [suffix.lower() for suffix in file.suffixes]
    while suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def is_table(path: str | Path) -> bool:
    """Whether a file's name is one of a table."""
    return table_suffix(path) in SUFFIXES


def read_table(source: str | Path | pd.DataFrame) -> pd.DataFrame:
    """A table with every cell as text (object dtype, "" = nothing there), by spreadsheet row.

    The header is row 1, the first data row is row 2; blank rows are left out but counted. A file may be csv (also with
    semicolons or tabs), tsv, Parquet, any of these compressed by gzip, bzip2, xz or zip (told by the content, whatever
    the name), or a folder that the library ``datasets`` saved. A frame may have columns of any type; a column of lists
    or raw bytes is left out. What a reader should know of (blank rows, columns without a name) is in ``table_notes``.

    Raises:
        InputError: no such file, unknown kind of file, an encoding other than UTF-8, damage,
            a column twice, rows with too many or too few cells; with file, row and column where there are ones.

    """
    if isinstance(source, pd.DataFrame):
        return _of_values(source, None)
    file = Path(source)
    if is_dataset(file):
        return _of_values(dataset_table(file), str(file))
    if not file.is_file():
        if file.is_dir():
            raise refusal(str(file), "is a folder, not a table", "give one table")
        near = sorted(item.name for item in file.parent.glob("*") if is_table(item))
        raise refusal(str(file), "there is no such table", suggestion(file.name, near))
    if not is_table(file):
        message = f"'{file.suffix}' is no kind of table" if file.suffix else "has no suffix that says which table it is"
        raise refusal(str(file), message, "save it as .csv, .tsv or .parquet")
    data = file_bytes(file)
    if data.startswith(PARQUET):
        return _of_values(parquet_frame(data, str(file)), str(file))
    suffix = table_suffix(file)
    if suffix == ".parquet":
        raise refusal(str(file), "is no readable Parquet file", "write it again; name a text table .csv or .tsv")
    return _of_text(decode_text(data, str(file)), TEXT_SUFFIXES[suffix], str(file))


def table_notes(table: pd.DataFrame) -> list[Problem]:
    """What ``read_table`` passed over or took for granted, as warnings."""
    return [Problem(message, mend) for message, mend in table.attrs.get(NOTES, [])]


def _of_text(text: str, separator: str, file: str) -> pd.DataFrame:
    """The cells of a text table, its shape checked."""
    rows, used = text_rows(text, separator, file)
    header = [name.strip().strip(_INVISIBLE).strip() for name in rows[0]]
    named = named_cells(header)
    if named == 0:
        raise refusal(file, "has no header", "put the columns' names into the first row", row=1)
    full = [(row, cells) for row, cells in enumerate(rows[1:], start=2) if any(cell.strip() for cell in cells)]
    problems = _shape_problems(header, full, used)
    if problems:
        raise InputError(f"The table {Path(file).name} is malformed.", problems)
    notes = []
    if used != separator:
        message = f"{file}: the cells are separated by {SEPARATORS[used]}"
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
    for place, name in enumerate(header[:named]):
        if name:
            columns[name] = [cells[place] for _, cells in full]
        elif any(cells[place].strip() for _, cells in full):
            notes.append((f"{file}: column {place + 1} has no name and is passed over", "name it if it is needed"))
    return _framed(columns, pd.Index([row for row, _ in full], name=ROW, dtype="int64"), notes)


def _shape_problems(header: list[str], rows: list[tuple[int, list[str]]], separator: str) -> list[Problem]:
    """Columns twice, rows that are longer or shorter than the header, and cells beyond its last name."""
    named = named_cells(header)
    problems = _double_columns(header, None)
    for row, cells in rows:
        if len(cells) not in (len(header), named):
            message = f"has {len(cells)} cells where the header has {len(header)}"
            mend = f"quote cells that hold the separator ({SEPARATORS[separator]})"
            problems.append(Problem(message, mend, row=row))
        elif any(cell.strip() for cell in cells[named:]):
            place = next(place for place, cell in enumerate(cells) if place >= named and cell.strip())
            message = f"'{cells[place]}' stands in column {place + 1}, which has no name"
            problems.append(Problem(message, "name the column in the first row, or clear the cell", row=row))
    return problems


def _double_columns(header: list[str], file: str | None) -> list[Problem]:
    twice = sorted({name for name in header if name and header.count(name) > 1})
    return [Problem("the column is there twice", "rename one", row=1, column=name, file=file) for name in twice]


def _of_values(frame: pd.DataFrame, file: str | None) -> pd.DataFrame:
    """Values of any kind as text, every row with its number; named levels of the index are columns too."""
    if isinstance(frame.columns, pd.MultiIndex):
        raise refusal(file, "has several rows of column names", "give each column one name")
    index: pd.Index = pd.RangeIndex(2, len(frame) + 2, name=ROW)
    if frame.index.name == ROW and frame.index.is_unique and pd.api.types.is_integer_dtype(frame.index.dtype):
        index = frame.index  # rows that already have their numbers
    header = ["" if _is_nothing(name) else str(name).strip() for name in frame.columns]
    series = [frame.iloc[:, place] for place in range(frame.shape[1])]
    for level, name in enumerate(frame.index.names if index is not frame.index else []):
        if name is not None and str(name) not in header:
            header.append(str(name))
            series.append(pd.Series(frame.index.get_level_values(level)))
    problems, notes, columns = _double_columns(header, file), [tuple(note) for note in frame.attrs.get(NOTES, [])], {}
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
            problems += _no_text(cells, index, name, file)
    if problems:
        raise InputError("The table cannot be read.", problems)
    table = _framed(columns, index, notes)
    table.attrs[NESTED] = nested
    return table


def _is_nothing(name: object) -> bool:
    return name is None or name is pd.NA or (isinstance(name, float) and math.isnan(name))


def _no_text(cells: list[str], index: pd.Index, column: str, file: str | None) -> list[Problem]:
    """Cells with the character NUL, or with halves of characters that no file can hold."""
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


def _framed(columns: dict[str, list[str]], index: pd.Index, notes: Iterable[tuple[str, str]]) -> pd.DataFrame:
    frame = pd.DataFrame(
        {name: pd.Series(cells, index=index, dtype=object) for name, cells in columns.items()}, index=index
    )
    frame.columns = pd.Index(list(columns), dtype=object)
    frame.attrs[NOTES] = [list(note) for note in notes]
    return frame


def check_columns(table: pd.DataFrame, roles: Iterable[tuple[str, str]], file: str) -> None:
    """Raise ``InputError`` for every role whose column the table does not have, naming the nearest one."""
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
