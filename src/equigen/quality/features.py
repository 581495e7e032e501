"""From images to features, in one pass, kept on disk by image hash and encoder.

``extract_features`` holds at most ``BLOCK`` images in memory beside the features themselves. ``file_remarks`` gives
the notes of a quality table about the files: JPEG compression, and native sizes that differ between the two sets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
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
SIZED = 200  # files per side whose native size is looked at
SHA256 = re.compile("[0-9a-f]{64}")
JPEG = b"\xff\xd8\xff"

Pair = tuple[NDArray[np.float32], NDArray[np.float32] | None]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Features:
    """``values`` float32 [N, D]; ``probabilities`` float32 [N, C], or None for an encoder without classes."""

    values: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None


def default_size(images: ImageSet) -> int:
    """Side of the square that both sides are brought to: the shorter side of the first image."""
    if images.pixels is not None:
        return int(min(images.pixels.shape[1:3]))
    return int(min(read_image(images.frame["path"].iloc[0]).shape[:2]))


def load_pixels(images: ImageSet, rows: Rows, size: int) -> NDArray[np.uint8]:
    """uint8 [n, size, size, 3]: the images at these rows by the road that all stages take."""
    if images.pixels is None:
        return load_images([Path(path) for path in images.frame["path"].iloc[rows]], size)
    chosen = images.pixels[rows]
    if chosen.shape[1:3] == (size, size):
        return chosen
    return np.stack([square(image, size) for image in chosen])


def extract_features(
    images: ImageSet, encoder: Encoder, size: int, *, cache_dir: str | Path | None = None,
    title: str = "Encoding images", show: bool = True,
) -> Features:
    """Encode every image once; with ``cache_dir``, only those whose features are not there yet.

    An image is known by the hash of its file (of its pixels where it is in memory); those with the same hash are
    encoded once. A cached entry is found by that hash, the size and the encoder's identity.

    Memory is that of the features, of ``BLOCK`` images and of one cache file.

    Raises:
        InputError: a cache file can be neither read nor deleted, or the encoder gives NaN or the wrong shape.

    """
    keys = _keys(images, encoder, size)
    firsts: dict[str, int] = {}
    source = np.array([firsts.setdefault(key, row) for row, key in enumerate(keys)], dtype=np.int64)
    table = _Table(len(images), encoder)
    folder = None if cache_dir is None else Path(cache_dir) / hash_value(identity(encoder))[:16]
    if folder is not None:
        for rows, pair in _cached(folder, firsts):
            table.fill(rows, pair)
    missing = np.flatnonzero((source == np.arange(len(images))) & ~table.filled)
    with progress_bar(title, len(firsts), completed=len(firsts) - len(missing), show=show) as bar:
        for shard in _pieces(missing, SHARD):
            for rows in _pieces(shard, BLOCK):
                table.fill(rows, encoder(load_pixels(images, rows, size)))
                bar.advance(len(rows))
            if folder is not None:
                _write_cache(folder, [keys[row] for row in shard], table.at(shard))
    for rows in _pieces(np.flatnonzero(~table.filled), SHARD):
        table.fill(rows, table.at(source[rows]))
    return table.features()


class _Table:
    """Features of N images, allocated once and filled row by row in any order."""

    def __init__(self, count: int, encoder: Encoder) -> None:
        self.filled = np.zeros(count, dtype=bool)
        self._encoder = encoder
        self._values = np.empty((count, encoder.dimension), np.float32)
        self._classes: NDArray[np.float32] | None = None

    def fill(self, rows: Rows, pair: Pair) -> None:
        """Put features, and probabilities where there are any, into these rows, once they are checked."""
        values, classes = pair
        want = (len(rows), self._encoder.dimension)
        if np.shape(values) != want or not np.isfinite(values).all():
            found = f"{np.shape(values)} features with {int((~np.isfinite(values)).sum())} not finite"
            raise self._broken(found, f"it should give finite {list(want)}")
        if classes is not None and self._classes is None and not self.filled.any():
            self._classes = np.empty((len(self.filled), np.shape(classes)[1]), np.float32)
        expected = None if self._classes is None else (len(rows), self._classes.shape[1])
        if (None if classes is None else np.shape(classes)) != expected:
            raise self._broken("probabilities of several widths, or for some images only", "give them for all or none")
        if classes is not None and not np.isfinite(classes).all():
            raise self._broken("probabilities that are not finite", "give finite ones, or none")
        self._values[rows] = values
        if self._classes is not None and classes is not None:
            self._classes[rows] = classes
        self.filled[rows] = True

    def at(self, rows: Rows) -> Pair:
        """A copy of these rows."""
        return self._values[rows], None if self._classes is None else self._classes[rows]

    def features(self) -> Features:
        """The whole, without a copy."""
        return Features(self._values, self._classes)

    def _broken(self, message: str, mend: str) -> InputError:
        return InputError(f"The encoder {self._encoder.name} does not keep its word.", [Problem(message, mend)])


def _pieces(rows: Rows, length: int) -> Iterator[Rows]:
    for start in range(0, len(rows), length):
        yield rows[start : start + length]


def _keys(images: ImageSet, encoder: Encoder, size: int) -> list[str]:
    """Cache key of each image: hash of its file, or of its pixels, with the size and the encoder."""
    if images.pixels is not None:
        hashes = [hash_bytes(image.tobytes() + str(image.shape).encode()) for image in images.pixels]
    else:
        hashes = _file_hashes(images)
    name = identity(encoder)
    return [hash_value([value, size, name]) for value in hashes]


def _file_hashes(images: ImageSet) -> list[str]:
    """SHA-256 of each image's file, as the table gives it or as it is computed."""
    known = images.frame["sha256"] if "sha256" in images.frame.columns else [None] * len(images)
    return [str(value) if SHA256.fullmatch(str(value)) else hash_file(path)
            for value, path in zip(known, images.frame["path"], strict=True)]


