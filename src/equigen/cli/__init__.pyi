"""The command `equigen`: thin commands that read options and call rooms."""

from .commands import main as main
