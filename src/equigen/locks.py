"""Lock a folder for one process."""

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
    """Lock a folder until the block ends; InputError with process and machine if another process has the lock.

    The lock is the system's (``flock``) on ``folder/.lock`` and ends with the process, so that none is left behind. On
    a file system without locks a warning is printed and the block runs without a lock.
    """
    path = Path(folder)
    is_new = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    handle = os.open(path / NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
                mend = "wait for it to end, end it, or choose another folder with --out"
                message = "another process is at work in it"
                with contextlib.suppress(ValueError, KeyError, TypeError, OSError):  # the file may not name it
                    owner = json.loads(os.pread(handle, 4096, 0))
                    message += f": process {owner['pid']} on {owner['host']} since {owner['since']}"
                problem = Problem(message, mend, file=str(path))
                raise InputError("The run folder is in use.", [problem]) from error
            console.print(f"[yellow]{path}: the file system has no locks; start no second process there[/yellow]")
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(owner).encode(), 0)
        yield
    except InputError:
        if is_new and [item.name for item in path.iterdir()] == [NAME]:  # refused before any work: leave nothing
            (path / NAME).unlink()
            path.rmdir()
        raise
    finally:
        os.close(handle)  # the file stays: were it removed, two processes could hold two files of one name
