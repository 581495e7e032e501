"""Features of images in one pass, with a cache on disk by image hash and encoder.

``extract_features`` holds at most ``BLOCK`` images in memory beside the features themselves. ``file_remarks`` gives
the notes of a quality table about the files: JPEG compression, and native sizes that differ between the two sets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from equigen.cohort import ImageFault, load_images, open_image, read_image, same_files_note, square
from equigen.errors import InputError, Problem
from equigen.files import hash_arrays, hash_bytes, hash_file, hash_value, write_bytes
from equigen.progress import console, progress_bar
from equigen.quality.encoders import Encoder, identity
from equigen.quality.image_sets import ImageSet

BLOCK = 256  # images in memory at a time
SHARD = 2048  # images per cache file; an interrupted pass loses at most these
SIZE_SAMPLE = 200  # files of a set whose native size is read
SHA256 = re.compile("[0-9a-f]{64}")
JPEG = b"\xff\xd8\xff"

FeatureArrays = tuple[NDArray[np.float32], NDArray[np.float32] | None]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Features:
    """``values`` float32 [N, D]; ``probabilities`` float32 [N, C], or None for an encoder without classes."""

    values: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None


def default_size(images: ImageSet) -> int:
    """Side of the square to which all images are resized: the shorter side of the first image."""
    if images.pixels is not None:
        return int(min(images.pixels.shape[1:3]))
    return int(min(read_image(images.frame["path"].iloc[0]).shape[:2]))


def load_pixels(images: ImageSet, rows: Rows, size: int) -> NDArray[np.uint8]:
    """Load the images at these rows as uint8 [n, size, size, 3]."""
    if images.pixels is None:
        return load_images([Path(path) for path in images.frame["path"].iloc[rows]], size)
    batch = images.pixels[rows]
    if batch.shape[1:3] == (size, size):
        return batch
    return np.stack([square(image, size) for image in batch])


def extract_features(
    images: ImageSet,
    encoder: Encoder,
    size: int,
    *,
    cache_dir: str | Path | None = None,
    title: str = "Encoding images",
    show: bool = True,
) -> Features:
    """Encode every image once; with ``cache_dir``, only images whose features are not cached.

    An image is identified by the hash of its file (of its pixels where it is in memory); images with the same hash are
    encoded once. The key of a cached entry is that hash, the size and the encoder's identity.

    Memory is that of the features, of ``BLOCK`` images and of one cache file.

    Raises:
        InputError: a cache file can be neither read nor deleted, or the encoder gives NaN or the wrong shape.

    """
    if images.pixels is not None:
        hashes = [hash_bytes(image.tobytes() + str(image.shape).encode()) for image in images.pixels]
    else:
        hashes = _file_hashes(images)
    name = identity(encoder)
    keys = [hash_value([value, size, name]) for value in hashes]
    first_rows: dict[str, int] = {}
    source = np.array([first_rows.setdefault(key, row) for row, key in enumerate(keys)], dtype=np.int64)
    table = _FeatureTable(len(images), encoder)
    folder = None if cache_dir is None else Path(cache_dir) / hash_value(name)[:16]
    if folder is not None:
        for rows, arrays in _read_cache(folder, first_rows):
            table.fill(rows, arrays)
    missing = np.flatnonzero((source == np.arange(len(images))) & ~table.filled)
    with progress_bar(title, len(first_rows), completed=len(first_rows) - len(missing), show=show) as bar:
        for shard in _chunks(missing, SHARD):
            for rows in _chunks(shard, BLOCK):
                table.fill(rows, encoder(load_pixels(images, rows, size)))
                bar.advance(len(rows))
            if folder is not None:
                _write_shard(folder, [keys[row] for row in shard], table.take(shard))
    for rows in _chunks(np.flatnonzero(~table.filled), SHARD):
        table.fill(rows, table.take(source[rows]))
    return table.features()


class _FeatureTable:
    """Features of N images, allocated once and filled row by row in any order."""

    def __init__(self, count: int, encoder: Encoder) -> None:
        self.filled = np.zeros(count, dtype=bool)
        self._encoder = encoder
        self._values = np.empty((count, encoder.dimension), np.float32)
        self._classes: NDArray[np.float32] | None = None

    def fill(self, rows: Rows, arrays: FeatureArrays) -> None:
        """Check features, and probabilities where there are any, and write them to these rows."""
        values, classes = arrays
        shape = (len(rows), self._encoder.dimension)
        if np.shape(values) != shape or not np.isfinite(values).all():
            message = f"{np.shape(values)} features with {int((~np.isfinite(values)).sum())} not finite"
            raise self._encoder_error(message, f"it should give finite {list(shape)}")
        if classes is not None and self._classes is None and not self.filled.any():
            self._classes = np.empty((len(self.filled), np.shape(classes)[1]), np.float32)
        expected = None if self._classes is None else (len(rows), self._classes.shape[1])
        if (None if classes is None else np.shape(classes)) != expected:
            message = "probabilities of several widths, or for some images only"
            raise self._encoder_error(message, "give them for all or none")
        if classes is not None and not np.isfinite(classes).all():
            raise self._encoder_error("probabilities that are not finite", "give finite ones, or none")
        self._values[rows] = values
        if self._classes is not None and classes is not None:
            self._classes[rows] = classes
        self.filled[rows] = True

    def take(self, rows: Rows) -> FeatureArrays:
        """A copy of these rows."""
        return self._values[rows], None if self._classes is None else self._classes[rows]

    def features(self) -> Features:
        """Features of all rows, without a copy."""
        return Features(self._values, self._classes)

    def _encoder_error(self, message: str, mend: str) -> InputError:
        return InputError(f"The encoder {self._encoder.name} does not keep its word.", [Problem(message, mend)])


def _chunks(rows: Rows, length: int) -> Iterator[Rows]:
    for start in range(0, len(rows), length):
        yield rows[start : start + length]


def _file_hashes(images: ImageSet) -> list[str]:
    """SHA-256 of each image's file: that of the table, or computed where it has none."""
    hashes = images.frame["sha256"] if "sha256" in images.frame.columns else [None] * len(images)
    return [
        str(value) if SHA256.fullmatch(str(value)) else hash_file(path)
        for value, path in zip(hashes, images.frame["path"], strict=True)
    ]


