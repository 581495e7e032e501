"""Progress bars with rate and time left."""

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
    """Units per second, smoothed by rich; the mean rate while there are too few steps."""

    def render(self, task: Task) -> Text:
        mean_speed = (task.completed - task.fields["before"]) / task.elapsed if task.elapsed else None
        speed = task.finished_speed or task.speed or mean_speed
        return Text(f"{speed:,.1f}/s" if speed else "-/s", style="progress.data.speed")


class Bar:
    """One bar: ``advance(n)`` after n units, ``note(text)`` for a text behind it (a loss, say)."""

    def __init__(self, progress: Progress, task: int) -> None:
        self._progress, self._task = progress, task

    def advance(self, amount: int = 1) -> None:
        """Advance the bar by ``amount`` units."""
        self._progress.advance(self._task, amount)  # type: ignore[arg-type]

    def note(self, text: str) -> None:
        """Show a short text behind the bar."""
        self._progress.update(self._task, note=text)  # type: ignore[arg-type]


@contextmanager
def progress_bar(title: str, total: int, completed: int = 0, show: bool = True) -> Iterator[Bar]:
    """Show a progress bar on standard error; ``completed`` units were completed by an earlier run.

    Without a terminal (a log file, CI) only the last state is printed. With torchrun the first process shows it.
    """
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    ]
    hidden = not (show and is_first_process())
    with Progress(*columns, console=console, disable=hidden, refresh_per_second=4) as progress:
        task = progress.add_task(title, total=total, completed=completed, note="", before=completed)
        yield Bar(progress, task)
        progress.update(task, completed=max(total, int(progress.tasks[0].completed)))  # units that were not needed


@contextmanager
def silence_library(logging: Any) -> Iterator[None]:
    """Silence the log and the bars of a library during a block.

    ``logging`` is the ``utils.logging`` module of diffusers or transformers, which have the same functions.
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
