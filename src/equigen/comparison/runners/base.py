"""Jobs that depend on each other: their description, their states, and the loop that runs all of them."""

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
    """One process, which starts after the jobs that it needs."""

    name: str
    kind: str  # jobs of one kind take about equally long for each unit
    command: tuple[str, ...]
    log: Path  # what it prints, behind what earlier tries printed
    is_done: Callable[[], bool]  # whether its result exists; called when the job could start
    after: tuple[str, ...] = ()  # names of the jobs it needs
    units: float = 1  # its size, to foretell its time: images, say
    environment: Mapping[str, str] = field(default_factory=dict)


class Handle(ABC):
    """The state of a job that an engine runs: it starts when all jobs that it needs are done, else it is skipped.

    Subclasses start, check and end the process of one engine.
    """

    def __init__(self, job: Job, after: Sequence[Handle]) -> None:
        self.job, self.after = job, list(after)
        self.state: State = "waiting"
        self.message = ""  # why it failed, where the log cannot say
        self.began, self.seconds = 0.0, 0.0  # of this try; nothing where the result was there already

    def poll(self) -> State:
        """Update the state, starting the job if it can start; return the state."""
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
        """Return whether the engine can run one more job."""

    @abstractmethod
    def start(self) -> None:
        """Start the process."""

    @abstractmethod
    def check(self) -> State:
        """Return the state of the running process: running, done or failed."""

    @abstractmethod
    def cancel(self) -> None:
        """End a process that was started."""


class Engine(Protocol):
    """Runs jobs."""

    @property
    def slots(self) -> int:
        """Number of jobs that run at once."""

    def submit(self, job: Job, after: Sequence[Handle]) -> Handle:
        """Accept a job that needs those of ``after``; return its handle."""

    def close(self) -> None:
        """Release the engine's resources."""


class Watcher(Protocol):
    """Shows the states of jobs."""

    def show(self, handles: Sequence[Handle]) -> None:
        """Show the states of all jobs; called after each update."""

    def ended(self, handle: Handle) -> None:
        """Show the end of a job; called once for each that is done, failed or skipped."""


def read_seconds(record: Path) -> dict[str, float]:
    """Read the seconds of each job by name; empty without a record, or if it is damaged, which is reported."""
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
    """Run jobs, each after those that it needs; return the seconds of each over all tries.

    ``jobs``: each after those that it needs. A failure stops only the jobs that need the failed one. At the end, also
    after an exception, no process is left and ``record`` (JSON: name -> seconds) has the seconds of all tries.

    Raises:
        EquigenError: jobs failed; it has their names and logs, and the number of jobs not tried.

    """
    total = read_seconds(record)
    earlier = dict(total)
    handles: dict[str, Handle] = {}
    for job in jobs:
        handles[job.name] = engine.submit(job, [handles[name] for name in job.after])
    all_handles, reported = list(handles.values()), set[str]()
    try:
        while True:
            for handle in all_handles:
                handle.poll()
                if handle.state not in OPEN and handle.job.name not in reported:
                    reported.add(handle.job.name)
                    watcher.ended(handle)
            watcher.show(all_handles)
            if len(reported) == len(all_handles):
                break
            time.sleep(pause)
    finally:
        for handle in all_handles:
            if handle.state == "running":
                handle.cancel()
        for name, handle in handles.items():
            if handle.seconds:
                total[name] = earlier.get(name, 0.0) + handle.seconds
        write_json(record, total)
        engine.close()
    _check(all_handles)
    return total


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
