"""Run a study from its YAML file. A mistake in it is told before heavy libraries are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equigen.study.settings import read_study


def run_study(
    path: str | Path,
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    show: bool = True,
    *,
    verify: bool = False,
    accept: bool = False,
) -> Path:
    """Run study.yaml to its report, in ``out`` (``runs/<name>`` by default); return the path of the report's page.

    Stages whose inputs have not changed are skipped, and an interrupted one is resumed. ``overrides``: dotted keys to
    values. ``verify``: hash every file of every finished stage, not only those that are read. ``accept``: accept files
    that were edited after their stage ended; the report lists them. Raises InputError before any expensive work when
    settings or cohort have errors, when files were edited, or when another process is at work in the folder.
    """
    file = Path(path)
    settings = read_study(file, overrides)
    folder = out or Path("runs") / settings.name
    from equigen.study.study import Study  # heavy libraries, once the settings are read
    from equigen.study.workspace import Workspace

    workspace = Workspace(folder, file.parent, show, str(file), verify, accept)
    return workspace.run(lambda: Study.open(settings, workspace).run())
