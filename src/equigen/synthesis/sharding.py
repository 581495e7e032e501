"""Sharing a plan among processes: by number of the chunk, so that any number of them makes the same images."""

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

PATIENCE = timedelta(days=30)  # processes that are done wait for the slowest; one that died ends the waiting at once
T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """What one process makes: the chunks whose number is ``index`` modulo ``count``.

    ``together``: torchrun started the processes, and they wait for each other; else each is a job of its own.
    """

    index: int = 0
    count: int = 1
    together: bool = False

    @property
    def leads(self) -> bool:
        """Whether this process finishes what all have made: the first of those that know each other, or each job."""
        return not self.together or self.index == 0

    def of(self, parts: Sequence[T]) -> list[T]:
        """The own ones of numbered parts."""
        return list(parts[self.index :: self.count])

    def wait(self) -> None:
        """Until all processes have come here; returns at once where they do not know each other."""
        if self.together:
            dist.barrier(group=_waiting_room())


def share_of(shard: tuple[int, int] | None = None) -> Share:
    """The share of this process: ``shard`` (index, count) of a job array, or what torchrun says, or everything.

    Raises InputError for a shard that there is none of, or one among processes that torchrun started.
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
def _waiting_room() -> Any:
    """A group to wait in for as long as images take: that of the training gives up after minutes."""
    return dist.new_group(backend="gloo", timeout=PATIENCE)


def write_first(path: Path, value: Any) -> None:
    """Write JSON unless the file is there already: of several processes at once, exactly one writes it."""
    own = path.with_name(f".{path.stem}.{uuid4().hex[:8]}.part.json")
    write_json(own, value)
    try:
        os.link(own, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links, as on some sticks: the last of them writes it
        own.replace(path)
    finally:
        own.unlink(missing_ok=True)
