"""Paths and hashes of a cohort's images as arrays, without a Python object per row."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from equigen.cohort.cohort import Cohort
from equigen.errors import InputError, Problem
from equigen.files import hash_bytes

DIGEST = 32  # bytes of a SHA-256


@dataclass(frozen=True)
class ImageList:
    """Images in row order: ``names`` relative to ``root``, and SHA-256 ``digests`` [N, 32] uint8 of their bytes."""

    root: Path
    names: pa.ChunkedArray
    digests: NDArray[np.uint8]

    @classmethod
    def of(cls, cohort: Cohort) -> ImageList:
        """Return the image list of a cohort that is in memory."""
        names, hashes = (pa.array(cohort.frame[name], pa.string()) for name in ("image", "sha256"))
        return cls(cohort.root, pa.chunked_array([names]), parse_digests(hashes))

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.names)

    @property
    def hash(self) -> str:
        """SHA-256 over all images' hashes in row order."""
        return hash_bytes(np.ascontiguousarray(self.digests).tobytes())

    def paths(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the paths of some rows' images, for ``equigen.cohort.images.sources.open_image``."""
        root = str(self.root)
        return [os.path.join(root, name) for name in self.names.take(pa.array(rows)).to_pylist()]  # noqa: PTH118

    def first_rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first row [U] of each distinct image, in row order, and each row's index into these [N]."""
        keys = np.ascontiguousarray(self.digests).view(f"V{DIGEST}").reshape(-1)
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        order = np.argsort(first)
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        return first[order].astype(np.int64), rank[inverse.reshape(-1)]

    def parts(self, rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
        """Split rows into batches that are read together: the rows of one shard, or ``size`` rows outside shards."""
        shards = pc.extract_regex(self.names.take(pa.array(rows)), r"^(?P<shard>.*?\.tar)/")
        codes = pc.struct_field(shards, "shard").combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()
        unsharded, order = rows[codes < 0], np.argsort(codes, kind="stable")
        sharded = rows[order][codes[order] >= 0]
        ends = np.flatnonzero(np.diff(codes[order][codes[order] >= 0])) + 1
        batches: Sequence[NDArray[np.int64]] = np.split(sharded, ends) if len(sharded) else []
        return [*batches, *(unsharded[low : low + size] for low in range(0, len(unsharded), size))]


def parse_digests(hashes: pa.Array) -> NDArray[np.uint8]:
    """Return hexadecimal SHA-256 [N] as bytes [N, 32]; raises InputError for a malformed one."""
    sizes = pc.min_max(pc.binary_length(hashes)).as_py()
    digits = np.zeros((0, 2 * DIGEST), dtype=np.uint8)
    if not hashes.null_count and set(sizes.values()) <= {2 * DIGEST}:
        text = hashes.cast(pa.string()).cast(pa.binary(2 * DIGEST))
        letters = np.frombuffer(text.buffers()[1], dtype=np.uint8)[text.offset * 2 * DIGEST :][: len(text) * 2 * DIGEST]
        digits = _VALUES[letters].reshape(-1, 2 * DIGEST)
    if len(digits) != len(hashes) or (digits > 15).any():
        problem = Problem("holds something that is no SHA-256", "run the cohort stage again", column="sha256")
        raise InputError("The images' hashes cannot be used.", [problem])
    return np.asarray(digits[:, ::2] * np.uint8(16) + digits[:, 1::2])


_VALUES = np.full(256, 255, dtype=np.uint8)  # value of a hexadecimal digit by its character code
for _value, _letter in enumerate(b"0123456789abcdef"):
    _VALUES[_letter] = _value
