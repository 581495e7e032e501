"""A cache of latents on disk, by the hashes of the image and of the autoencoder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from equigen.cohort import Cohort, load_images, reading_order
from equigen.errors import InputError, Problem
from equigen.files import hash_arrays, hash_value, replace_file
from equigen.latents.autoencoder import Autoencoder
from equigen.latents.fitting import psnr
from equigen.progress import console, progress_bar

SHARD = 2048  # images a shard
ROUNDS = 3  # times that damaged shards are encoded again before the disk is given up


class ShardError(InputError):
    """A shard of latents was damaged, and is deleted: its images have to be encoded again."""


@dataclass(frozen=True)
class Latents:
    """Latents of a cohort's images, in its row order.

    ``values``: [N, C, h, w] float32 as the autoencoder gave them (kept on disk in half precision);
    ``size``: side of the images in pixels; ``autoencoder``: its weight hash.
    """

    values: torch.Tensor
    size: int
    autoencoder: str


class LatentCache:
    """A folder of safetensors shards for one autoencoder and image size.

    A shard holds ``latents`` [n, C, h, w] float16, the SHA-256 of each image in its header, and ``sha256`` [32] uint8
    of all that, which is checked when it is read; shards of an earlier version have none. A damaged shard is reported
    and deleted. Shards are only ever added, so an interrupted encoding resumes and a grown cohort encodes its new
    images alone.
    """

    def __init__(self, folder: str | Path, autoencoder: str, size: int) -> None:
        self.folder = Path(folder) / f"{autoencoder}-{size}"
        self.locations: dict[str, tuple[Path, int]] = {}
        for shard in sorted(self.folder.glob("shard-*.safetensors")):
            self._index(shard)

    def _index(self, shard: Path) -> None:
        """Add a shard's images to the index; a shard whose header is damaged is reported and deleted."""
        try:
            with safe_open(str(shard), framework="pt") as handle:
                hashes = list(json.loads((handle.metadata() or {})["images"]))
                if len(hashes) != handle.get_slice("latents").get_shape()[0]:
                    raise ValueError("it does not say of each latent which image it is of")
        except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
            self._delete(shard, error)
            return
        self.locations.update({name: (shard, index) for index, name in enumerate(hashes)})

    def _delete(self, shard: Path, error: Exception) -> None:
        """Report a damaged shard and delete it; raises InputError where that is not allowed."""
        try:
            if isinstance(error, PermissionError):
                raise error
            shard.unlink(missing_ok=True)
        except OSError as refusal:
            problem = Problem(f"cannot be read or deleted: {refusal.strerror}", "delete it; its images are then "
                              "encoded again", file=str(shard))  # fmt: skip
            raise InputError("A cached file of latents is damaged.", [problem]) from error
        console.print(f"[yellow]{shard}: is damaged ({error}); it is deleted, its images are encoded again[/yellow]")
        self.locations = {name: location for name, location in self.locations.items() if location[0] != shard}

    def add(self, hashes: Sequence[str], latents: torch.Tensor) -> None:
        """Write one more shard: [n, C, h, w] and the hash of each image. InputError when a latent is not finite.

        The shard's name holds a hash of what is in it, so neither another process nor a gap in the numbers, left by a
        damaged shard that was deleted, can make it take the place of another.
        """
        halves = latents.half().cpu().contiguous()
        check_finite(halves)
        count = len(list(self.folder.glob("shard-*.safetensors")))
        shard = self.folder / f"shard-{count:05d}-{hash_value(list(hashes))[:12]}.safetensors"
        with replace_file(shard) as temporary:
            save_file(
                {"latents": halves, "sha256": torch.tensor(list(_shard_digest(hashes, halves)), dtype=torch.uint8)},
                temporary,
                metadata={"images": json.dumps(list(hashes))},
            )
        self._index(shard)

    def read(self, hashes: Sequence[str]) -> torch.Tensor:
        """Return [N, C, h, w] float32 of images that are all in the cache, in the order of ``hashes``.

        Raises ShardError, after all damaged shards were reported and deleted, where there are any.
        """
        shards: dict[Path, torch.Tensor] = {}
        damaged = []
        for shard in sorted({self.locations[name][0] for name in hashes}):
            try:
                shards[shard] = self._values(shard)
            except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
                self._delete(shard, error)
                problem = Problem("was damaged, and is deleted", "run the same command again: it is encoded again",
                                  file=str(shard))  # fmt: skip
                damaged.append(problem)
        if damaged:
            raise ShardError("Cached latents were damaged.", damaged)
        return torch.stack([shards[self.locations[name][0]][self.locations[name][1]] for name in hashes]).float()

    @staticmethod
    def _values(shard: Path) -> torch.Tensor:
        """[n, C, h, w] float16 of one shard; ValueError where they are not those that were written."""
        with safe_open(str(shard), framework="pt") as handle:
            hashes = json.loads(handle.metadata()["images"])
            values: torch.Tensor = handle.get_tensor("latents")
            stated = handle.get_tensor("sha256") if "sha256" in set(handle.keys()) else None
        if stated is not None and bytes(stated.tolist()) != _shard_digest(hashes, values):
            raise ValueError("its content does not fit its hash")
        return values


