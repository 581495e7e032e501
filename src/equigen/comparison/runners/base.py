"""Jobs with an order between them: what a job is, how one is followed, and how all of them are run to their end."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from equigen.errors import EquigenError
from equigen.files import read_json, write_json
from equigen.progress import console

State = Literal["waiting", "running", "done", "failed", "skipped"]
OPEN = ("waiting", "running")
TAIL = 12  # lines of a failed job's log that are shown


@dataclass(frozen=True)
class Job:
    """One process to run, after the jobs that it needs."""

    name: str
    kind: str                                   # jobs of one kind take about equally long for each unit
    command: tuple[str, ...]
    log: Path                                   # what it prints, behind what earlier tries printed
    is_done: Callable[[], bool]                 # whether its result exists; called when the job could start
    after: tuple[str, ...] = ()                 # names of the jobs it needs
    units: float = 1                            # its size, to foretell its time: images, say
    environment: Mapping[str, str] = field(default_factory=dict)


class Handle(ABC):
    """A job in an engine's hands: it starts when all that it needs are done, and is skipped when one of them failed.

    An engine's own handle says how the process is started, followed and ended.
    """

    def __init__(self, job: Job, after: Sequence[Handle]) -> None:
        self.job, self.after = job, list(after)
        self.state: State = "waiting"
        self.message = ""                       # why it failed, where the log cannot say
        self.began, self.seconds = 0.0, 0.0     # of this try; nothing where the result was there already

    def poll(self) -> State:
        """Go one step on where possible; the state now."""
        if self.state == "waiting":
            self.state = self._begin()
        elif self.state == "running":
            self.seconds = time.monotonic() - self.began
            self.state = self.check()
        return self.state

    def _begin(self) -> State:
        states = {handle.state for handle in self.after}
        if states & {"failed", "skipped"}:
            return "skipped"
        if states - {"done"}:
            return "waiting"
        if self.job.is_done():
            return "done"
        if not self.ready():
            return "waiting"
        self.began = time.monotonic()
        self.start()
        return "running"

    @abstractmethod
    def ready(self) -> bool:
        """Whether the engine has room for one more."""

    @abstractmethod
    def start(self) -> None:
        """Start the process."""

    @abstractmethod
    def check(self) -> State:
        """Where a process that was started stands: running, done or failed."""

    @abstractmethod
    def cancel(self) -> None:
        """End a process that was started."""


class Engine(Protocol):
    """Where jobs run."""

    @property
    def slots(self) -> int:
        """How many run at once."""

    def submit(self, job: Job, after: Sequence[Handle]) -> Handle:
        """Take a job that needs those of ``after``; its handle starts it when its time has come."""

    def close(self) -> None:
        """Give back what the engine holds."""


class Watcher(Protocol):
    """Who is told how the jobs stand."""

    def show(self, handles: Sequence[Handle]) -> None:
        """Called after each look at all jobs."""

    def ended(self, handle: Handle) -> None:
        """Called once for each job that is done, failed or skipped."""


def read_seconds(record: Path) -> dict[str, float]:
    """Seconds that each job has cost, by name; none where there is no record, or it is damaged, which is told."""
    if not record.is_file():
        return {}
    try:
        return {str(name): float(seconds) for name, seconds in read_json(record).items()}
    except (ValueError, TypeError, AttributeError):
        console.print(f"{record}: is damaged; times are counted anew", style="yellow", markup=False)
        return {}


def run_jobs(
    jobs: Sequence[Job], engine: Engine, watcher: Watcher, record: Path, pause: float = 0.2
) -> dict[str, float]:
    """Run jobs, each after those it needs; returns the seconds each has cost in all tries.

    A failure stops only the jobs that need the failed one. However this function is left, no process stays behind,
    and ``record`` (JSON: name -> seconds) holds what was spent. Jobs must stand after those they need.

    Raises:
        EquigenError: jobs failed; with their names, logs and how many were not tried.

    """
    spent = read_seconds(record)
    before = dict(spent)
    handles: dict[str, Handle] = {}
    for job in jobs:
        handles[job.name] = engine.submit(job, [handles[name] for name in job.after])
    every, told = list(handles.values()), set[str]()
    try:
        while True:
            for handle in every:
                handle.poll()
                if handle.state not in OPEN and handle.job.name not in told:
                    told.add(handle.job.name)
                    watcher.ended(handle)
            watcher.show(every)
            if len(told) == len(every):
                break
            time.sleep(pause)
    finally:
        for handle in every:
            if handle.state == "running":
                handle.cancel()
        for name, handle in handles.items():
            if handle.seconds:
                spent[name] = before.get(name, 0.0) + handle.seconds
        write_json(record, spent)
        engine.close()
    _check(every)
    return spent


def _check(handles: Sequence[Handle]) -> None:
    """Raise for what failed."""
    failed = [handle for handle in handles if handle.state == "failed"]
    skipped = sum(handle.state == "skipped" for handle in handles)
    if failed:
        lines = [f"  {handle.job.name}: see {handle.job.log}" for handle in failed]
        rest = f"; {skipped} that need them were not tried" if skipped else ""
        title = f"{len(failed)} of {len(handles)} jobs failed{rest}. Mend the cause and run the same command again:"
        raise EquigenError("\n".join([title, *lines]))


def last_lines(handle: Handle, count: int = TAIL) -> list[str]:
    """The end of a job's log, and what its engine says of the failure."""
    lines = handle.job.log.read_text(errors="replace").splitlines()[-count:] if handle.job.log.is_file() else []
    return [*lines, *handle.message.splitlines()[-count:]]
