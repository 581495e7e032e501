"""Progress of jobs on one line: numbers of jobs done, running and failed, and the time left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from equigen.comparison.runners.base import OPEN, Engine, Handle, last_lines
from equigen.progress import console


def duration(seconds: float) -> str:
    """Return a duration as text.

    >>> duration(40), duration(200), duration(9000)
    ('40 s', '3 min 20 s', '2 h 30 min')
    """
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60} min"


def time_left(handles: Sequence[Handle], spent: Mapping[str, float], slots: int) -> tuple[float, bool]:
    """Return the seconds until all jobs are done, and whether every kind of job is included.

    A job's cost is its units times the mean cost of a unit in finished jobs of its kind, less the seconds that it has
    run. The time left is the sum of costs / slots, or the largest cost if that is more. ``spent``: seconds of earlier
    tries.
    """
    finished = [
        (handle, spent.get(handle.job.name, 0.0) + handle.seconds) for handle in handles if handle.state == "done"
    ]
    rates = {}
    for kind in {handle.job.kind for handle, _ in finished}:
        pairs = [(handle.job.units, cost) for handle, cost in finished if handle.job.kind == kind and cost]
        if pairs:
            rates[kind] = sum(cost for _, cost in pairs) / sum(units for units, _ in pairs)
    rest = [handle for handle in handles if handle.state in OPEN]
    costs = [
        max(0.0, handle.job.units * rates[handle.job.kind] - handle.seconds)
        for handle in rest
        if handle.job.kind in rates
    ]
    return max([sum(costs) / max(1, slots), *costs]) if costs else 0.0, len(costs) == len(rest)


def summary(handles: Sequence[Handle], estimate: tuple[float, bool]) -> str:
    """Return the text after the bar. ``estimate``: of ``time_left``."""
    counts = {state: sum(handle.state == state for handle in handles) for state in ("done", "running", "failed")}
    text = f"{counts['done']} of {len(handles)} done, {counts['running']} running"
    text += f", {counts['failed']} failed" if counts["failed"] else ""
    seconds, complete = estimate
    if seconds:
        text += f", {'' if complete else 'more than '}{duration(seconds)} left"
    return text


class JobProgress:
    """Prints the end of each job, and one line on the states of all jobs."""

    def __init__(
        self, progress: Progress, task: TaskID, spent: Mapping[str, float], engine: Engine, show: bool
    ) -> None:
        self.progress, self.task, self.spent, self.engine, self.visible = progress, task, dict(spent), engine, show

    def show(self, handles: Sequence[Handle]) -> None:
        """Update the line."""
        ended = sum(handle.state not in OPEN for handle in handles)
        running = ", ".join(handle.job.name for handle in handles if handle.state == "running")
        note = f"{summary(handles, time_left(handles, self.spent, self.engine.slots))}\n[dim]{escape(running)}[/dim]"
        self.progress.update(self.task, completed=ended, total=len(handles), note=note)

    def ended(self, handle: Handle) -> None:
        """Print a line on a job that ran, and the last lines of a failed job's log."""
        name = handle.job.name
        if handle.state == "failed":
            title = escape(f"{name}: the end of {handle.job.log} says")
            console.print(f"[bold red]failed[/bold red] {title}", highlight=False, soft_wrap=True)
            for line in last_lines(handle):
                console.print(f"    {line}", markup=False, highlight=False, soft_wrap=True)
        elif handle.state == "done" and handle.seconds and self.visible:
            console.print(f"{escape(name)}: done in {duration(handle.seconds)}", highlight=False)


@contextmanager
def job_progress(spent: Mapping[str, float], engine: Engine, show: bool = True) -> Iterator[JobProgress]:
    """Show a live line on standard error; failures are printed even if ``show`` is False."""
    columns = [TextColumn("jobs"), BarColumn(bar_width=24), TimeElapsedColumn(), TextColumn("{task.fields[note]}")]
    with Progress(*columns, console=console, disable=not show, refresh_per_second=2) as progress:
        yield JobProgress(progress, progress.add_task("jobs", total=1, note=""), spent, engine, show)
