"""The report: tables in, one self-contained HTML page, its JSON and two cards out; no metric of its own.

The room and its function share the name ``equigen.report``: once the room is imported, Python binds that name
to this module, so the module itself can be called as ``report(quality, fairness, path=...)``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


class _Room(ModuleType):
    """A module that passes a call on to its function ``report``."""

    def __call__(self, *args: Any, **rest: Any) -> Path:
        """The same as ``equigen.report.report``."""
        from equigen.report.study.page import report

        return report(*args, **rest)


sys.modules[__name__].__class__ = _Room
