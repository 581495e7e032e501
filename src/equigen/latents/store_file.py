"""The file of a latent store: a safetensors file that is made at its full size and filled in place.

It holds ``images`` [N, 32] uint8 (SHA-256 of each row's image), ``moments`` [N, C, 2] float64 (mean of each latent's
channel and sum of squared deviations from it), ``latents`` [N, C, h, w] float16, ``done`` [N] uint8 and ``sums`` [N,
2] uint32: CRC-32 of each row's moments and of its latents, checked whenever they are read; 0 where none was written,
and no such tensor in a store of an earlier version. It is read and written at offsets, row by row: mapped into memory
instead, its pages would count as the process's own, and a full disk would end the process.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import weakref
import zlib
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from equigen.errors import InputError, Problem
from equigen.files import convert_disk_full

STORE_FILE = "latents.safetensors"
LONGEST = 100_000_000  # bytes of a header, as safetensors itself allows
_TYPES = {"images": ("U8", 1), "moments": ("F64", 8), "latents": ("F16", 2), "done": ("U8", 1)}
_SUMS = {"sums": ("U32", 4)}


def create_store(folder: Path, shape: tuple[int, ...], digests: NDArray[np.uint8], metadata: Mapping[str, str]) -> None:
    """Create an empty store [N, C, h, w] in a new folder, atomically; does nothing where there is one.

    Of several processes that try at once, one creates it. On most file systems it takes no space before it is filled.
    """
    if (folder / STORE_FILE).is_file():
        return
    shapes = {"images": digests.shape, "moments": (*shape[:2], 2), "latents": shape, "done": shape[:1],
              "sums": (shape[0], 2)}  # fmt: skip
    header, offset = {"__metadata__": dict(metadata)}, 0
    for name, (kind, width) in {**_TYPES, **_SUMS}.items():
        end = offset + width * math.prod(shapes[name])
        header[name] = {"dtype": kind, "shape": list(shapes[name]), "data_offsets": [offset, end]}  # type: ignore[dict-item]
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.part")
    with convert_disk_full(folder):
        temporary.mkdir(parents=True)
        try:
            with (temporary / STORE_FILE).open("wb") as handle:
                handle.write(len(text).to_bytes(8, "little") + text)
                handle.write(np.ascontiguousarray(digests).tobytes())
                handle.truncate(8 + len(text) + offset)
                handle.flush()
                os.fsync(handle.fileno())
            if not (folder / STORE_FILE).is_file():
                temporary.rename(folder)  # also in place of an empty one, whose file was deleted
        except OSError:
            if not (folder / STORE_FILE).is_file():  # another process was faster
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


class StoreFile:
    """One open store. Raises InputError when it is damaged or something else."""

    def __init__(self, file: Path, write: bool = False) -> None:
        self.file = file
        try:
            self._handle = os.open(file, os.O_RDWR if write else os.O_RDONLY)
        except OSError as error:
            raise self._read_error(f"cannot be opened: {error.strerror}", "encode the cohort") from error
        weakref.finalize(self, os.close, self._handle)
        try:
            length = int.from_bytes(os.pread(self._handle, 8, 0), "little")
            header = json.loads(os.pread(self._handle, min(length, LONGEST), 8))
            self.metadata: dict[str, str] = header["__metadata__"]
            types = {**_TYPES, **(_SUMS if "sums" in header else {})}
            self._starts = {name: 8 + length + header[name]["data_offsets"][0] for name in types}
            end = 8 + length + max(header[name]["data_offsets"][1] for name in types)
            self.shape = tuple(int(dimension) for dimension in header["latents"]["shape"])
            kinds = [header[name]["dtype"] for name in types]
        except (ValueError, KeyError, TypeError) as error:
            raise self._read_error("is no store of latents", "delete it and encode again") from error
        complete = os.fstat(self._handle).st_size == end and kinds == [kind for kind, _ in types.values()]
        if not complete or len(self.shape) != 4:
            raise self._read_error("is truncated or no store of latents", "delete it and encode again")
        self._row = 2 * math.prod(self.shape[1:])

    def _read_error(self, message: str, mend: str) -> InputError:
        return InputError("The latents cannot be read.", [Problem(message, mend, file=str(self.file))])

    def digests(self) -> NDArray[np.uint8]:
        """SHA-256 of each row's image, [N, 32]."""
        return self._bytes("images", 0, self.shape[0], 32).reshape(-1, 32)

    def filled_rows(self) -> NDArray[np.bool_]:
        """Return which rows are filled, [N]."""
        return self._bytes("done", 0, self.shape[0], 1) > 0

    def moments(self, low: int, high: int) -> NDArray[np.float64]:
        """Return mean and sum of squared deviations of each channel, [n, C, 2], of rows ``low`` up to ``high``."""
        width = 16 * self.shape[1]
        values = self._bytes("moments", low, high, width)
        sums = self._sums(low, high)[:, 0]
        for row in np.flatnonzero(sums):
            self._check(low + int(row), values[row * width : (row + 1) * width].data, int(sums[row]))
        return values.view(np.float64).reshape(high - low, self.shape[1], 2)

    def _sums(self, low: int, high: int) -> NDArray[np.uint32]:
        """Return CRC-32 of moments and latents of rows ``low`` up to ``high``, [n, 2]; 0 where none is stored."""
        if "sums" not in self._starts:
            return np.zeros((high - low, 2), dtype=np.uint32)
        return self._bytes("sums", low, high, 8).view(np.uint32).reshape(-1, 2)

    def _check(self, row: int, data: memoryview, stated: int) -> None:
        """Raise InputError where the bytes of a row are not those that were written."""
        if zlib.crc32(data) != stated:
            raise self._read_error(f"is damaged: row {row} does not fit its checksum", "delete it and encode again")

    def _bytes(self, name: str, low: int, high: int, width: int) -> NDArray[np.uint8]:
        """``width`` bytes a row."""
        values = np.empty((high - low) * width, dtype=np.uint8)
        self._read(values.data, self._starts[name] + low * width)
        return values

    def _read(self, buffer: memoryview, offset: int) -> None:
        while len(buffer):  # one call reads at most 2 GB
            count = os.preadv(self._handle, [buffer], offset)
            if count == 0:
                raise self._read_error("was cut off meanwhile", "delete it and encode again")
            buffer, offset = buffer[count:], offset + count

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return the latents of some rows, [B, C, h, w]."""
        latents = np.empty((len(rows), *self.shape[1:]), dtype=np.float16)
        bytes_of = latents.reshape(-1).view(np.uint8).data
        for position, row in enumerate(rows.tolist()):
            buffer = bytes_of[position * self._row : (position + 1) * self._row]
            self._read(buffer, self._starts["latents"] + row * self._row)
            stated = int(self._sums(row, row + 1)[0, 1])
            if stated:
                self._check(row, buffer, stated)
        return latents

    def write(self, rows: NDArray[np.int64], latent: NDArray[np.float16]) -> None:
        """Write a latent [C, h, w] into all of its rows."""
        flat = latent.astype(np.float64).reshape(len(latent), -1)
        mean = flat.mean(axis=1)
        moments = np.stack([mean, np.square(flat - mean[:, None]).sum(axis=1)], axis=1)
        parts = {"moments": moments.tobytes(), "latents": np.ascontiguousarray(latent).tobytes()}
        sums = np.array([zlib.crc32(data) for data in parts.values()], dtype="<u4").tobytes()
        for row in rows.tolist():
            for name, data in parts.items():
                self._write(data, self._starts[name] + row * len(data))
            if "sums" in self._starts:
                self._write(sums, self._starts["sums"] + row * len(sums))

    def mark(self, rows: NDArray[np.int64]) -> None:
        """Mark rows as filled, after their latents are safely on the disk."""
        with convert_disk_full(self.file):
            os.fsync(self._handle)
        for row in rows.tolist():
            self._write(b"\1", self._starts["done"] + row)

    def _write(self, data: bytes, offset: int) -> None:
        with convert_disk_full(self.file):
            while data:
                count = os.pwrite(self._handle, data, offset)
                data, offset = data[count:], offset + count
