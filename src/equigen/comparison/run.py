"""Run a comparison from its YAML file. A mistake in it is told before heavy libraries are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equigen.comparison.settings import read_comparison


def compare(
    path: str | Path,
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    show: bool = True,
    *,
    verify: bool = False,
    accept: bool = False,
) -> Path:
    """Run a comparison's YAML to its page, in ``out`` (``runs/<name>`` by default); return the path of the page.

    Finished jobs are skipped, and interrupted ones are resumed. ``overrides``: dotted keys to values. ``verify`` and
    ``accept`` are those of ``run_study``. Raises InputError before any expensive work when settings or cohort have
    errors, EquigenError when jobs failed.
    """
    file = Path(path)
    settings = read_comparison(file, overrides)
    folder = out or Path("runs") / settings.name
    from equigen.comparison.comparison import Comparison  # heavy libraries, once the settings are read
    from equigen.study import Workspace

    workspace = Workspace(folder, file.parent, show, str(file), verify, accept)
    return workspace.run(lambda: Comparison.open(settings, workspace).run())
