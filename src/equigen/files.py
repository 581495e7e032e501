"""Files that are whole or absent: everything is written beside its place and then moved into it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
from safetensors import SafetensorError

from equigen.errors import InputError, Problem

FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def naming_full_disk(path: str | Path) -> Iterator[None]:
    """Turn a writer's full disk, or used-up quota, into an ``InputError`` that names ``path``.

    safetensors reports it without an error number, only as "... (os error 28)" at the end of its message.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = error.errno if isinstance(error, OSError) else None
        told = [code for code in FULL if number == code or (number is None and f"(os error {code})" in str(error))]
        if not told:
            raise
        problem = Problem(os.strerror(told[0]), "free some space and run the same command again", file=str(path))
        raise InputError("The disk is full; nothing half-written was kept.", [problem]) from error


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; move it to ``path`` when the block ends well, remove it otherwise.

    The temporary name starts with a dot and ends in the same suffix, so writers that choose a format by the
    suffix work, and no reader takes it for a result. A full disk is an ``InputError`` that names the file.
    """
    final = Path(path)
    temporary = final.with_name(f".{final.stem}.{uuid4().hex[:8]}.part{final.suffix}")
    with naming_full_disk(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(final)
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write bytes whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON whole or not at all; NaN and infinity are refused, since JSON has no word for them."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text())


def write_parquet(path: str | Path, frame: pd.DataFrame) -> None:
    """Write a table as Parquet, whole or not at all, without its index."""
    with replacing(path) as temporary:
        frame.to_parquet(temporary, index=False)


def hash_bytes(data: bytes) -> str:
    """SHA-256 of bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def hash_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits, read in blocks."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def hash_value(value: Any) -> str:
    """SHA-256 of a JSON-like value, the same for equal values whatever the order of keys."""
    return hash_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode())
