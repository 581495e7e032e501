"""From images to features, in one pass, kept on disk by image hash and encoder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from equigen.cohort import load_images, read_image, square
from equigen.errors import InputError, Problem
from equigen.files import hash_bytes, hash_file, hash_value, write_bytes
from equigen.progress import progress_bar
from equigen.quality.encoders import Encoder, identity
from equigen.quality.sources import ImageSet

BLOCK = 256  # images in memory at a time
SHARD = 2048  # images per cache file; an interrupted pass loses at most these

Pair = tuple[NDArray[np.float32], NDArray[np.float32] | None]


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


def pixels(images: ImageSet, rows: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
    """uint8 [n, size, size, 3]: the images at these rows by the road that all stages take."""
    if images.pixels is None:
        return load_images([Path(path) for path in images.frame["path"].iloc[rows]], size)
    chosen = images.pixels[rows]
    if chosen.shape[1:3] == (size, size):
        return chosen
    return np.stack([square(image, size) for image in chosen])


def extract(
    images: ImageSet, encoder: Encoder, size: int, *, cache_dir: str | Path | None = None,
    title: str = "Encoding images", show: bool = True,
) -> Features:
    """Encode every image once; with ``cache_dir``, only those whose features are not there yet.

    A cached entry is found by the hash of the image, the size and the encoder's identity.

    Raises:
        InputError: a cache file cannot be read, or the encoder gives NaN or the wrong shape.

    """
    keys = _keys(images, encoder, size) if cache_dir is not None else [""] * len(images)
    folder = None if cache_dir is None else Path(cache_dir) / hash_value(identity(encoder))[:16]
    known = {} if folder is None else _read_cache(folder, set(keys))
    missing = np.array([row for row, key in enumerate(keys) if key not in known], dtype=np.int64)
    fresh: list[Pair] = []
    with progress_bar(title, len(images), done=len(images) - len(missing), show=show) as bar:
        for start in range(0, len(missing), SHARD):
            shard = missing[start : start + SHARD]
            blocks = []
            for first in range(0, len(shard), BLOCK):
                rows = shard[first : first + BLOCK]
                blocks.append(_checked(encoder(pixels(images, rows, size)), encoder, len(rows)))
                bar.advance(len(rows))
            fresh.append(_joined(blocks))
            if folder is not None:
                _write_cache(folder, [keys[row] for row in shard], fresh[-1])
    return _gather(len(images), missing, fresh, [known.get(key) for key in keys])


def _checked(encoded: Pair, encoder: Encoder, count: int) -> Pair:
    values = np.asarray(encoded[0], dtype=np.float32)
    if values.shape != (count, encoder.dimension) or not np.isfinite(values).all():
        problem = Problem(f"{values.shape} features with {int((~np.isfinite(values)).sum())} not finite",
                          f"it should give finite [{count}, {encoder.dimension}]")
        raise InputError(f"The encoder {encoder.name} does not keep its word.", [problem])
    return values, None if encoded[1] is None else np.asarray(encoded[1], dtype=np.float32)


def _joined(blocks: list[Pair]) -> Pair:
    probabilities = [block[1] for block in blocks if block[1] is not None]
    values = np.concatenate([block[0] for block in blocks])
    return values, np.concatenate(probabilities) if probabilities else None


def _gather(count: int, missing: NDArray[np.int64], fresh: list[Pair], known: list[Pair | None]) -> Features:
    """Put fresh and cached rows back in the order of the table."""
    rows: list[Pair | None] = list(known)
    position = 0
    for values, probabilities in fresh:
        for index in range(len(values)):
            rows[missing[position]] = values[index], None if probabilities is None else probabilities[index]
            position += 1
    whole = [row for row in rows if row is not None]
    values = np.stack([row[0] for row in whole])
    classes = [row[1] for row in whole if row[1] is not None]
    return Features(values, np.stack(classes) if len(classes) == count else None)


def _keys(images: ImageSet, encoder: Encoder, size: int) -> list[str]:
    """Cache key of each image: hash of its file, or of its pixels, with the size and the encoder."""
    if images.pixels is not None:
        hashes = [hash_bytes(image.tobytes() + str(image.shape).encode()) for image in images.pixels]
    elif "sha256" in images.frame.columns:
        hashes = [str(value) for value in images.frame["sha256"]]
    else:
        hashes = [hash_file(path) for path in images.frame["path"]]
    return [hash_value([value, size, identity(encoder)]) for value in hashes]


def _read_cache(folder: Path, wanted: set[str]) -> dict[str, Pair]:
    found: dict[str, Pair] = {}
    for path in sorted(folder.glob("[!.]*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as shard:
                keys = json.loads((shard.metadata() or {}).get("keys", "[]"))
                if wanted.isdisjoint(keys):
                    continue
                values = shard.get_tensor("features")
                named = set(shard.keys())
                classes = shard.get_tensor("probabilities") if "probabilities" in named else None
        except (SafetensorError, json.JSONDecodeError) as error:
            problem = Problem(f"not a whole cache file: {error}", "delete it", file=str(path))
            raise InputError("The feature cache cannot be read.", [problem]) from error
        found |= {key: (values[i], None if classes is None else classes[i])
                  for i, key in enumerate(keys) if key in wanted}
    return found


def _write_cache(folder: Path, keys: list[str], encoded: Pair) -> None:
    tensors = {"features": encoded[0]}
    if encoded[1] is not None:
        tensors["probabilities"] = encoded[1]
    data = save(tensors, metadata={"keys": json.dumps(keys)})
    write_bytes(folder / f"{hash_value(keys)[:16]}.safetensors", data)
