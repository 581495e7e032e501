"""Which rows of a plan pass through a network together, always the same ones, and what is done when memory is short."""

from __future__ import annotations

import gc

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from equigen.diffusion import EquigenPipeline, Generator, requests
from equigen.errors import InputError, Problem
from equigen.progress import console

CHUNK = 32   # rows that pass through together on a CPU
LARGE = 256  # on a GPU, for latents up to 32 x 32; fewer of larger ones, so that about as many positions do
TOLD = ("out of memory", "ALLOC_FAILED", "can't allocate memory", "not enough memory")  # torch on a GPU, and on a CPU
Rows = NDArray[np.int64]
Images = NDArray[np.uint8]


def chunk_size(generator: Generator) -> int:
    """Rows that pass through a generator together where nobody says otherwise: a power of two.

    It depends on the kind of device and the size of the images, not on how much memory or what else there is.
    """
    if device_kind(generator) == "cpu":
        return CHUNK
    fitting = min(LARGE, LARGE * 32**2 // generator.latent_side**2)
    return int(2 ** (max(1, fitting).bit_length() - 1))


def device_kind(generator: Generator) -> str:
    """``cpu`` or ``cuda``, say; ``cpu`` for a generator that does not tell where it is."""
    device: torch.device | None = getattr(generator, "device", None)
    return "cpu" if device is None else device.type


def chunks(plan: pd.DataFrame, size: int, *, mixed: bool) -> list[Rows]:
    """Row numbers that pass through the network together: at most ``size`` that ask for the same (``Request.kind``).

    A function of the plan alone, not of what is still missing. ``mixed``: rows may have scales of guidance of their
    own.
    """
    asked, numbers = requests(plan)
    kinds: dict[object, list[int]] = {}
    for number, one in enumerate(asked):
        kinds.setdefault(one.kind(mixed=mixed), []).append(number)
    rows = [np.flatnonzero(np.isin(numbers, own)) for own in kinds.values()]
    return [own[low : low + size] for own in rows for low in range(0, len(own), size)]


class Batched:
    """A generator that gets its rows in fixed chunks.

    Convolution and matrix libraries may round differently with another batch size or place in the batch. So each row is
    always computed in the same place of the same chunk of the plan; a chunk that is too short is filled by repeating
    its rows.

    Where memory is short the chunk is halved, for good. The halves of a power of two are the chunks of a run with half
    as many, and its images are the same to the last bit, but not always those of a run that had memory enough.
    ``fits`` is how many rows have been found to fit, ``chunk`` how many it was begun with.
    """

    def __init__(self, generator: Generator, chunk: int | None = None) -> None:
        self.generator = generator
        self.chunk = self.fits = chunk if chunk is not None else chunk_size(generator)

    def cut(self, plan: pd.DataFrame) -> list[Rows]:
        """Chunks of a plan, as row numbers."""
        return chunks(plan, self.chunk, mixed=getattr(self.generator, "mixes_guidance", True))

    def images(self, plan: pd.DataFrame, wanted: set[int]) -> dict[int, Images]:
        """Image [size, size, 3] of each of the wanted rows, and of those that came with them."""
        images: dict[int, Images] = {}
        for rows in self.cut(plan):
            low = 0
            while low < len(rows):
                part = rows[low : low + self.fits]
                if wanted.isdisjoint(part.tolist()):
                    low += len(part)
                    continue
                made = self._made(plan.iloc[part])
                if made is not None:  # else the same rows again, fewer at once
                    images |= dict(zip(part.tolist(), made, strict=False))
                    low += len(part)
        return images

    def _made(self, rows: pd.DataFrame) -> Images | None:
        """Images of some rows, and of those that fill them up; None where memory was short, after making it enough."""
        full = rows.iloc[[index % len(rows) for index in range(self._filled(len(rows)))]]
        first = requests(full.iloc[:1])[0][0]
        seeds, guidance = full["seed"].tolist(), full["guidance"].tolist()
        try:
            return self.generator(full, seeds, guidance=guidance, steps=first.steps, **first.more)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        self._halve()  # out of the handler, where the error no longer holds on to the tensors of the call
        return None

    def _filled(self, rows: int) -> int:
        """Rows of a chunk after filling up: all of it as sets are made that exist; else the next power of two.

        A chunk of hundreds, or of a network that takes minutes an image, would waste more than the rest of the plan.
        """
        if isinstance(self.generator, EquigenPipeline) and device_kind(self.generator) == "cpu":
            return self.fits
        return int(min(self.fits, 2 ** (rows - 1).bit_length()))

    def _halve(self) -> None:
        if self.fits == 1:
            problem = Problem("not even one image fits", "use smaller images, another precision, or another device")
            raise InputError("The memory is too small for this generator.", [problem])
        if self.fits == self.chunk:
            words = f"Memory is too small for {self.chunk} images at once: going on with fewer."
            console.print(f"{words} Some may differ in rounding from those that a larger memory makes.", style="yellow")
        self.fits //= 2
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was short, on a GPU or a CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in TOLD)


def render(generator: Generator | Batched, plan: pd.DataFrame, rows: list[int]) -> Images:
    """Images [n, size, size, 3] of some rows (positions) of a plan, in their order, whatever else is made."""
    work = generator if isinstance(generator, Batched) else Batched(generator)
    images = work.images(plan, set(rows))
    return np.stack([images[row] for row in rows])
