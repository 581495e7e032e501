"""The command `equigen`: thin commands that read options and call rooms."""

from equigen.cli.commands import app, main

__all__ = ["app", "main"]
