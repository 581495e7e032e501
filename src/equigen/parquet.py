"""Write Parquet tables with checksums, and read them with checks of damage."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from equigen.errors import InputError, Problem
from equigen.files import hash_value, replace_file

UNREADABLE = (
    OSError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, RuntimeError,
    MemoryError, pa.ArrowException,
)  # fmt: skip
"""Exceptions of pyarrow and pandas for a damaged file: those of Arrow, and those of Python in its decoders."""
MAX_CELLS = 10**9  # of a Parquet table: a damaged or hostile file of a few bytes may promise any number
SEAL = b"equigen"  # key of a Parquet file's metadata


def write_parquet(path: str | Path, frame: pd.DataFrame) -> None:
    """Write a table as Parquet atomically, without its index.

    Each page has a checksum (CRC-32); the number of rows and a hash of the columns' names and types are in the
    file's metadata under ``equigen``. ``read_parquet`` verifies both.
    """
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), SEAL: _seal(table)})
    with replace_file(path) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)


def read_parquet(path: str | Path, columns: Iterable[str] = (), title: str = "A table cannot be read.") -> pd.DataFrame:
    """Read a Parquet table with its types; its checksums are verified where it has them (see ``write_parquet``).

    Args:
        path: the file.
        columns: required columns; all columns are read.
        title: first line of the error.

    Raises:
        InputError: there is no such file, it is no whole Parquet file, or it lacks columns.

    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        message = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        raise InputError(title, [Problem(message, "check the path", file=str(path))]) from error
    frame = parquet_frame(data, str(path), title)
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        problems = [
            Problem("the table has no such column", "give the table that equigen wrote", column=name, file=str(path))
            for name in missing
        ]
        raise InputError(title, problems)
    return frame


def parquet_frame(data: bytes, file: str, title: str = "The table cannot be read.") -> pd.DataFrame:
    """Read a Parquet table from its bytes; raises ``InputError`` that names ``file`` if it cannot be read."""
    try:
        metadata = pq.read_metadata(io.BytesIO(data))
        if metadata.num_rows * metadata.num_columns > MAX_CELLS:
            raise ValueError(f"{metadata.num_rows} rows are more than can be read")
        table = pq.read_table(io.BytesIO(data), page_checksum_verification=True)
        seal = (table.schema.metadata or {}).get(SEAL)
        if seal is not None and seal != _seal(table):
            raise ValueError("its rows or columns are not those that were written")
        frame: pd.DataFrame = table.to_pandas()
    except UNREADABLE as error:
        reason = str(error).strip().partition("\n")[0][:200]
        mend = "copy the whole file again, or write it again"
        problem = Problem(f"is no readable Parquet file ({reason})", mend, file=file)
        raise InputError(title, [problem]) from error
    return frame


def is_sealed(path: str | Path) -> bool:
    """Whether a Parquet file has the checksums of ``write_parquet``, so that a flipped bit in it is an error."""
    try:
        return SEAL in (pq.read_metadata(path).metadata or {})
    except (OSError, ValueError, pa.ArrowException):
        return False


def _seal(table: pa.Table) -> bytes:
    """Return the number of rows of a table, and a hash of its columns' names and pandas types, as JSON."""
    pandas = (table.schema.metadata or {}).get(b"pandas", b"").decode(errors="replace")
    kinds = [_kind(field.type) for field in table.schema]
    names = [table.schema.names, kinds, pandas]
    return json.dumps({"rows": table.num_rows, "columns": hash_value(names)}).encode()


def _kind(kind: pa.DataType) -> str:
    """Return a column's type without the width of its offsets and codes, which Parquet does not store."""
    if pa.types.is_dictionary(kind):
        return f"category of {_kind(kind.value_type)}"
    return str(kind).removeprefix("large_")
