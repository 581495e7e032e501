"""Write files atomically, read JSON with checks of damage, and hash content. It loads no heavy library."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from safetensors import SafetensorError

from equigen.errors import InputError, Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


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


def hash_bytes(data: bytes) -> str:
    """Return SHA-256 of bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def hash_file(path: str | Path) -> str:
    """Return SHA-256 of a file's bytes, as 64 hexadecimal digits, read in blocks."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def hash_arrays(arrays: Mapping[str, NDArray[Any]], value: Any = None) -> str:
    """Return SHA-256 of named arrays with their types and shapes, and of a JSON-like value; no array is copied."""
    import numpy as np

    names = sorted(arrays)
    headers = [[name, str(arrays[name].dtype), list(arrays[name].shape)] for name in names]
    content = hashlib.sha256(hash_value([headers, value]).encode())
    for name in names:
        content.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return content.hexdigest()


def hash_value(value: Any) -> str:
    """Return SHA-256 of a JSON-like value, independent of the order of keys."""
    return hash_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode())
