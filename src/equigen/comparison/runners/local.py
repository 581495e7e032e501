"""Jobs as processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

import torch

from equigen.comparison.runners.base import Handle, Job, State

PARENT = "EQUIGEN_PARENT"  # process that a job ends with
GRACE = 10.0  # seconds in which a process that is ended may tidy up


def default_slots(threads: int) -> int:
    """Return the number of GPUs, or without one the number of jobs that the cores allow."""
    return torch.cuda.device_count() or max(1, (os.cpu_count() or 1) // threads)


def execute(command: Sequence[str], log: str, environment: Mapping[str, str]) -> None:
    """Run a command to its end, and end it if this process is interrupted. Raises RuntimeError when it fails.

    Cluster engines call this on their machines. ``log``: file to which the output is appended.
    """
    process = start(command, log, environment)
    try:
        code = process.wait()
    except BaseException:
        end(process)
        raise
    if code:
        raise RuntimeError(f"exit status {code}; see {log}")


def start(command: Sequence[str], log: str, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own, so that Ctrl-C reaches it by ``end`` alone."""
    with open(log, "ab") as output:  # noqa: PTH123
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **environment, PARENT: str(os.getpid())},
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process and its children to end, wait, and kill what did not."""
    for number, grace in ((signal.SIGTERM, GRACE), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace)
            if number == signal.SIGKILL:
                return


class LocalEngine:
    """Up to ``slots`` processes at once on this machine; where there are GPUs, they are dealt out one a job."""

    def __init__(self, slots: int) -> None:
        self.limit = slots
        self.used: set[int] = set()
        devices = os.environ.get("CUDA_VISIBLE_DEVICES")
        self.gpus = devices.split(",") if devices else [str(index) for index in range(torch.cuda.device_count())]

    @property
    def slots(self) -> int:
        """Jobs at once."""
        return self.limit

    def submit(self, job: Job, after: Sequence[Handle]) -> Handle:
        """Take a job; it starts when those of ``after`` are done and a slot is free."""
        return LocalHandle(self, job, after)

    def close(self) -> None:
        """Nothing is held."""

    def free(self) -> int | None:
        """Return a free slot, or None."""
        return next((slot for slot in range(self.limit) if slot not in self.used), None)

    def environment(self, slot: int) -> dict[str, str]:
        """Return the environment of a process in this slot: its GPU."""
        return {"CUDA_VISIBLE_DEVICES": self.gpus[slot % len(self.gpus)]} if self.gpus else {}


class LocalHandle(Handle):
    """A process of this machine."""

    def __init__(self, engine: LocalEngine, job: Job, after: Sequence[Handle]) -> None:
        super().__init__(job, after)
        self.engine = engine
        self.process: subprocess.Popen[bytes] | None = None
        self.slot = 0

    def ready(self) -> bool:
        """Whether a slot is free."""
        return self.engine.free() is not None

    def start(self) -> None:
        """Start the process in the first free slot."""
        self.slot = self.engine.free() or 0
        self.engine.used.add(self.slot)
        self.job.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**self.engine.environment(self.slot), **self.job.environment}
        self.process = start(self.job.command, str(self.job.log), environment)

    def check(self) -> State:
        """By the exit status."""
        code = None if self.process is None else self.process.poll()
        if code is None:
            return "running"
        self.engine.used.discard(self.slot)
        if code < 0:
            self.message = f"ended by {signal.Signals(-code).name}"
        return "failed" if code else "done"

    def cancel(self) -> None:
        """End it and its children."""
        if self.process is not None:
            end(self.process)
