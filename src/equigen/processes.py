"""Processes that torchrun started to share one piece of work: which one this is, and which one speaks for all."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

TOLD = "equigen-told"


def process_count() -> int:
    """How many share the work; 1 where nobody else does."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this is the first of them, which shows progress and says where results are."""
    return int(os.environ.get("RANK", "0")) == 0


def claims_error_report() -> bool:
    """Whether this process is the first of those on its machine to tell of an error; it is asked once.

    The others have met the same one, or have lost the first, which is no news. As soon as one of them ends torchrun
    ends the rest, so the one that speaks is deaf to that.
    """
    note = _note()
    if process_count() == 1 or note is None:
        return is_first_process()
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        note.touch(exist_ok=False)
    except FileExistsError:
        signal.signal(signal.SIGTERM, before)
        return False
    return True


def _note() -> Path | None:
    """A file that stands for "told" in the folder that torchrun gives to the processes of one start."""
    place = os.environ.get("TORCHELASTIC_ERROR_FILE")  # <folder of the start>/<process>/error.json
    return Path(place).parents[1] / TOLD if place else None


def leave_process_group() -> None:
    """Take leave of the others at the end of a command; torch warns of processes that just go."""
    distributed = sys.modules.get("torch.distributed")  # who never loaded it was never among others
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
