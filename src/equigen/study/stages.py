"""Stages that are skipped when nothing changed, go on when interrupted, and never mix two settings in one folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from equigen.errors import InputError, Problem
from equigen.files import hash_value, read_json, write_json
from equigen.progress import console

STAMP, BEGUN = "stage.json", "begun.json"


class Stages:
    """Runs the stages of a study in one folder, and remembers what each cost."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}
        self.skipped: list[str] = []

    def run(self, name: str, inputs: Any, work: Callable[[Path], object], results: Sequence[str] = ()) -> Path:
        """Do one stage in ``folder/name`` unless it is done for just these inputs.

        ``inputs``: everything that the result depends on, as JSON-like data. ``work`` gets the stage's folder.
        ``results``: files that later stages read; a done stage that has lost one is done again. A folder that was
        begun for other inputs is moved to ``stale/``, so nothing is lost and nothing is mixed.
        """
        place, key = self.folder / name, hash_value(inputs)
        stamp = self._read(place / STAMP)
        if stamp.get("key") == key and all((place / result).is_file() for result in results):
            self.seconds[name] = float(stamp["seconds"])
            self.skipped.append(name)
            console.print(f"[dim]{name}: done, nothing changed[/dim]")
            return place
        earlier = self._read(place / BEGUN)
        if place.exists() and earlier.get("key") != key:
            self._move_aside(place, name, str(earlier.get("key", "unknown"))[:8])
            earlier = {}
        (place / STAMP).unlink(missing_ok=True)
        write_json(place / BEGUN, {"key": key, "seconds": earlier.get("seconds", 0.0)})
        console.print(f"[bold]{name}[/bold]")
        started = time.monotonic()
        try:
            work(place)
        finally:
            spent = float(earlier.get("seconds", 0.0)) + time.monotonic() - started
            write_json(place / BEGUN, {"key": key, "seconds": spent})
        write_json(place / STAMP, {"key": key, "seconds": spent})
        self.seconds[name] = spent
        return place

    def _read(self, path: Path) -> dict[str, Any]:
        if not path.is_file():
            return {}
        try:
            return dict(read_json(path))
        except (ValueError, TypeError) as error:
            raise InputError(
                "A record of the run is damaged.",
                [Problem("is no JSON", "delete it; its stage runs again", file=str(path))],
            ) from error

    def _move_aside(self, place: Path, name: str, key: str) -> None:
        """Put a folder of other settings away under ``stale/``."""
        target = self.folder / "stale" / f"{name.replace('/', '-')}-{key}"
        count = 0
        while target.exists():
            count += 1
            target = target.with_name(f"{name.replace('/', '-')}-{key}-{count}")
        target.parent.mkdir(parents=True, exist_ok=True)
        place.rename(target)
        console.print(
            f"[yellow]{name}: its settings or inputs changed; the old result is kept in {target}[/yellow]"
        )
