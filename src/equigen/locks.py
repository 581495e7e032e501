"""A folder with one process at work in it: the others are told which one that is."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from equigen.errors import InputError, Problem
from equigen.progress import console

NAME = ".lock"


@contextmanager
def lock_folder(folder: str | Path) -> Iterator[None]:
    """Hold a folder until the block ends; InputError where another process holds it, with its number and machine.

    The lock is the system's (``flock``) on ``folder/.lock``: it ends with the process however that ends, so none is
    left behind. Where a file system has no locks, a sentence says so and work goes on.
    """
    place = Path(folder)
    fresh = not place.exists()
    place.mkdir(parents=True, exist_ok=True)
    handle = os.open(place / NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
                mend = "wait for it to end, end it, or choose another folder with --out"
                message = f"another process is at work in it{_holder(handle)}"
                problem = Problem(message, mend, file=str(place))
                raise InputError("The run folder is in use.", [problem]) from error
            console.print(f"[yellow]{place}: the file system has no locks; start no second process there[/yellow]")
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(owner).encode(), 0)
        yield
    except InputError:
        if fresh and [item.name for item in place.iterdir()] == [NAME]:  # refused before any work: leave nothing
            (place / NAME).unlink()
            place.rmdir()
        raise
    finally:
        os.close(handle)  # the file stays: were it removed, two processes could hold two files of one name


def _holder(handle: int) -> str:
    """Words on who holds a lock; empty where the file does not say."""
    with contextlib.suppress(ValueError, KeyError, TypeError, OSError):
        owner = json.loads(os.pread(handle, 4096, 0))
        return f": process {owner['pid']} on {owner['host']} since {owner['since']}"
    return ""
