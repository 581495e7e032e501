"""Latents of a cohort that does not fit in memory: one file in the order of its rows, filled by many processes.

``encode_store`` fills it, ``LatentStore`` reads it, and ``LatentView`` gives some of its rows as training takes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from equigen.cohort import DIGEST, Cohort, ImageList, Manifest, load_images, reading_order
from equigen.errors import InputError, Problem
from equigen.latents.autoencoder import Autoencoder
from equigen.latents.cache import check_finite, encode_halves
from equigen.latents.fitting import psnr
from equigen.latents.store_file import NAME, StoreFile, create
from equigen.progress import Bar, progress_bar

PART = 2048   # images outside shards that are encoded before they are marked as done
BLOCK = 1024  # latents in memory while they are copied, or their moments while statistics are taken


class LatentStore:
    """Latents [N, C, h, w] in a file that ``encode_store`` filled, read where they lie.

    ``store[rows]`` for rows [B] int64 gives [B, C, h, w] float32 on the CPU, as the autoencoder gave them (kept in half
    precision). ``size``: side of the images in pixels; ``autoencoder``: its weight hash. Raises InputError when the
    file is damaged or not filled yet.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = StoreFile(Path(file))
        self.shape = self.file.shape
        self.size, self.autoencoder = int(self.file.metadata["size"]), self.file.metadata["autoencoder"]
        lacking = int((~self.file.done()).sum())
        if lacking:
            problem = Problem(f"{lacking} of {len(self)} images are not encoded yet", "encode again", file=str(file))
            raise InputError("The latents are not whole.", [problem])

    def __len__(self) -> int:
        """Number of rows, N."""
        return self.shape[0]

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        """Latents of rows [B]."""
        asked = rows.cpu().numpy().astype(np.int64)
        if len(asked) and not (asked.min() >= 0 and asked.max() < len(self)):
            raise IndexError(f"rows {asked.min()} to {asked.max()} of {len(self)}")
        return torch.from_numpy(self.file.read(asked)).float()

    def statistics(self, rows: NDArray[np.int64] | None = None) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel over some rows or all, as ``channel_statistics`` gives them.

        From each latent's own mean m_i and sum of squared deviations s_i over its n positions, in float64:
        m = mean(m_i), and the variance is (sum s_i + n sum (m_i - m)^2) / (n N - 1).
        """
        times = np.ones(len(self), dtype=np.int64) if rows is None else np.bincount(rows, minlength=len(self))
        count, places = int(times.sum()), self.shape[2] * self.shape[3]
        mean = sum(block[:, :, 0].sum(axis=0) for block in self._moments(times)) / count
        parts = (block[:, :, 1] + places * np.square(block[:, :, 0] - mean) for block in self._moments(times))
        squares = sum(part.sum(axis=0) for part in parts)
        return mean.tolist(), np.sqrt(squares / (places * count - 1)).clip(min=1e-6).tolist()

    def _moments(self, times: NDArray[np.int64]) -> Iterator[NDArray[np.float64]]:
        """Moments [n, C, 2] of the rows, each as many times as it counts, block by block."""
        for low in range(0, len(self), BLOCK):
            high = min(low + BLOCK, len(self))
            yield np.repeat(self.file.moments(low, high), times[low:high], axis=0)


class LatentView:
    """Some rows of a store, normalised: (latent - mean) / std of each channel, as ``prepare`` normalises a tensor.

    ``len``, ``shape`` and ``view[rows]`` are those of a store whose rows are ``rows`` [n].
    """

    def __init__(self, store: LatentStore, rows: NDArray[np.int64], mean: list[float], std: list[float]) -> None:
        self.store, self.rows = store, torch.from_numpy(rows.astype(np.int64))
        self.shape = (len(rows), *store.shape[1:])
        self.mean, self.std = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]

    def __len__(self) -> int:
        """Number of rows, n."""
        return len(self.rows)

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        """Normalised latents [B, C, h, w] of rows [B] of the view."""
        return (self.store[self.rows[rows.cpu()]] - self.mean) / self.std


def encode_store(
    cohort: Cohort | Manifest,
    autoencoder: Autoencoder,
    folder: str | Path,
    size: int = 64,
    batch: int = 64,
    *,
    rank: int = 0,
    world: int = 1,
    show: bool = True,
) -> Path:
    """Encode this process's share of a cohort's images into a store in ``folder``; returns the store's file.

    The images are cut into parts, a shard each or ``PART`` images outside shards; part k belongs to the process with
    ``rank`` = k mod ``world``. The store is whole when all processes are through. An interruption costs the part at
    work. Latents are looked for by the images' hashes in earlier stores of the same autoencoder and size, so a grown
    cohort encodes its new images alone; equal images are encoded once. Neither the number of processes nor an
    interruption changes a bit.

    ``size``: side of the square images in pixels, a multiple of the autoencoder's factor. Raises InputError when it
    does not fit, when the cohort is empty, when there is no such share, or when an image cannot be read.
    """
    autoencoder.check_size(size)
    if not len(cohort) or not 0 <= rank < world:
        problem = Problem(f"{len(cohort)} images, process {rank} of {world}", "give images, and 0 <= rank < world")
        raise InputError("There is nothing to encode.", [problem])
    place = store_place(folder, autoencoder.hash, size, cohort)
    if (place / NAME).is_file() and StoreFile(place / NAME).done().all():
        return place / NAME
    images = ImageList.of(cohort) if isinstance(cohort, Cohort) else cohort.images()
    earlier = [_Earlier(found) for found in sorted(place.parent.glob(f"store-*/{NAME}")) if found.parent != place]
    side = size // autoencoder.factor
    shape = (len(images), autoencoder.channels, side, side)
    create(place, shape, images.digests, {"autoencoder": autoencoder.hash, "size": str(size)})
    filling = _Filling(StoreFile(place / NAME, write=True), images, autoencoder, size, batch, earlier)
    parts, filled = filling.parts[rank::world], filling.store.done()
    open_parts = [part for part in parts if not filled[part].all()]
    total, left = (sum(map(len, some)) for some in (parts, open_parts))
    with progress_bar("encode", total, done=total - left, show=show and left > 0) as bar:
        for part in open_parts:
            filling.fill(part, bar)
    return place / NAME


def store_error(cohort: Cohort | Manifest, store: LatentStore, autoencoder: Autoencoder, sample: int = 256) -> float:
    """``reconstruction_error`` of a store: mean PSNR in dB over up to ``sample`` rows spread over the cohort."""
    rows = np.unique(np.linspace(0, len(store) - 1, min(sample, len(store))).astype(np.int64))
    images = ImageList.of(cohort) if isinstance(cohort, Cohort) else cohort.images()
    parts = [autoencoder.decode(store[torch.from_numpy(rows[low : low + 64])]) for low in range(0, len(rows), 64)]
    return float(psnr(load_images(images.paths(rows), store.size), np.concatenate(parts)).mean())


def store_place(folder: str | Path, autoencoder: str, size: int, cohort: Cohort | Manifest) -> Path:
    """The folder of the store of a cohort's images, by an autoencoder's weight hash and the images' side in pixels."""
    images = ImageList.of(cohort).hash if isinstance(cohort, Cohort) else cohort.images_hash()
    return Path(folder) / f"{autoencoder}-{size}" / f"store-{images[:16]}"


