"""Errors at the end of a command: a message with a mend and an exit status, without a traceback."""

from __future__ import annotations

import errno
import signal
from types import FrameType
from typing import Any

import typer
from typer.core import TyperGroup

from equigen.errors import EquigenError, InputError, Problem
from equigen.processes import claims_error_report, process_count
from equigen.progress import console

FULL = {errno.ENOSPC, errno.EDQUOT}
SHARED = ("train", "generate", "encode")  # commands whose work several processes may share
_MENDS = {
    errno.EACCES: "choose a place that you may read and write",
    errno.EPERM: "choose a place that you may read and write",
    errno.EROFS: "choose a place that you may write",
    errno.ENOTDIR: "a file stands where a folder is wanted: choose another path",
    errno.EISDIR: "a folder stands where a file is wanted: choose another path",
    errno.EEXIST: "a file stands where a folder is wanted: choose another path",
}


class Terminated(KeyboardInterrupt):
    """Raised at SIGTERM, so that half-written files are removed before the process ends."""


def end_on_sigterm() -> None:
    """Raise Terminated at SIGTERM, as Ctrl-C raises KeyboardInterrupt, so that half-written files are removed."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, end)


class Commands(TyperGroup):
    """All commands, with errors that a user can mend told in words: exit status 2; 130 or 143 when interrupted.

    Of several processes that torchrun started, one tells.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except typer.Exit:
            raise
        except KeyboardInterrupt as error:
            word, status = ("terminated", 143) if isinstance(error, Terminated) else ("interrupted", 130)
            if claims_error_report():
                console.print(f"{word}: run the same command again to go on")
            raise typer.Exit(status) from error
        except Exception as error:
            reported = error if isinstance(error, EquigenError) else as_input_error(error)
            first = claims_error_report()
            if reported is None and first:
                raise
            if reported is not None and first:
                print_error(reported)
            raise typer.Exit(2 if reported is not None else 1) from error

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command. Raises InputError where several processes would each do all of its work."""
        name, command, rest = super().resolve_command(ctx, args)
        if process_count() > 1 and name not in SHARED:
            mend = f"start it without torchrun; {', '.join(SHARED)} share their work among processes"
            raise InputError("This command runs in one process.", [Problem(f"{process_count()} were started", mend)])
        return name, command, rest


def print_error(error: EquigenError) -> None:
    """Print an error; its brackets are text, not markup."""
    console.print("[bold red]error[/bold red] ", end="")
    console.print(str(error), markup=False, highlight=False, soft_wrap=True)


def as_input_error(error: Exception) -> InputError | None:
    """Return an error about the disk or a path as an InputError with a mend; None for any other error."""
    number = getattr(error, "errno", None)
    path = str(error.filename) if isinstance(error, OSError) and error.filename is not None else None
    # safetensors tells a full disk in words alone
    if number in FULL or (type(error).__name__ == "SafetensorError" and "os error 28" in str(error)):
        problem = Problem("no space left", "free some space and run the same command again", file=path)
        return InputError("The disk is full; nothing half-written was kept.", [problem])
    if number not in _MENDS or path is None:
        return None
    message = str(getattr(error, "strerror", None) or error)
    return InputError("A path cannot be used.", [Problem(message, _MENDS[number], file=path)])
