"""Generation in fixed chunks of a plan: halved when memory is short, shared by processes and jobs."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from equigen.diffusion import EquigenPipeline, Generator, sampling_requests
from equigen.errors import InputError, Problem
from equigen.files import write_json
from equigen.progress import console

CHUNK = 32  # rows of a chunk on a CPU
LARGE = 256  # on a GPU for latents up to 32 x 32; fewer of larger ones, for about the same number of positions
MEMORY_MESSAGES = ("out of memory", "ALLOC_FAILED", "can't allocate memory", "not enough memory")  # of torch
Rows = NDArray[np.int64]
Images = NDArray[np.uint8]


def chunk_size(generator: Generator) -> int:
    """Default number of rows of a chunk: a power of two.

    It depends on the type of the device and the size of the images alone, not on the memory.
    """
    if device_kind(generator) == "cpu":
        return CHUNK
    fitting = min(LARGE, LARGE * 32**2 // generator.latent_side**2)
    return int(2 ** (max(1, fitting).bit_length() - 1))


def device_kind(generator: Generator) -> str:
    """Type of the generator's device, such as ``cpu`` or ``cuda``; ``cpu`` for a generator without a device."""
    device: torch.device | None = getattr(generator, "device", None)
    return "cpu" if device is None else device.type


def chunks(plan: pd.DataFrame, size: int, *, mixed: bool) -> list[Rows]:
    """Row numbers of each chunk: at most ``size`` rows with the same sampling settings (``Request.kind``).

    A function of the plan alone, independent of the missing images. ``mixed``: rows of a chunk may differ in guidance.
    """
    settings, numbers = sampling_requests(plan)
    kinds: dict[object, list[int]] = {}
    for number, request in enumerate(settings):
        kinds.setdefault(request.kind(mixed=mixed), []).append(number)
    groups = [np.flatnonzero(np.isin(numbers, members)) for members in kinds.values()]
    return [rows[low : low + size] for rows in groups for low in range(0, len(rows), size)]


class Batched:
    """A generator that computes its rows in fixed chunks.

    Convolution and matrix libraries may round differently with another batch size or position in the batch, so each
    row is always computed at the same position of the same chunk of the plan; short chunks are padded with their rows.

    Where memory is short the chunk is halved for all later calls. The halves of a power of two are the chunks of a run
    with half the size, and the images are identical to those of such a run, but not always to those of the full size.
    ``capacity`` is the current number of rows, ``chunk`` the initial one.
    """

    def __init__(self, generator: Generator, chunk: int | None = None) -> None:
        self.generator = generator
        self.chunk = self.capacity = chunk if chunk is not None else chunk_size(generator)

    def cut(self, plan: pd.DataFrame) -> list[Rows]:
        """Chunks of a plan, as row numbers."""
        return chunks(plan, self.chunk, mixed=getattr(self.generator, "mixes_guidance", True))

    def images(self, plan: pd.DataFrame, requested: set[int]) -> dict[int, Images]:
        """Image [size, size, 3] of each requested row, and of the other rows in their batches."""
        images: dict[int, Images] = {}
        for rows in self.cut(plan):
            low = 0
            while low < len(rows):
                batch = rows[low : low + self.capacity]
                if requested.isdisjoint(batch.tolist()):
                    low += len(batch)
                    continue
                generated = self._generate(plan.iloc[batch])
                if generated is not None:  # else the same rows again, in a smaller batch
                    images |= dict(zip(batch.tolist(), generated, strict=False))
                    low += len(batch)
        return images

    def _generate(self, rows: pd.DataFrame) -> Images | None:
        """Images of some rows, then of the padding; None where memory was short, after halving the capacity."""
        size = self.capacity
        # On a CPU chunks of this package's pipeline are padded in full, as in existing sets. Elsewhere a chunk has
        # hundreds of rows, or takes minutes an image, so it is padded to the next power of two only.
        if not (isinstance(self.generator, EquigenPipeline) and device_kind(self.generator) == "cpu"):
            size = int(min(self.capacity, 2 ** (len(rows) - 1).bit_length()))
        full = rows.iloc[[index % len(rows) for index in range(size)]]
        first = sampling_requests(full.iloc[:1])[0][0]
        seeds, guidance = full["seed"].tolist(), full["guidance"].tolist()
        try:
            return self.generator(full, seeds, guidance=guidance, steps=first.steps, **first.options)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        self._halve()  # outside the handler, where the error no longer references the tensors of the call
        return None

    def _halve(self) -> None:
        """Halve the capacity and free cached memory; InputError where one image does not fit."""
        if self.capacity == 1:
            problem = Problem("not even one image fits", "use smaller images, another precision, or another device")
            raise InputError("The memory is too small for this generator.", [problem])
        if self.capacity == self.chunk:
            message = f"Memory is too small for {self.chunk} images at once: going on with fewer."
            console.print(f"{message} Some may differ in rounding from those that a larger memory makes.",
                          style="yellow")  # fmt: skip
        self.capacity //= 2
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error reports insufficient memory, on a GPU or a CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in MEMORY_MESSAGES)


