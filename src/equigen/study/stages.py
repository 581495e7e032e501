"""Stages that are skipped when nothing changed, go on when interrupted, and never mix two settings in one folder.

The stamp of a finished stage keeps size, time and SHA-256 of every file that the stage wrote. A damaged file is named
and made again; an edited one is named and refused unless the user accepts it (see ``equigen.integrity``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from equigen.errors import InputError, Problem
from equigen.files import hash_value, read_json, write_json
from equigen.integrity import BEGUN, OWN, STAMP, Change, Record, file_changes, record_files
from equigen.progress import console

Damaged = Callable[[Path, list[Change]], object]
LISTED = 5  # files that one message names


class DamageError(Exception):
    """A finished stage that a later one reads is damaged: the stages have to be gone through again."""


class Stages:
    """Runs the stages of a study in one folder, and remembers what each cost.

    ``verify``: hash the content of all files of every stage, not only of what is used. ``accept``: take files that
    were edited as they are; ``accepted`` then holds their names below the folder.
    """

    def __init__(self, folder: Path, verify: bool = False, accept: bool = False) -> None:
        self.folder, self.verify, self.accept = folder, verify, accept
        self.seconds: dict[str, float] = {}
        self.skipped: list[str] = []
        self.accepted: list[str] = []
        self._whole: set[str] = set()    # stages whose content this process has hashed or made
        self._broken: set[str] = set()   # stages that have to be done again
        self._results: dict[str, tuple[Sequence[str], Damaged | None]] = {}

    def run(
        self, name: str, inputs: Any, work: Callable[[Path], object], results: Sequence[str] = (),
        damaged: Damaged | None = None,
    ) -> Path:
        """Do one stage in ``folder/name`` unless it is done for just these inputs.

        ``inputs``: everything that the result depends on, as JSON-like data. ``work`` gets the stage's folder.
        ``results``: files that later stages read; a done stage that has lost one is done again. A folder that was
        begun for other inputs is moved to ``stale/``, so nothing is lost and nothing is mixed.

        Damaged files and ``results`` of a done stage are moved to ``stale/`` too, and ``work`` is called again: it
        makes what is missing. ``damaged`` may clear away more before that.

        Raises:
            InputError: files of the stage were edited since it ended, and are not accepted.
            DamageError: a stage before this one is damaged, which shows only now that its files are used; go through
                the stages again from the first one.

        """
        place, key = self.folder / name, hash_value(inputs)
        self._results[name] = results, damaged
        stamp = read_stamp(place / STAMP)
        if stamp.get("key") == key and all((place / result).is_file() for result in results):
            if self._intact(name, stamp):
                self.seconds[name] = float(stamp["seconds"])
                self.skipped.append(name)
                console.print(f"[dim]{name}: done, nothing changed[/dim]")
                return place
        elif stamp.get("key") == key:
            lost = ", ".join(result for result in results if not (place / result).is_file())
            console.print(f"[yellow]{name}: {lost} is missing; it is made again[/yellow]")
            self._intact(name, stamp)
        self._check_earlier(name)
        earlier = read_stamp(place / BEGUN)
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
        self._write(name, {"key": key, "seconds": spent}, record_files(place, OWN))
        self.seconds[name] = spent
        self._broken.discard(name)
        return place

    @contextmanager
    def changing(self, name: str) -> Iterator[None]:
        """A block that changes files of a finished stage: their record is open meanwhile, and new after it.

        Nothing happens where the stage has no stamp. Should the block be interrupted, the record stays open, and the
        stage's files are taken as they are until it is written again.
        """
        stamp = read_stamp(self.folder / name / STAMP)
        if not stamp:
            yield
            return
        self._write(name, {**stamp, "open": True}, None)
        yield
        place = self.folder / name
        closed = {key: value for key, value in stamp.items() if key != "open"}
        self._write(name, closed, record_files(place, OWN))

    def intact(
        self, name: str, results: Sequence[str] = (), whole: bool = False, damaged: Damaged | None = None
    ) -> bool:
        """Whether a stage's files are what its stamp says; False where one is damaged, which is told.

        Damaged files and ``results`` are moved to ``stale/`` then, after ``damaged`` (see ``run``). True without a
        stamp. ``whole``: hash all of them.
        Raises InputError where files were edited and are not accepted.
        """
        self._broken.discard(name)  # another process may have made it again
        stamp = read_stamp(self.folder / name / STAMP)
        self._results[name] = results, damaged
        return not stamp or self._intact(name, stamp, whole)

    def check(self, name: str, results: Sequence[str]) -> None:
        """Count a stage that other processes have done among those whose content ``settle`` hashes."""
        self._results[name] = results, None
        if (self.folder / name / STAMP).is_file() and name not in self.skipped:
            self.skipped.append(name)

    def settle(self) -> None:
        """Hash everything of the stages that were skipped; DamageError where one is damaged."""
        self._check_earlier("")

    def _intact(self, name: str, stamp: dict[str, Any], whole: bool = False) -> bool:
        """Compare a stage's files with its stamp; what is damaged is told and moved away."""
        if name in self._broken:
            return False
        place, record = self.folder / name, stamp.get("files")
        if record is None:
            if not stamp.get("open"):
                console.print(f"{name}: written before hashes were kept; from now on they are")
                self._write(name, stamp, record_files(place, OWN))
            return True
        found, healed = file_changes(place, record, whole or self.verify)
        edited, harmed = ([change for change in found if change.kind == kind] for kind in ("edited", "damaged"))
        if edited:
            stamp = self._accept(name, stamp, edited)
            fresh = record_files(place, OWN)
            healed |= {change.file: fresh[change.file] for change in edited}
        if healed != record:
            self._write(name, stamp, healed)
        self.accepted += [f"{name}/{file}" for file in stamp.get("accepted", [])
                          if f"{name}/{file}" not in self.accepted]  # fmt: skip
        if harmed:
            self._clear(name, harmed)
        elif whole or self.verify:
            self._whole.add(name)
        return not harmed

    def _accept(self, name: str, stamp: dict[str, Any], edited: Sequence[Change]) -> dict[str, Any]:
        """The stamp with the names of edited files; InputError unless the user accepts them."""
        if not self.accept:
            mend = "to keep it give --accept, to have it made again delete it; then run the same command again"
            problems = [Problem(change.message, mend, file=str(self.folder / name / change.file)) for change in edited]
            raise InputError("Files of a finished stage were changed after it ended.", problems)
        for change in edited:
            console.print(f"[yellow]{name}/{change.file}: was edited, and is accepted as it is[/yellow]")
        names = [*stamp.get("accepted", []), *(change.file for change in edited)]
        return {**stamp, "accepted": list(dict.fromkeys(names))}

    def _clear(self, name: str, harmed: list[Change]) -> None:
        """Tell what is damaged, and move it and the stage's results away, so that they are made again."""
        for change in harmed[:LISTED]:
            console.print(f"[yellow]{self.folder / name / change.file}: {change.message}[/yellow]")
        more = f" ({len(harmed)} files)" if len(harmed) > LISTED else ""
        console.print(f"[yellow]{name} is damaged{more}: what is lost is made again[/yellow]")
        results, hook = self._results.get(name, ((), None))
        if hook is not None:
            hook(self.folder / name, harmed)
        for file in dict.fromkeys([*(change.file for change in harmed), *results]):
            self._put_away(name, file)
        self._broken.add(name)

    def _check_earlier(self, name: str) -> None:
        """Hash the content of every skipped stage before another one reads it."""
        broken = False
        for earlier in dict.fromkeys(self.skipped):
            if earlier != name and earlier not in self._whole:
                broken |= not self._intact(earlier, read_stamp(self.folder / earlier / STAMP), whole=True)
        if broken:
            self.skipped = []
            raise DamageError

    def _write(self, name: str, stamp: dict[str, Any], record: Record | None) -> None:
        """Write a stage's stamp with the record of its files, and a hash of all that."""
        content = {key: value for key, value in stamp.items() if key not in {"files", "seal"}}
        content |= {} if record is None else {"files": record}
        write_json(self.folder / name / STAMP, {**content, "seal": hash_value(content)})
        if record is not None and not stamp.get("open"):
            self._whole.add(name)

    def _put_away(self, name: str, file: str) -> None:
        """Move one file of a stage under ``stale/``."""
        source = self.folder / name / file
        if source.is_file():
            target = self._free(f"{name.replace('/', '-')}-damaged/{file}")
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)

    def _move_aside(self, place: Path, name: str, key: str) -> None:
        """Put a folder of other settings away under ``stale/``."""
        target = self._free(f"{name.replace('/', '-')}-{key}")
        target.parent.mkdir(parents=True, exist_ok=True)
        place.rename(target)
        console.print(
            f"[yellow]{name}: its settings or inputs changed; the old result is kept in {target}[/yellow]"
        )

    def _free(self, name: str) -> Path:
        """A path under ``stale/`` that nothing has yet."""
        target = first = self.folder / "stale" / name
        count = 0
        while target.exists():
            count += 1
            target = first.with_name(f"{first.name}-{count}")
        return target


def read_stamp(path: Path) -> dict[str, Any]:
    """A record of the run; nothing where there is none, or it is damaged, which is told."""
    if not path.is_file():
        return {}
    try:
        told = dict(read_json(path))
        content = {key: value for key, value in told.items() if key != "seal"}
        if "seal" in told and told["seal"] != hash_value(content):
            raise ValueError("it does not fit its own hash")
        if path.name == STAMP and not isinstance(told.get("seconds"), (int, float)):
            raise ValueError("it does not say how long the stage took")
    except (ValueError, TypeError) as error:
        reason = error.problems[0].message if isinstance(error, InputError) else error
        console.print(f"[yellow]{path}: this record is damaged ({reason}); its stage is done again[/yellow]")
        return {}
    return told