def _shard_digest(hashes: Sequence[str], halves: torch.Tensor) -> bytes:
    """Return SHA-256 of a shard, 32 bytes: of the images' hashes and of the latents [n, C, h, w]."""
    return bytes.fromhex(hash_arrays({"latents": halves.numpy()}, list(hashes)))


def encode(
    cohort: Cohort,
    autoencoder: Autoencoder,
    folder: str | Path,
    size: int = 64,
    batch: int = 64,
    show: bool = True,
) -> Latents:
    """Encode every image of a cohort once; images already in the cache are only read, and damaged shards made again.

    ``size``: side of the square images in pixels, a multiple of the autoencoder's factor. Raises InputError when it
    does not fit, or when an image cannot be read.
    """
    autoencoder.check_size(size)
    cache = LatentCache(folder, autoencoder.hash, size)
    hashes = list(cohort.frame["sha256"])
    first = dict(zip(reversed(hashes), reversed(list(cohort.frame["path"])), strict=True))
    for attempts_left in reversed(range(ROUNDS)):
        _encode_missing(cache, first, autoencoder, size, batch, show)
        try:
            return Latents(cache.read(hashes), size, autoencoder.hash)
        except ShardError:
            if not attempts_left:
                raise
    raise AssertionError


def _encode_missing(
    cache: LatentCache, first: dict[str, str], autoencoder: Autoencoder, size: int, batch: int, show: bool
) -> None:
    """Encode the images, by hash and path, that are not in the cache."""
    missing = [name for name in first if name not in cache.locations]
    missing = [missing[position] for position in reading_order([first[name] for name in missing])]
    with progress_bar("encode", len(first), completed=len(first) - len(missing), show=show and bool(missing)) as bar:
        for start in range(0, len(missing), SHARD):
            names = missing[start : start + SHARD]
            parts = []
            for low in range(0, len(names), batch):
                chunk = names[low : low + batch]
                parts.append(encode_halves(autoencoder, [first[name] for name in chunk], size))
                bar.advance(len(chunk))
            cache.add(names, torch.cat(parts))


def encode_halves(autoencoder: Autoencoder, paths: Sequence[str], size: int) -> torch.Tensor:
    """Latents [B, C, h, w] of image files in half precision, as they are kept on disk, on the CPU."""
    return autoencoder.encode(load_images(paths, size)).half().cpu()


def check_finite(halves: torch.Tensor) -> None:
    """Raise InputError when a latent in half precision [n, C, h, w] is not finite."""
    sound = halves.isfinite().flatten(1).all(1)
    if not bool(sound.all()):
        problem = Problem(f"{int((~sound).sum())} images have latents beyond half precision", "use another one")
        raise InputError("The autoencoder does not fit these images.", [problem])


def channel_statistics(latents: torch.Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each latent channel over images and positions. [N, C, h, w] -> two lists of C."""
    flat = latents.double().transpose(0, 1).flatten(1)
    return flat.mean(1).tolist(), flat.std(1).clamp_min(1e-6).tolist()


def reconstruction_error(cohort: Cohort, latents: Latents, autoencoder: Autoencoder, sample: int = 256) -> float:
    """Mean PSNR in dB of decoded latents against the images, over up to ``sample`` rows spread over the cohort."""
    rows = np.unique(np.linspace(0, len(cohort) - 1, min(sample, len(cohort))).astype(int))
    images = load_images([cohort.frame["path"].iloc[row] for row in rows], latents.size)
    parts = [autoencoder.decode(latents.values[rows[low : low + 64]]) for low in range(0, len(rows), 64)]
    return float(psnr(images, np.concatenate(parts)).mean())
