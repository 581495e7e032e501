"""The report: tables in, one self-contained HTML page, its JSON and two cards out; no metric of its own.

The room and its function share the name ``equigen.report``: once the room is imported, Python binds that name
to this module, so the module itself can be called as ``report(quality, fairness, path=...)``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from equigen.report.images import ClosePairs, Grid
from equigen.report.pairs.page import write_pairs_page
from equigen.report.study.memorisation_findings import pair_caption
from equigen.report.study.page import report, write_report

__all__ = ["ClosePairs", "Grid", "pair_caption", "report", "write_pairs_page", "write_report"]


class _Room(ModuleType):
    """A module that passes a call on to its function ``report``."""

    def __call__(self, *args: Any, **rest: Any) -> Path:
        """The same as ``equigen.report.report``."""
        return report(*args, **rest)


sys.modules[__name__].__class__ = _Room