def same_files_remark(first: ImageSet, second: ImageSet, first_name: str, second_name: str) -> str:
    """How many files of the first set are byte for byte in the second, with examples; "" for none, or without files.

    Examples are rows, counted as spreadsheets do, since the note goes into reports and a file name could be a person's.
    """
    if first.pixels is not None or second.pixels is not None:
        return ""
    frames = [
        pd.DataFrame({"path": [f"row {row + 2}" for row in range(len(images))], "sha256": _file_hashes(images)})
        for images in (first, second)
    ]
    return same_files_note(frames[0], frames[1], first_name, second_name)


def _read_cache(folder: Path, keys: dict[str, int]) -> Iterator[tuple[Rows, FeatureArrays]]:
    """Yield, for each cache file, the rows of ``keys`` that it holds, and their features.

    A damaged file is reported and deleted, so that its images are encoded again.
    """
    for path in sorted(folder.glob("[!.]*.safetensors")):
        try:
            rows, arrays = _read_shard(path, keys)
        except (SafetensorError, ValueError, IndexError, KeyError, TypeError, OSError) as error:
            _delete(path, error)
            continue
        if len(rows):
            yield rows, arrays


def _read_shard(path: Path, rows: dict[str, int]) -> tuple[Rows, FeatureArrays]:
    """Rows, by key, of the images in a cache file, and their features; no features where there are no rows.

    Raises ValueError where the features do not match their hash.
    """
    with safe_open(path, framework="numpy") as shard:
        metadata = shard.metadata() or {}
        keys = list(json.loads(metadata.get("keys", "[]")))
        indices = np.array([index for index, key in enumerate(keys) if key in rows], dtype=np.int64)
        if len(indices) == 0:
            return indices, (np.empty((0, 0), np.float32), None)
        tensors = {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118
    content = tensors.pop("sha256", None)  # files of an earlier version have none
    if content is not None and content.tobytes() != bytes.fromhex(hash_arrays(tensors, keys)):
        raise ValueError("its content does not fit its hash")
    classes = tensors.get("probabilities")
    arrays = tensors["features"][indices], None if classes is None else classes[indices]
    return np.array([rows[keys[index]] for index in indices], dtype=np.int64), arrays


def _delete(path: Path, error: Exception) -> None:
    """Delete a damaged cache file with a message; InputError where that is not allowed."""
    try:
        if isinstance(error, PermissionError):
            raise error
        path.unlink(missing_ok=True)
    except OSError as refusal:
        problem = Problem(f"cannot be read or deleted: {refusal.strerror}", "delete it", file=str(path))
        raise InputError("The feature cache cannot be read.", [problem]) from error
    console.print(f"[yellow]{path}: is damaged ({error}); it is deleted, its images are encoded again[/yellow]")


def _write_shard(folder: Path, keys: list[str], arrays: FeatureArrays) -> None:
    tensors = {"features": arrays[0]}
    if arrays[1] is not None:
        tensors["probabilities"] = arrays[1]
    content = np.frombuffer(bytes.fromhex(hash_arrays(tensors, keys)), np.uint8)
    data = save({**tensors, "sha256": content}, metadata={"keys": json.dumps(keys)})  # one key, so that bytes repeat
    write_bytes(folder / f"{hash_value(keys)[:16]}.safetensors", data)


def jpeg_remark(images: ImageSet, name: str) -> str:
    """Remark on how many images are JPEG files, by their first bytes; empty where none is, or none is a file.

    JPEG blocks and blurred colours are features to an encoder. Lossy data inside TIFF, WebP or DICOM files is not
    counted.
    """
    count = _count_jpegs(images)
    text = f"{count} of {len(images)} {name} images are JPEG files: the encoder sees their compression"
    return text if count else ""


def _count_jpegs(images: ImageSet) -> int:
    if images.pixels is not None:
        return 0
    count = 0
    for path in images.frame["path"]:
        with open_image(Path(path)) as handle:
            count += handle.read(len(JPEG)) == JPEG
    return count


def file_remarks(real: ImageSet, generated: ImageSet, size: int) -> list[str]:
    """Remarks on differences between the files of two sets, each a sentence for the notes; empty for none.

    * JPEG files in either set, and whether the sets differ in it;
    * sets whose native sizes differ, so that resizing to ``size`` resamples them differently (of the shorter side of
      200 files of each, spread over the table).
    """
    remarks = [jpeg_remark(real, "real"), jpeg_remark(generated, "generated")]
    counts = [_count_jpegs(real), _count_jpegs(generated)]
    if real.pixels is None and generated.pixels is None and counts[0] * len(generated) != counts[1] * len(real):
        remarks.append("the two sides differ in this, so a part of their distance is compression")
    ranges = [_native_range(real), _native_range(generated)]
    if ranges[0] != ranges[1] and ranges[0] is not None and ranges[1] is not None:
        texts = [str(low) if low == high else f"{low} to {high}" for low, high in (ranges[0], ranges[1])]
        remarks.append(
            f"native sizes differ (shorter side: real {texts[0]}, generated {texts[1]} px), "
            f"so bringing them to {size} px resamples the two sides differently"
        )
    return [remark for remark in remarks if remark]


def _native_range(images: ImageSet) -> tuple[int, int] | None:
    """Least and greatest shorter side in pixels, by the files' headers; None where no header can be read."""
    if images.pixels is not None:
        length = int(min(images.pixels.shape[1:3]))
        return length, length
    lengths = []
    rows = np.unique(np.linspace(0, len(images) - 1, min(SIZE_SAMPLE, len(images))).astype(np.int64))
    for path in images.frame["path"].iloc[rows]:
        # NPZ and DICOM, whose headers Pillow does not know, are not counted
        with (
            suppress(ImageFault, OSError, SyntaxError, Image.DecompressionBombError),
            open_image(Path(path)) as handle,
            Image.open(handle) as image,
        ):
            lengths.append(min(image.size))
    return (min(lengths), max(lengths)) if lengths else None
