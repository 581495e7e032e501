"""Progress bars on long work: what is done, how fast, how long it will still take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from equigen.processes import is_first_process

console = Console(stderr=True)


class _Rate(ProgressColumn):
    """Units a second, smoothed by rich; over the whole time where that has seen too few steps."""

    def render(self, task: Task) -> Text:
        whole = (task.completed - task.fields["before"]) / task.elapsed if task.elapsed else None
        speed = task.finished_speed or task.speed or whole
        return Text(f"{speed:,.1f}/s" if speed else "-/s", style="progress.data.speed")


class Bar:
    """One bar: ``advance(n)`` after n units, ``note(text)`` for what changes meanwhile (a loss, say)."""

    def __init__(self, progress: Progress, task: int) -> None:
        self._progress, self._task = progress, task

    def advance(self, amount: int = 1) -> None:
        """Count ``amount`` more units as done."""
        self._progress.advance(self._task, amount)  # type: ignore[arg-type]

    def note(self, text: str) -> None:
        """Show a short text behind the bar."""
        self._progress.update(self._task, note=text)  # type: ignore[arg-type]


@contextmanager
def progress_bar(title: str, total: int, done: int = 0, show: bool = True) -> Iterator[Bar]:
    """A progress bar on standard error with rate and time left; ``done`` units were made by an earlier run.

    On something that is no terminal (a log file, CI) only the last state is printed. Of processes that torchrun started
    the first one draws it.
    """
    columns = [
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    ]
    hidden = not (show and is_first_process())
    with Progress(*columns, console=console, disable=hidden, refresh_per_second=4) as progress:
        task = progress.add_task(title, total=total, completed=done, note="", before=done)
        yield Bar(progress, task)
        progress.update(task, completed=max(total, int(progress.tasks[0].completed)))  # parts that were not needed


@contextmanager
def silence_library(logging: Any) -> Iterator[None]:
    """No remarks and no bars of a library while it opens files; ``logging`` is its own module of that name.

    Those of diffusers and transformers, which have the same functions.
    """
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
