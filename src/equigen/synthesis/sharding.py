"""Distribution of a plan over processes by chunk, so that the images do not depend on the number of processes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import torch.distributed as dist

from equigen.errors import InputError, Problem
from equigen.files import write_json

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
