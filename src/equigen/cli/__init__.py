"""The command `equigen`: thin commands that read options and call rooms."""

from equigen.cli.app import app, main

__all__ = ["app", "main"]
