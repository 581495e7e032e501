"""Number and rank of the processes that torchrun started for one command, and which of them reports errors."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

MARK = "equigen-told"  # name of the file that the reporting process creates


def process_count() -> int:
    """Return the number of processes that share the work; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this is the process of rank 0, which shows progress and prints results."""
    return int(os.environ.get("RANK", "0")) == 0


def claims_error_report() -> bool:
    """Whether this process is the first on its machine to report an error; to be called once per process.

    The other processes fail with the same error, or because the first has ended. torchrun sends SIGTERM to all
    processes as soon as one has ended, so the reporting process ignores it.
    """
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")  # <folder of the start>/<process>/error.json
    if process_count() == 1 or not error_file:
        return is_first_process()
    handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        (Path(error_file).parents[1] / MARK).touch(exist_ok=False)
    except FileExistsError:
        signal.signal(signal.SIGTERM, handler)
        return False
    return True


def leave_process_group() -> None:
    """Destroy torch's process group at the end of a command; torch warns of processes that exit without this."""
    distributed = sys.modules.get("torch.distributed")  # not loaded: no group was created
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