class _Earlier:
    """A store of other images, in which latents are found by the images' hashes."""

    def __init__(self, file: Path) -> None:
        self.store = StoreFile(file)
        self.rows = np.flatnonzero(self.store.done())
        keys = _keys(self.store.digests()[self.rows])
        order = np.argsort(keys)
        self.rows, self.keys = self.rows[order], keys[order]

    def find(self, digests: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The row of each image [n, 32] in this store, [n]; -1 where it is not in it."""
        if not len(self.keys):
            return np.full(len(digests), -1, dtype=np.int64)
        wanted = _keys(digests)
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[place] == wanted, self.rows[place], -1).astype(np.int64)


def _keys(digests: NDArray[np.uint8]) -> NDArray[np.void]:
    return np.ascontiguousarray(digests).view(f"V{DIGEST}").reshape(-1)


class _Filling:
    """What it takes to fill one part after another."""

    def __init__(
        self,
        store: StoreFile,
        images: ImageList,
        autoencoder: Autoencoder,
        size: int,
        batch: int,
        earlier: list[_Earlier],
    ) -> None:
        self.store, self.images, self.earlier = store, images, earlier
        self.autoencoder, self.size, self.batch = autoencoder, size, batch
        first, self.which = images.first_rows()
        self.parts = images.parts(first, PART)
        self.same = np.argsort(self.which, kind="stable")  # rows of equal images side by side
        self.starts = np.searchsorted(self.which, np.arange(len(first) + 1), sorter=self.same)

    def _equal(self, row: int) -> NDArray[np.int64]:
        """All rows that show the image of this one."""
        number = self.which[row]
        return self.same[self.starts[number] : self.starts[number + 1]]

    def fill(self, part: NDArray[np.int64], bar: Bar) -> None:
        """Take over what is known, encode the rest from front to back of its shard, and mark all of it."""
        rest = self._take_over(part, bar)
        paths = self.images.paths(rest)
        order = reading_order(paths)
        for low in range(0, len(order), self.batch):
            chosen = order[low : low + self.batch]
            halves = encode_halves(self.autoencoder, [paths[place] for place in chosen], self.size)
            check_finite(halves)
            self._put(rest[chosen], halves.numpy())
            bar.advance(len(chosen))
        self.store.mark(np.concatenate([self._equal(row) for row in part.tolist()]))

    def _take_over(self, part: NDArray[np.int64], bar: Bar) -> NDArray[np.int64]:
        """Copy latents from earlier stores; the rows that are in none of them."""
        for other in self.earlier:
            places = other.find(self.images.digests[part])
            known = places >= 0
            for low in range(0, int(known.sum()), BLOCK):
                rows = part[known][low : low + BLOCK]
                self._put(rows, other.store.read(places[known][low : low + BLOCK]))
                bar.advance(len(rows))
            part = part[~known]
        return part

    def _put(self, rows: NDArray[np.int64], latents: NDArray[np.float16]) -> None:
        for row, latent in zip(rows.tolist(), latents, strict=True):
            self.store.write(self._equal(row), latent)
