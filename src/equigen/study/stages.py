"""Stages of a run folder: skipped while their inputs are unchanged, resumed after an interruption.

The stamp of a finished stage has size, time and SHA-256 of every file that the stage wrote. A damaged file is reported
and made again; an edited one is an error unless the user accepts it (see ``equigen.integrity``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from equigen.errors import InputError, Problem
from equigen.files import hash_value, write_json
from equigen.integrity import BEGUN, STAGE_RECORDS, STAMP, Change, Record, file_changes, read_record, record_files
from equigen.progress import console

Damaged = Callable[[Path, list[Change]], object]
LISTED = 5  # files that one message names


class DamageError(Exception):
    """A finished stage that a later one reads is damaged: run all stages again from the first one."""


class Stages:
    """Runs the stages of one folder and records the seconds of each.

    ``verify``: hash the content of all files of every stage, not only of those that are read. ``accept``: accept edited
    files; ``accepted`` then has their names relative to the folder.
    """

    def __init__(self, folder: Path, verify: bool = False, accept: bool = False) -> None:
        self.folder, self.verify, self.accept = folder, verify, accept
        self.seconds: dict[str, float] = {}
        self.skipped: list[str] = []
        self.accepted: list[str] = []
        self._verified: set[str] = set()  # stages whose content this process has hashed or made
        self._broken: set[str] = set()  # stages to run again
        self._results: dict[str, tuple[Sequence[str], Damaged | None]] = {}

    def run(
        self,
        name: str,
        inputs: Any,
        work: Callable[[Path], object],
        results: Sequence[str] = (),
        damaged: Damaged | None = None,
    ) -> Path:
        """Run one stage in ``folder/name`` unless it is finished for these inputs; return its folder.

        ``inputs``: everything that the result depends on, as JSON-like data. ``work`` is called with the stage's
        folder. ``results``: files that later stages read; a finished stage without one of them runs again. A folder
        that was begun for other inputs is moved to ``stale/``.

        Damaged files and ``results`` of a finished stage are moved to ``stale/`` too, and ``work`` is called again to
        make the missing files. ``damaged`` is called before, with the folder and its damaged files.

        Raises:
            InputError: files of the stage were edited after it ended, and are not accepted.
            DamageError: a stage before this one is damaged, which is noticed only when its files are read; run the
                stages again from the first one.

        """
        folder, key = self.folder / name, hash_value(inputs)
        self._results[name] = results, damaged
        stamp = read_record(folder / STAMP)
        if stamp.get("key") == key and all((folder / result).is_file() for result in results):
            if self._is_intact(name, stamp):
                self.seconds[name] = float(stamp["seconds"])
                self.skipped.append(name)
                console.print(f"[dim]{name}: done, nothing changed[/dim]")
                return folder
        elif stamp.get("key") == key:
            lost = ", ".join(result for result in results if not (folder / result).is_file())
            console.print(f"[yellow]{name}: {lost} is missing; it is made again[/yellow]")
            self._is_intact(name, stamp)
        self._check_earlier(name)
        earlier = read_record(folder / BEGUN)
        if folder.exists() and earlier.get("key") != key:
            target = self._stale_path(f"{name.replace('/', '-')}-{str(earlier.get('key', 'unknown'))[:8]}")
            target.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(target)
            message = f"{name}: its settings or inputs changed; the old result is kept in {target}"
            console.print(f"[yellow]{message}[/yellow]")
            earlier = {}
        (folder / STAMP).unlink(missing_ok=True)
        write_json(folder / BEGUN, {"key": key, "seconds": earlier.get("seconds", 0.0)})
        console.print(f"[bold]{name}[/bold]")
        start = time.monotonic()
        try:
            work(folder)
        finally:
            seconds = float(earlier.get("seconds", 0.0)) + time.monotonic() - start
            write_json(folder / BEGUN, {"key": key, "seconds": seconds})
        self._write(name, {"key": key, "seconds": seconds}, record_files(folder, STAGE_RECORDS))
        self.seconds[name] = seconds
        self._broken.discard(name)
        return folder

    @contextmanager
    def changing(self, name: str) -> Iterator[None]:
        """Mark a finished stage's record as open while the block changes its files, and write a new one after it.

        A stage without a stamp is left alone. After an interruption of the block the record stays open: the stage's
        files are then not checked until the next record.
        """
        stamp = read_record(self.folder / name / STAMP)
        if not stamp:
            yield
            return
        self._write(name, {**stamp, "open": True}, None)
        yield
        closed = {key: value for key, value in stamp.items() if key != "open"}
        self._write(name, closed, record_files(self.folder / name, STAGE_RECORDS))

    def is_intact(
        self, name: str, results: Sequence[str] = (), every_file: bool = False, damaged: Damaged | None = None
    ) -> bool:
        """Return whether a stage's files agree with its stamp, True without one; damaged files are reported.

        Damaged files and ``results`` are moved to ``stale/`` then, after a call of ``damaged`` (see ``run``).
        ``every_file``: hash all files. Raises InputError where files were edited and are not accepted.
        """
        self._broken.discard(name)  # another process may have made it again
        stamp = read_record(self.folder / name / STAMP)
        self._results[name] = results, damaged
        return not stamp or self._is_intact(name, stamp, every_file)

    def include(self, name: str, results: Sequence[str]) -> None:
        """Add a stage that another process ran to the stages that ``check_files`` hashes."""
        self._results[name] = results, None
        if (self.folder / name / STAMP).is_file() and name not in self.skipped:
            self.skipped.append(name)

    def check_files(self) -> None:
        """Hash all files of the skipped stages. Raises DamageError if one is damaged."""
        self._check_earlier("")

    def _is_intact(self, name: str, stamp: dict[str, Any], every_file: bool = False) -> bool:
        """Compare a stage's files with its stamp; damaged files are reported and moved to ``stale/``."""
        if name in self._broken:
            return False
        folder, record = self.folder / name, stamp.get("files")
        if record is None:
            if not stamp.get("open"):
                console.print(f"{name}: written before hashes were kept; from now on they are")
                self._write(name, stamp, record_files(folder, STAGE_RECORDS))
            return True
        differences, updated = file_changes(folder, record, every_file or self.verify)
        edited, damaged = ([change for change in differences if change.kind == kind] for kind in ("edited", "damaged"))
        if edited:
            stamp = self._accept(name, stamp, edited)
            current = record_files(folder, STAGE_RECORDS)
            updated |= {change.file: current[change.file] for change in edited}
        if updated != record:
            self._write(name, stamp, updated)
        self.accepted += [f"{name}/{file}" for file in stamp.get("accepted", [])
                          if f"{name}/{file}" not in self.accepted]  # fmt: skip
        if damaged:
            self._clear(name, damaged)
        elif every_file or self.verify:
            self._verified.add(name)
        return not damaged

    def _accept(self, name: str, stamp: dict[str, Any], edited: Sequence[Change]) -> dict[str, Any]:
        """Return the stamp with the names of edited files. Raises InputError unless the user accepts them."""
        if not self.accept:
            mend = "to keep it give --accept, to have it made again delete it; then run the same command again"
            problems = [Problem(change.message, mend, file=str(self.folder / name / change.file)) for change in edited]
            raise InputError("Files of a finished stage were changed after it ended.", problems)
        for change in edited:
            console.print(f"[yellow]{name}/{change.file}: was edited, and is accepted as it is[/yellow]")
        names = [*stamp.get("accepted", []), *(change.file for change in edited)]
        return {**stamp, "accepted": list(dict.fromkeys(names))}

    def _clear(self, name: str, damaged: list[Change]) -> None:
        """Report damaged files, and move them and the stage's results to ``stale/``, so that they are made again."""
        for change in damaged[:LISTED]:
            console.print(f"[yellow]{self.folder / name / change.file}: {change.message}[/yellow]")
        more = f" ({len(damaged)} files)" if len(damaged) > LISTED else ""
        console.print(f"[yellow]{name} is damaged{more}: what is lost is made again[/yellow]")
        results, hook = self._results.get(name, ((), None))
        if hook is not None:
            hook(self.folder / name, damaged)
        for file in dict.fromkeys([*(change.file for change in damaged), *results]):
            if (self.folder / name / file).is_file():
                target = self._stale_path(f"{name.replace('/', '-')}-damaged/{file}")
                target.parent.mkdir(parents=True, exist_ok=True)
                (self.folder / name / file).rename(target)
        self._broken.add(name)

    def _check_earlier(self, name: str) -> None:
        """Hash all files of the skipped stages before another one reads them. Raises DamageError if one is damaged."""
        broken = False
        for earlier in dict.fromkeys(self.skipped):
            if earlier != name and earlier not in self._verified:
                broken |= not self._is_intact(earlier, read_record(self.folder / earlier / STAMP), every_file=True)
        if broken:
            self.skipped = []
            raise DamageError

    def _write(self, name: str, stamp: dict[str, Any], record: Record | None) -> None:
        """Write a stage's stamp with the record of its files, and a hash of both."""
        content = {key: value for key, value in stamp.items() if key not in {"files", "seal"}}
        content |= {} if record is None else {"files": record}
        write_json(self.folder / name / STAMP, {**content, "seal": hash_value(content)})
        if record is not None and not stamp.get("open"):
            self._verified.add(name)

    def _stale_path(self, name: str) -> Path:
        """Return a path under ``stale/`` that does not exist yet."""
        target = first = self.folder / "stale" / name
        count = 0
        while target.exists():
            count += 1
            target = first.with_name(f"{first.name}-{count}")
        return target
