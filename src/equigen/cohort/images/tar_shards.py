"""Images in tar shards (the WebDataset convention): an index of a shard's members, and one member as an open file."""

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
from equigen.files import UNREADABLE, replace_file

BLOCK = 512  # a tar's unit, bytes
_STATE = b"equigen.shard"
_TYPES = [pa.string(), pa.int64(), pa.int64()]  # of an index's columns: name, offset, size
State = tuple[int, int]  # a file's bytes, and when it was changed, in ns


@dataclass(frozen=True)
class Shard:
    """One tar file and where its members' bytes lie: ``names`` in order of code points, ``offsets`` and ``sizes``."""

    path: Path
    state: State
    names: pa.StringArray
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def find(self, name: str) -> int | None:
        """The position of a member in the three arrays."""
        place = bisect_left(self.names, name, key=pa.StringScalar.as_py)
        return place if place < len(self.names) and self.names[place].as_py() == name else None

    def open(self, place: int) -> BinaryIO:
        """A member as an open file; raises ``ImageFault`` when the shard is gone or is no longer what was indexed."""
        handle = self.path.open("rb", buffering=0)
        if _state(os.fstat(handle.fileno())) != self.state:
            handle.close()
            raise ImageFault(f"lies in {self.path.name}, which was changed meanwhile", "run the same command again")
        return io.BufferedReader(_Window(handle, int(self.offsets[place]), int(self.sizes[place])))


class _Window(io.RawIOBase):
    """A part of an open file as a file; closing it closes the whole."""

    def __init__(self, handle: io.FileIO, start: int, size: int) -> None:
        self.handle, self.start, self.size, self.place = handle, start, size, 0
        handle.seek(start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.size}[whence]
        self.place = max(0, base + offset)
        self.handle.seek(self.start + self.place)
        return self.place

    def readinto(self, buffer: Any) -> int:
        room = memoryview(buffer)[: max(0, self.size - self.place)]
        count = self.handle.readinto(room) if len(room) else 0
        self.place += count
        return count

    def close(self) -> None:
        self.handle.close()
        super().close()


_opened: dict[Path, Shard] = {}


def open_shard(path: Path) -> Shard:
    """The index of a shard, built by one pass over its headers when there is none or the shard was changed.

    It is kept as Parquet beside the shard (``.<name>.index.parquet``), or in the user's cache folder where that of the
    shard cannot be written to; where neither can, each process builds its own. Raises InputError naming shard and
    member for a shard that is missing, truncated, compressed or no tar, and for members that are links, have absolute
    names or names with "..", or share a name.
    """
    try:
        state = _state(path.stat())
    except OSError as error:
        problem = Problem(f"cannot be opened: {error.strerror}", "check the path and its permissions", file=str(path))
        raise InputError("A shard cannot be read.", [problem]) from error
    known = _opened.get(path)
    if known is None or known.state != state:
        known = _opened[path] = _read_index(path, state) or _build_index(path, state)
    return known


def _state(stat: os.stat_result) -> State:
    return stat.st_size, stat.st_mtime_ns


def _index_files(shard: Path) -> list[Path]:
    """Where a shard's index may lie: beside it, or in the cache folder."""
    name = f".{shard.name}.index.parquet"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "equigen" / "shards"
    return [shard.with_name(name), cache / (hashlib.sha256(str(shard.resolve()).encode()).hexdigest() + ".parquet")]


def _read_index(shard: Path, state: State) -> Shard | None:
    """The index on disk, unless there is none, it is damaged, or the shard was changed since."""
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
    """Read every header of the shard, and keep the index where that is allowed."""
    members, problems = _scan(shard, state[0])
    names = [name for name, _, _ in members]
    twice = {name for place, name in enumerate(names) if place and name == names[place - 1]}
    mend = "write the shard anew with one member of each name"
    problems += [_problem(shard, f"the member '{name}' is there twice", mend) for name in sorted(twice)]
    if problems:
        raise InputError("A shard cannot be used.", problems)
    offsets, sizes = (np.array([member[part] for member in members], dtype=np.int64) for part in (1, 2))
    found = Shard(shard, state, pa.array(names, pa.string()), offsets, sizes)
    table = pa.table({"name": found.names, "offset": offsets, "size": sizes})
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
    return found


def _problem(shard: Path, message: str, mend: str) -> Problem:
    return Problem(message, mend, file=str(shard))


def _scan(shard: Path, size: int) -> tuple[list[tuple[str, int, int]], list[Problem]]:
    """(name, offset, bytes) of every member by name, and what is wrong with them."""
    members, problems = [], []
    try:
        with tarfile.open(shard, "r:") as archive:
            while (info := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # or a header would stay in memory for each member
                if archive.offset <= info.offset:
                    raise ValueError("a member of negative size")  # which would be read again and again
                if info.isdir():
                    continue
                fault = _fault(info, size)
                if fault is None:
                    members.append((PurePosixPath(info.name).as_posix(), info.offset_data, info.size))
                else:
                    problems.append(_problem(shard, f"the member '{info.name}' {fault}", "write the shard anew"))
            ended = archive.offset
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        found = _problem(shard, f"is truncated, compressed or no tar ({error})", "copy it again, or unpack it (.tar)")
        raise InputError("A shard cannot be read.", [found]) from error
    with shard.open("rb") as handle:
        handle.seek(ended)
        if handle.read(BLOCK) != bytes(BLOCK):  # tarfile takes a cut or damaged header for the end
            problems.append(_problem(shard, f"is truncated or damaged at byte {ended}", "copy it again"))
    return sorted(members), problems


def _fault(info: tarfile.TarInfo, size: int) -> str | None:
    """What is wrong with one member, if anything."""
    if not info.isreg() or info.issparse():
        return "is a link, a device or a sparse file"
    if leads_out(info.name):
        return "has a name that leads out of the shard"
    if not info.name.isprintable() or not _encodes(info.name):
        return "has a name that is no plain text"
    if info.offset_data + info.size > size:
        return "is cut off: the shard is truncated"
    return None


def leads_out(name: str) -> bool:
    """Whether a relative path may lead out of what it is relative to."""
    pure = PurePosixPath(name)
    return pure.is_absolute() or ".." in pure.parts or "\0" in name


def _encodes(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that were no UTF-8
        return False
    return True
