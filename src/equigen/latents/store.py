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
from equigen.latents.store_file import STORE_FILE, StoreFile, create_store
from equigen.progress import Bar, progress_bar

PART = 2048  # images outside shards that are encoded before they are marked as done
BLOCK = 1024  # latents in memory while they are copied, or their moments while statistics are taken


class LatentStore:
    """Latents [N, C, h, w] in a file that ``encode_store`` filled, read from disk as needed.

    ``store[rows]`` for rows [B] int64 is [B, C, h, w] float32 on the CPU, as the autoencoder encoded them (stored in
    half precision). ``size``: side of the images in pixels; ``autoencoder``: its weight hash. Raises InputError when
    the file is damaged or not complete.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = StoreFile(Path(file))
        self.shape = self.file.shape
        self.size, self.autoencoder = int(self.file.metadata["size"]), self.file.metadata["autoencoder"]
        lacking = int((~self.file.filled_rows()).sum())
        if lacking:
            problem = Problem(f"{lacking} of {len(self)} images are not encoded yet", "encode again", file=str(file))
            raise InputError("The latents are not whole.", [problem])

    def __len__(self) -> int:
        """Number of rows, N."""
        return self.shape[0]

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        """Latents of rows [B]."""
        numbers = rows.cpu().numpy().astype(np.int64)
        if len(numbers) and not (numbers.min() >= 0 and numbers.max() < len(self)):
            raise IndexError(f"rows {numbers.min()} to {numbers.max()} of {len(self)}")
        return torch.from_numpy(self.file.read(numbers)).float()

    def statistics(self, rows: NDArray[np.int64] | None = None) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of each channel over some rows or all, as ``channel_statistics`` does.

        From each latent's own mean m_i and sum of squared deviations s_i over its n positions, in float64:
        m = mean(m_i), and the variance is (sum s_i + n sum (m_i - m)^2) / (n N - 1).
        """
        multiplicity = np.ones(len(self), dtype=np.int64) if rows is None else np.bincount(rows, minlength=len(self))
        count, positions = int(multiplicity.sum()), self.shape[2] * self.shape[3]
        mean = sum(block[:, :, 0].sum(axis=0) for block in self._moments(multiplicity)) / count
        parts = (block[:, :, 1] + positions * np.square(block[:, :, 0] - mean) for block in self._moments(multiplicity))
        squares = sum(block_squares.sum(axis=0) for block_squares in parts)
        return mean.tolist(), np.sqrt(squares / (positions * count - 1)).clip(min=1e-6).tolist()

    def _moments(self, multiplicity: NDArray[np.int64]) -> Iterator[NDArray[np.float64]]:
        """Yield moments [n, C, 2] of the rows block by block, each row as often as it counts."""
        for low in range(0, len(self), BLOCK):
            high = min(low + BLOCK, len(self))
            yield np.repeat(self.file.moments(low, high), multiplicity[low:high], axis=0)


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
    ``rank`` = k mod ``world``. The store is complete when all processes have finished. An interruption costs the
    current part. Latents are looked up by the images' hashes in earlier stores of the same autoencoder and size, so a
    grown cohort encodes its new images alone; equal images are encoded once. Neither the number of processes nor an
    interruption changes a bit.

    ``size``: side of the square images in pixels, a multiple of the autoencoder's factor. Raises InputError when it
    does not fit, when the cohort is empty, when there is no such share, or when an image cannot be read.
    """
    autoencoder.check_size(size)
    if not len(cohort) or not 0 <= rank < world:
        problem = Problem(f"{len(cohort)} images, process {rank} of {world}", "give images, and 0 <= rank < world")
        raise InputError("There is nothing to encode.", [problem])
    store_folder = cohort_store_folder(folder, autoencoder.hash, size, cohort)
    if (store_folder / STORE_FILE).is_file() and StoreFile(store_folder / STORE_FILE).filled_rows().all():
        return store_folder / STORE_FILE
    images = ImageList.of(cohort) if isinstance(cohort, Cohort) else cohort.images()
    paths = sorted(store_folder.parent.glob(f"store-*/{STORE_FILE}"))
    earlier = [_StoreIndex(path) for path in paths if path.parent != store_folder]
    latent_size = size // autoencoder.factor
    shape = (len(images), autoencoder.channels, latent_size, latent_size)
    create_store(store_folder, shape, images.digests, {"autoencoder": autoencoder.hash, "size": str(size)})
    writer = _StoreWriter(StoreFile(store_folder / STORE_FILE, write=True), images, autoencoder, size, batch, earlier)
    parts, filled = writer.parts[rank::world], writer.store.filled_rows()
    open_parts = [rows for rows in parts if not filled[rows].all()]
    total, remaining = (sum(map(len, selection)) for selection in (parts, open_parts))
    with progress_bar("encode", total, completed=total - remaining, show=show and remaining > 0) as bar:
        for rows in open_parts:
            writer.fill(rows, bar)
    return store_folder / STORE_FILE


def store_error(cohort: Cohort | Manifest, store: LatentStore, autoencoder: Autoencoder, sample: int = 256) -> float:
    """Return the mean PSNR in dB of a store's decoded latents, over up to ``sample`` rows spread over the cohort."""
    rows = np.unique(np.linspace(0, len(store) - 1, min(sample, len(store))).astype(np.int64))
    images = ImageList.of(cohort) if isinstance(cohort, Cohort) else cohort.images()
    parts = [autoencoder.decode(store[torch.from_numpy(rows[low : low + 64])]) for low in range(0, len(rows), 64)]
    return float(psnr(load_images(images.paths(rows), store.size), np.concatenate(parts)).mean())


