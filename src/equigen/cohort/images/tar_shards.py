"""Index tar shards of images (the WebDataset convention) and open their members as files."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import tarfile
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from equigen.cohort.images.faults import ImageFault
from equigen.errors import InputError, Problem
from equigen.files import replace_file
from equigen.parquet import UNREADABLE

BLOCK = 512  # a tar's unit, bytes
_STATE = b"equigen.shard"
_TYPES = [pa.string(), pa.int64(), pa.int64()]  # of an index's columns: name, offset, size
State = tuple[int, int]  # size of a file in bytes, and its modification time in ns


@dataclass(frozen=True)
class Shard:
    """Index of one tar file: sorted member ``names``, and byte ``offsets`` and ``sizes`` in the same order."""

    path: Path
    state: State
    names: pa.StringArray
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def find(self, name: str) -> int | None:
        """Return the position of a member in the three arrays; None if there is none."""
        position = bisect_left(self.names, name, key=pa.StringScalar.as_py)
        return position if position < len(self.names) and self.names[position].as_py() == name else None

    def open(self, position: int) -> BinaryIO:
        """Open a member as a file; raises ``ImageFault`` when the shard changed since it was indexed."""
        handle = self.path.open("rb", buffering=0)
        if _stat_state(os.fstat(handle.fileno())) != self.state:
            handle.close()
            raise ImageFault(f"lies in {self.path.name}, which was changed meanwhile", "run the same command again")
        return io.BufferedReader(_FileRange(handle, int(self.offsets[position]), int(self.sizes[position])))


class _FileRange(io.RawIOBase):
    """A byte range of an open file as a file; closing it closes the underlying file."""

    def __init__(self, handle: io.FileIO, start: int, size: int) -> None:
        self.handle, self.start, self.size, self.position = handle, start, size, 0
        handle.seek(start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        self.position = max(0, base + offset)
        self.handle.seek(self.start + self.position)
        return self.position

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer)[: max(0, self.size - self.position)]
        count = self.handle.readinto(target) if len(target) else 0
        self.position += count
        return count

    def close(self) -> None:
        self.handle.close()
        super().close()


_shards: dict[Path, Shard] = {}


def open_shard(path: Path) -> Shard:
    """Return the index of a shard, built by one pass over its headers if there is none or the shard changed.

    The index is saved as Parquet beside the shard (``.<name>.index.parquet``), or in the user's cache folder if the
    shard's folder is read-only; if both are, each process builds its own. Raises InputError naming shard and member for
    a shard that is missing, truncated, compressed or no tar, and for members that are links, have absolute names or
    names with "..", or share a name.
    """
    try:
        state = _stat_state(path.stat())
    except OSError as error:
        problem = Problem(f"cannot be opened: {error.strerror}", "check the path and its permissions", file=str(path))
        raise InputError("A shard cannot be read.", [problem]) from error
    shard = _shards.get(path)
    if shard is None or shard.state != state:
        shard = _shards[path] = _read_index(path, state) or _build_index(path, state)
    return shard


def _stat_state(stat: os.stat_result) -> State:
    return stat.st_size, stat.st_mtime_ns


def _index_files(shard: Path) -> list[Path]:
    """Return the possible paths of a shard's index: beside it, or in the cache folder."""
    name = f".{shard.name}.index.parquet"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "equigen" / "shards"
    return [shard.with_name(name), cache / (hashlib.sha256(str(shard.resolve()).encode()).hexdigest() + ".parquet")]


def _read_index(shard: Path, state: State) -> Shard | None:
    """Return the saved index; None if there is none, it is damaged, or the shard changed since."""
    for file in _index_files(shard):
        try:
            table = pq.read_table(file, page_checksum_verification=True)
            if json.loads((table.schema.metadata or {})[_STATE]) != list(state):
                continue
            if table.schema.types != _TYPES:
                continue
            columns = [table.column(name).combine_chunks() for name in ("name", "offset", "size")]
            return Shard(shard, state, columns[0], *(column.to_numpy() for column in columns[1:]))
        except UNREADABLE:
            continue
    return None


def _build_index(shard: Path, state: State) -> Shard:
    """Read every header of the shard, and save the index at the first path that can be written."""
    members, problems = _scan(shard, state[0])
    names = [name for name, _, _ in members]
    repeated = {name for position, name in enumerate(names) if position and name == names[position - 1]}
    mend = "write the shard anew with one member of each name"
    problems += [_problem(shard, f"the member '{name}' is there twice", mend) for name in sorted(repeated)]
    if problems:
        raise InputError("A shard cannot be used.", problems)
    offsets, sizes = (np.array([member[column] for member in members], dtype=np.int64) for column in (1, 2))
    index = Shard(shard, state, pa.array(names, pa.string()), offsets, sizes)
    table = pa.table({"name": index.names, "offset": offsets, "size": sizes})
    table = table.replace_schema_metadata({_STATE: json.dumps(state)})
    for file in _index_files(shard):
        try:
            with replace_file(file) as temporary:
                pq.write_table(table, temporary, write_page_checksum=True)
            break
        except PermissionError:
            continue
        except OSError as error:
            if error.errno != errno.EROFS:  # a read-only file system
                raise
    return index


def _problem(shard: Path, message: str, mend: str) -> Problem:
    return Problem(message, mend, file=str(shard))


def _scan(shard: Path, size: int) -> tuple[list[tuple[str, int, int]], list[Problem]]:
    """Return (name, offset, bytes) of every member, sorted by name, and the problems of members."""
    members, problems = [], []
    try:
        with tarfile.open(shard, "r:") as archive:
            while (info := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # or a header would stay in memory for each member
                if archive.offset <= info.offset:
                    raise ValueError("a member of negative size")  # which would be read again and again
                if info.isdir():
                    continue
                fault = _member_fault(info, size)
                if fault is None:
                    members.append((PurePosixPath(info.name).as_posix(), info.offset_data, info.size))
                else:
                    problems.append(_problem(shard, f"the member '{info.name}' {fault}", "write the shard anew"))
            end = archive.offset
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        problem = _problem(shard, f"is truncated, compressed or no tar ({error})", "copy it again, or unpack it (.tar)")
        raise InputError("A shard cannot be read.", [problem]) from error
    with shard.open("rb") as handle:
        handle.seek(end)
        if handle.read(BLOCK) != bytes(BLOCK):  # tarfile takes a cut or damaged header for the end
            problems.append(_problem(shard, f"is truncated or damaged at byte {end}", "copy it again"))
    return sorted(members), problems


def _member_fault(info: tarfile.TarInfo, size: int) -> str | None:
    """Return the fault of one member of a tar of ``size`` bytes; None if it has none."""
    if not info.isreg() or info.issparse():
        return "is a link, a device or a sparse file"
    if leads_out(info.name):
        return "has a name that leads out of the shard"
    if not info.name.isprintable():  # bytes that are no UTF-8 are not printable either
        return "has a name that is no plain text"
    if info.offset_data + info.size > size:
        return "is cut off: the shard is truncated"
    return None


def leads_out(name: str) -> bool:
    """Whether a relative path may lead out of its base folder."""
    pure = PurePosixPath(name)
    return pure.is_absolute() or ".." in pure.parts or "\0" in name
