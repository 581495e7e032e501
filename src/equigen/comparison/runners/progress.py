"""How jobs stand, on one line: done, running, failed, and how long the rest will take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from equigen.comparison.runners.base import OPEN, Engine, Handle, last_lines
from equigen.progress import console


def words(seconds: float) -> str:
    """A time in words.

    >>> words(40), words(200), words(9000)
    ('40 s', '3 min 20 s', '2 h 30 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def time_left(handles: Sequence[Handle], spent: Mapping[str, float], slots: int) -> tuple[float, bool]:
    """Seconds until all jobs are done, and whether all kinds of job could be counted.

    Jobs of a kind are taken to cost as much for each unit as those of it that are done: (units x rate, less what
    running ones have used) / slots, or the longest of them where that is more. ``spent``: seconds of earlier tries.
    """
    done = [(handle, spent.get(handle.job.name, 0.0) + handle.seconds) for handle in handles if handle.state == "done"]
    rates = {}
    for kind in {handle.job.kind for handle, _ in done}:
        known = [(handle.job.units, cost) for handle, cost in done if handle.job.kind == kind and cost]
        if known:
            rates[kind] = sum(cost for _, cost in known) / sum(units for units, _ in known)
    rest = [handle for handle in handles if handle.state in OPEN]
    costs = [
        max(0.0, handle.job.units * rates[handle.job.kind] - handle.seconds)
        for handle in rest
        if handle.job.kind in rates
    ]
    return max([sum(costs) / max(1, slots), *costs]) if costs else 0.0, len(costs) == len(rest)


def summary(handles: Sequence[Handle], left: tuple[float, bool]) -> str:
    """The line behind the bar."""
    counts = {state: sum(handle.state == state for handle in handles) for state in ("done", "running", "failed")}
    text = f"{counts['done']} of {len(handles)} done, {counts['running']} running"
    text += f", {counts['failed']} failed" if counts["failed"] else ""
    seconds, whole = left
    if seconds:
        text += f", {'' if whole else 'more than '}{words(seconds)} left"
    return text


class JobProgress:
    """Tells of jobs as they end, and keeps one line on how all of them stand."""

    def __init__(
        self, progress: Progress, task: TaskID, spent: Mapping[str, float], engine: Engine, show: bool
    ) -> None:
        self.progress, self.task, self.spent, self.engine, self.visible = progress, task, dict(spent), engine, show

    def show(self, handles: Sequence[Handle]) -> None:
        """Bring the line up to date."""
        ended = sum(handle.state not in OPEN for handle in handles)
        running = ", ".join(handle.job.name for handle in handles if handle.state == "running")
        note = f"{summary(handles, time_left(handles, self.spent, self.engine.slots))}\n[dim]{escape(running)}[/dim]"
        self.progress.update(self.task, completed=ended, total=len(handles), note=note)

    def ended(self, handle: Handle) -> None:
        """A word on each job that did something; of a failed one the last lines of its log."""
        name = handle.job.name
        if handle.state == "failed":
            where = escape(f"{name}: the end of {handle.job.log} says")
            console.print(f"[bold red]failed[/bold red] {where}", highlight=False, soft_wrap=True)
            for line in last_lines(handle):
                console.print(f"    {line}", markup=False, highlight=False, soft_wrap=True)
        elif handle.state == "done" and handle.seconds and self.visible:
            console.print(f"{escape(name)}: done in {words(handle.seconds)}", highlight=False)


@contextmanager
def job_progress(spent: Mapping[str, float], engine: Engine, show: bool = True) -> Iterator[JobProgress]:
    """A live line on standard error; failures are told even where nothing else is shown."""
    columns = [TextColumn("jobs"), BarColumn(bar_width=24), TimeElapsedColumn(), TextColumn("{task.fields[note]}")]
    with Progress(*columns, console=console, disable=not show, refresh_per_second=2) as progress:
        yield JobProgress(progress, progress.add_task("jobs", total=1, note=""), spent, engine, show)
