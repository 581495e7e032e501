"""The command `equigen`: thin commands that read options and call rooms."""

from .app import main as main