def cohort_store_folder(folder: str | Path, autoencoder: str, size: int, cohort: Cohort | Manifest) -> Path:
    """Return the folder of a cohort's store, by an autoencoder's weight hash and the images' side in pixels."""
    images = ImageList.of(cohort).hash if isinstance(cohort, Cohort) else cohort.images_hash()
    return Path(folder) / f"{autoencoder}-{size}" / f"store-{images[:16]}"


class _StoreIndex:
    """The rows of an earlier store by the hashes of their images."""

    def __init__(self, file: Path) -> None:
        self.store = StoreFile(file)
        self.rows = np.flatnonzero(self.store.filled_rows())
        keys = _keys(self.store.digests()[self.rows])
        order = np.argsort(keys)
        self.rows, self.keys = self.rows[order], keys[order]

    def find(self, digests: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the row of each image [n, 32] in this store, [n]; -1 where it is absent."""
        if not len(self.keys):
            return np.full(len(digests), -1, dtype=np.int64)
        keys = _keys(digests)
        position = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[position] == keys, self.rows[position], -1).astype(np.int64)


def _keys(digests: NDArray[np.uint8]) -> NDArray[np.void]:
    return np.ascontiguousarray(digests).view(f"V{DIGEST}").reshape(-1)


class _StoreWriter:
    """A store that is filled part by part, from earlier stores or by the autoencoder."""

    def __init__(
        self,
        store: StoreFile,
        images: ImageList,
        autoencoder: Autoencoder,
        size: int,
        batch: int,
        earlier: list[_StoreIndex],
    ) -> None:
        self.store, self.images, self.earlier = store, images, earlier
        self.autoencoder, self.size, self.batch = autoencoder, size, batch
        first, self.image_numbers = images.first_rows()
        self.parts = images.parts(first, PART)
        self.ordered_rows = np.argsort(self.image_numbers, kind="stable")  # rows of equal images are adjacent
        self.starts = np.searchsorted(self.image_numbers, np.arange(len(first) + 1), sorter=self.ordered_rows)

    def _same_image_rows(self, row: int) -> NDArray[np.int64]:
        """Return all rows with the image of this one."""
        number = self.image_numbers[row]
        return self.ordered_rows[self.starts[number] : self.starts[number + 1]]

    def fill(self, rows: NDArray[np.int64], bar: Bar) -> None:
        """Copy latents from earlier stores, encode the other images in the order of their shard, and mark the rows."""
        new_rows = self._copy_known_latents(rows, bar)
        paths = self.images.paths(new_rows)
        order = reading_order(paths)
        for low in range(0, len(order), self.batch):
            batch = order[low : low + self.batch]
            halves = encode_halves(self.autoencoder, [paths[position] for position in batch], self.size)
            check_finite(halves)
            self._write_latents(new_rows[batch], halves.numpy())
            bar.advance(len(batch))
        self.store.mark(np.concatenate([self._same_image_rows(row) for row in rows.tolist()]))

    def _copy_known_latents(self, rows: NDArray[np.int64], bar: Bar) -> NDArray[np.int64]:
        """Copy latents from earlier stores; returns the rows that are in none of them."""
        for store in self.earlier:
            positions = store.find(self.images.digests[rows])
            copied = positions >= 0
            for low in range(0, int(copied.sum()), BLOCK):
                block_rows = rows[copied][low : low + BLOCK]
                self._write_latents(block_rows, store.store.read(positions[copied][low : low + BLOCK]))
                bar.advance(len(block_rows))
            rows = rows[~copied]
        return rows

    def _write_latents(self, rows: NDArray[np.int64], latents: NDArray[np.float16]) -> None:
        for row, latent in zip(rows.tolist(), latents, strict=True):
            self.store.write(self._same_image_rows(row), latent)
