"""Reports from tables: one self-contained HTML page, its JSON, a model card and a data set card.

The package and its function share the name ``equigen.report``: once the package is imported, Python binds that name
to this module, so the module itself can be called as ``report(quality, fairness, path=...)``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


class _CallableModule(ModuleType):
    """A module that passes a call on to its function ``report``."""

    def __call__(self, *args: Any, **options: Any) -> Path:
        """The same as ``equigen.report.report``."""
        from equigen.report.study.page import report

        return report(*args, **options)


sys.modules[__name__].__class__ = _CallableModule