def render(generator: Generator | Batched, plan: pd.DataFrame, rows: list[int]) -> Images:
    """Images [n, size, size, 3] of some rows (positions) of a plan, in order; each independent of the other rows."""
    batched = generator if isinstance(generator, Batched) else Batched(generator)
    images = batched.images(plan, set(rows))
    return np.stack([images[row] for row in rows])


PATIENCE = timedelta(days=30)  # of a barrier: a process waits for the slowest; a failed process ends the wait at once
T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """The chunks of one process: those whose number is ``index`` modulo ``count``.

    ``distributed``: torchrun started the processes, and they wait for each other; otherwise each is an independent job.
    """

    index: int = 0
    count: int = 1
    distributed: bool = False

    @property
    def leads(self) -> bool:
        """Whether this process completes the set: the first process of torchrun, or any independent job."""
        return not self.distributed or self.index == 0

    def select(self, chunks: Sequence[T]) -> list[T]:
        """The chunks of this process."""
        return list(chunks[self.index :: self.count])

    def wait(self) -> None:
        """Wait for all processes of torchrun; an independent job returns at once."""
        if self.distributed:
            dist.barrier(group=_barrier_group())


def share_of(shard: tuple[int, int] | None = None) -> Share:
    """The share of this process: ``shard`` (index, count) of a job array, that of torchrun, or the whole plan.

    Raises InputError for an invalid shard, or one in a process that torchrun started.
    """
    started = int(os.environ.get("WORLD_SIZE", "1")) > 1 or (dist.is_available() and dist.is_initialized())
    if shard is None:
        if not started:
            return Share()
        if not dist.is_initialized():
            dist.init_process_group()  # of both kinds, should training come after; accelerate makes none on a CPU
        return Share(dist.get_rank(), dist.get_world_size(), dist.get_world_size() > 1)
    index, count = shard
    if count < 1 or not 0 <= index < count:
        problem = Problem(f"shard {index} of {count}", "count from 0 to one less than their number")
        raise InputError("There is no such share.", [problem])
    if started and count > 1:
        problem = Problem(f"shard {index} of {count} in a process of torchrun", "use one way of sharing or the other")
        raise InputError("The work is shared twice.", [problem])
    return Share(index, count)


@cache
def _barrier_group() -> Any:
    """A process group for barriers with a long timeout; that of the training times out after minutes."""
    return dist.new_group(backend="gloo", timeout=PATIENCE)


def write_first(path: Path, value: Any) -> None:
    """Write JSON unless the file exists; of several concurrent processes exactly one writes it."""
    temporary = path.with_name(f".{path.stem}.{uuid4().hex[:8]}.part.json")
    write_json(temporary, value)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links: the last process overwrites the file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
