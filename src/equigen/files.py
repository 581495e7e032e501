"""Write files atomically, and read tables and JSON with checks of damage."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import SafetensorError

from equigen.errors import InputError, Problem

UNREADABLE = (
    OSError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, RuntimeError,
    MemoryError, pa.ArrowException,
)  # fmt: skip
"""Exceptions of pyarrow and pandas for a damaged file: those of Arrow, and those of Python in its decoders."""
MAX_CELLS = 10**9  # of a Parquet table: a damaged or hostile file of a few bytes may promise any number
DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
SEAL = b"equigen"  # key of a Parquet file's metadata


@contextmanager
def convert_disk_full(path: str | Path) -> Iterator[None]:
    """Convert the error of a full disk, or of an exceeded quota, into an ``InputError`` that names ``path``.

    safetensors reports it without an error number, only as "... (os error 28)" at the end of its message.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = error.errno if isinstance(error, OSError) else None
        text = "" if number is not None else str(error)
        codes = [code for code in DISK_FULL if number == code or f"(os error {code})" in text]
        if not codes:
            raise
        problem = Problem(os.strerror(codes[0]), "free some space and run the same command again", file=str(path))
        raise InputError("The disk is full; nothing half-written was kept.", [problem]) from error


@contextmanager
def replace_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; move it to ``path`` if the block succeeds, remove it otherwise.

    The temporary name starts with a dot and keeps the suffix, by which some writers choose the format. A full disk
    is an ``InputError`` that names the file.
    """
    final = Path(path)
    temporary = final.with_name(f".{final.stem}.{uuid4().hex[:8]}.part{final.suffix}")
    with convert_disk_full(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(final)
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write bytes atomically."""
    with replace_file(path) as temporary, temporary.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically; raises ValueError for NaN and infinity, which JSON cannot represent."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


class DamagedJSONError(InputError, ValueError, KeyError):
    """A JSON file that cannot be read, or lacks a required field."""

    def __str__(self) -> str:
        """Title and problem on one line, since other messages quote it."""
        return f"{self.title} {self.problems[0]}"


class Fields(dict[str, Any]):
    """Fields of a JSON object; a missing one raises an error that names the file."""

    def __init__(self, values: Mapping[str, Any], file: str | Path) -> None:
        super().__init__(values)
        self.file = file

    def __missing__(self, name: str) -> Any:
        """Raise DamagedJSONError."""
        raise _damaged(self.file, f"has no '{name}'")


def _damaged(file: str | Path, message: str) -> DamagedJSONError:
    mend = "bring it back, or run the command again that wrote it"
    return DamagedJSONError("A file is damaged.", [Problem(message, mend, file=str(file))])


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises DamagedJSONError, which is an InputError, where it cannot be read, or when a field is asked for that an
    object of it does not have.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        return json.loads(text, object_hook=lambda values: Fields(values, path))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"is no JSON: {error}") from error


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


def hash_bytes(data: bytes) -> str:
    """Return SHA-256 of bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def hash_file(path: str | Path) -> str:
    """Return SHA-256 of a file's bytes, as 64 hexadecimal digits, read in blocks."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def hash_arrays(arrays: Mapping[str, NDArray[Any]], value: Any = None) -> str:
    """Return SHA-256 of named arrays with their types and shapes, and of a JSON-like value; no array is copied."""
    names = sorted(arrays)
    headers = [[name, str(arrays[name].dtype), list(arrays[name].shape)] for name in names]
    content = hashlib.sha256(hash_value([headers, value]).encode())
    for name in names:
        content.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return content.hexdigest()


def hash_value(value: Any) -> str:
    """Return SHA-256 of a JSON-like value, independent of the order of keys."""
    return hash_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode())