def same_files_remark(one: ImageSet, two: ImageSet, what: str, whose: str) -> str:
    """How many files of one side are byte for byte those of the other, with examples; "" where none or no files.

    Examples are rows, counted as spreadsheets do, since the note goes into reports and a file name could be a person's.
    """
    if one.pixels is not None or two.pixels is not None:
        return ""
    first, second = (
        pd.DataFrame({"path": [f"row {row + 2}" for row in range(len(side))], "sha256": _file_hashes(side)})
        for side in (one, two)
    )
    return same_files_note(first, second, what, whose)


def _cached(folder: Path, wanted: dict[str, int]) -> Iterator[tuple[Rows, Pair]]:
    """One cache file at a time: the rows of ``wanted`` that it holds, and what it holds for them.

    A damaged file is told and deleted, so that its images are encoded again.
    """
    for path in sorted(folder.glob("[!.]*.safetensors")):
        try:
            keys, places, pair = _cache_file(path, wanted)
        except (SafetensorError, ValueError, IndexError, KeyError, TypeError, OSError) as error:
            _delete(path, error)
            continue
        if len(places):
            yield np.array([wanted[keys[place]] for place in places], dtype=np.int64), pair


def _cache_file(path: Path, wanted: dict[str, int]) -> tuple[list[str], Rows, Pair]:
    """The keys of a cache file, the places of those that are wanted, and their features; no features for none.

    ValueError where the features are not those that were written.
    """
    with safe_open(path, framework="numpy") as shard:
        stated = shard.metadata() or {}
        keys = list(json.loads(stated.get("keys", "[]")))
        places = np.array([place for place, key in enumerate(keys) if key in wanted], dtype=np.int64)
        if len(places) == 0:
            return keys, places, (np.empty((0, 0), np.float32), None)
        tensors = {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118
    content = tensors.pop("sha256", None)  # files of an earlier version have none
    if content is not None and content.tobytes() != bytes.fromhex(hash_arrays(tensors, keys)):
        raise ValueError("its content does not fit its hash")
    classes = tensors.get("probabilities")
    return keys, places, (tensors["features"][places], None if classes is None else classes[places])


def _delete(path: Path, error: Exception) -> None:
    """Tell a damaged cache file and delete it; InputError where that is not allowed."""
    try:
        if isinstance(error, PermissionError):
            raise error
        path.unlink(missing_ok=True)
    except OSError as refusal:
        problem = Problem(f"cannot be read or deleted: {refusal.strerror}", "delete it", file=str(path))
        raise InputError("The feature cache cannot be read.", [problem]) from error
    console.print(f"[yellow]{path}: is damaged ({error}); it is deleted, its images are encoded again[/yellow]")


def _write_cache(folder: Path, keys: list[str], encoded: Pair) -> None:
    tensors = {"features": encoded[0]}
    if encoded[1] is not None:
        tensors["probabilities"] = encoded[1]
    content = np.frombuffer(bytes.fromhex(hash_arrays(tensors, keys)), np.uint8)
    data = save({**tensors, "sha256": content}, metadata={"keys": json.dumps(keys)})  # one key, so that bytes repeat
    write_bytes(folder / f"{hash_value(keys)[:16]}.safetensors", data)


def jpeg_remark(images: ImageSet, side: str) -> str:
    """Say how many images are JPEG files, found by their first bytes; empty where none is, or none is a file.

    JPEG blocks and blurred colours are features to an encoder. Lossy data inside TIFF, WebP or DICOM files is not
    seen.
    """
    return _told(_jpegs(images), len(images), side)


def _told(count: int, total: int, side: str) -> str:
    return f"{count} of {total} {side} images are JPEG files: the encoder sees their compression" if count else ""


def _jpegs(images: ImageSet) -> int:
    if images.pixels is not None:
        return 0
    return sum(_starts(path, JPEG) for path in images.frame["path"])


def _starts(path: str, signature: bytes) -> bool:
    with open_image(Path(path)) as handle:
        return handle.read(len(signature)) == signature


def file_remarks(real: ImageSet, generated: ImageSet, size: int) -> list[str]:
    """What the files of both sides say about comparing them, each a sentence for the notes; empty if nothing.

    * JPEG files on either side, and whether the sides differ in it;
    * sides whose native sizes differ, so that bringing them to ``size`` resamples them differently (of the shorter
      side of 200 files a side, spread over the table).
    """
    counts = [_jpegs(real), _jpegs(generated)]
    remarks = [_told(counts[0], len(real), "real"), _told(counts[1], len(generated), "generated")]
    if real.pixels is None and generated.pixels is None and counts[0] * len(generated) != counts[1] * len(real):
        remarks.append("the two sides differ in this, so a part of their distance is compression")
    sides = [_native(real), _native(generated)]
    if sides[0] != sides[1] and None not in sides:
        remarks.append(f"native sizes differ (shorter side: real {_span(sides[0])}, generated {_span(sides[1])} px), "
                       f"so bringing them to {size} px resamples the two sides differently")
    return [remark for remark in remarks if remark]


def _native(images: ImageSet) -> tuple[int, int] | None:
    """Least and greatest shorter side in pixels, by the files' headers; None where no header tells it."""
    if images.pixels is not None:
        side = int(min(images.pixels.shape[1:3]))
        return side, side
    rows = np.unique(np.linspace(0, len(images) - 1, min(SIZED, len(images))).astype(np.int64))
    found = [side for side in map(_shorter, images.frame["path"].iloc[rows]) if side is not None]
    return (min(found), max(found)) if found else None


def _shorter(path: str) -> int | None:
    try:
        with open_image(Path(path)) as handle, Image.open(handle) as image:
            return min(image.size)
    except (ImageFault, OSError, SyntaxError, Image.DecompressionBombError):
        return None  # NPZ and DICOM, whose headers Pillow does not know, are not counted


def _span(sides: tuple[int, int] | None) -> str:
    return "unknown" if sides is None else str(sides[0]) if sides[0] == sides[1] else f"{sides[0]} to {sides[1]}"
