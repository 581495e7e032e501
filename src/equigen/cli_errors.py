"""How a command ends when something goes wrong: a message with the mend, an exit status, no traceback."""

from __future__ import annotations

import errno
import signal
from types import FrameType
from typing import Any

import typer
from typer.core import TyperGroup

from equigen.errors import EquigenError, InputError, Problem
from equigen.progress import console

FULL = {errno.ENOSPC, errno.EDQUOT}
_MENDS = {
    errno.EACCES: "choose a place that you may read and write",
    errno.EPERM: "choose a place that you may read and write",
    errno.EROFS: "choose a place that you may write",
    errno.ENOTDIR: "a file stands where a folder is wanted: choose another path",
    errno.EISDIR: "a folder stands where a file is wanted: choose another path",
    errno.EEXIST: "a file stands where a folder is wanted: choose another path",
}


class Terminated(KeyboardInterrupt):
    """SIGTERM: somebody asked the process to end; half-written files are removed on the way out."""


def end_on_sigterm() -> None:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that nothing half-written stays behind."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, end)


class Commands(TyperGroup):
    """All commands, with errors that a user can mend told in words: exit status 2; 130 or 143 when interrupted."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            word, status = ("terminated", 143) if isinstance(error, Terminated) else ("interrupted", 130)
            console.print(f"{word}: run the same command again to go on")
            raise typer.Exit(status) from error
        except EquigenError as error:
            tell(error)
            raise typer.Exit(2) from error
        except Exception as error:
            known = mendable(error)
            if known is None:
                raise
            tell(known)
            raise typer.Exit(2) from error


def tell(error: EquigenError) -> None:
    """Print an error as it is, without taking its brackets for markup."""
    console.print("[bold red]error[/bold red] ", end="")
    console.print(str(error), markup=False, highlight=False, soft_wrap=True)


def mendable(error: Exception) -> InputError | None:
    """The same error in a user's words where it is about the disk or a path; None for any other."""
    number = getattr(error, "errno", None)
    place = str(error.filename) if isinstance(error, OSError) and error.filename is not None else None
    # safetensors tells a full disk in words alone
    if number in FULL or (type(error).__name__ == "SafetensorError" and "os error 28" in str(error)):
        problem = Problem("no space left", "free some space and run the same command again", file=place)
        return InputError("The disk is full; nothing half-written was kept.", [problem])
    if number not in _MENDS or place is None:
        return None
    message = str(getattr(error, "strerror", None) or error)
    return InputError("A path cannot be used.", [Problem(message, _MENDS[number], file=place)])
