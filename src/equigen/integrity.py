"""Record files (size, time, SHA-256), find changes since a record, and check whether files can be read.

A file is *damaged* if it is missing, cannot be read in the format of its suffix, or has other content although its
modification time is that of the record, which no editor leaves unchanged. A readable file with a later modification
time is *edited*.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from equigen.errors import InputError
from equigen.files import hash_file, hash_value, read_json, write_json
from equigen.parquet import read_parquet
from equigen.progress import console

Record = dict[str, dict[str, Any]]  # relative path -> {size, mtime_ns, sha256}
TABLES = (".parquet", ".json", ".csv", ".html", ".yaml", ".md")  # files whose content is hashed in every check
STAMP, BEGUN = "stage.json", "begun.json"
STAGE_RECORDS = (STAMP, BEGUN)  # a stage's own records, which are not recorded
TEXTS = (".csv", ".html", ".yaml", ".md", ".txt", ".svg")
# of ``files.replace_file`` and of latent stores
TEMPORARY_NAME = re.compile(r"\..+\.[0-9a-f]{8}\.part(\.\w+)?")


@dataclass(frozen=True)
class Change:
    """One file that differs from its record: its path below the folder, whether damaged or edited, and how."""

    file: str
    kind: Literal["damaged", "edited"]
    message: str


def record_files(folder: Path, skip: tuple[str, ...] = ()) -> Record:
    """Return size, modification time and SHA-256 of every file below a folder, by relative path.

    ``skip``: files in the folder itself that are left out. Temporary files are left out too.
    """
    record = {}
    for path in folder.rglob("*"):
        temporary = TEMPORARY_NAME.fullmatch(path.name) or TEMPORARY_NAME.fullmatch(path.parent.name)
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not temporary and name not in skip:
            status = path.stat()
            record[name] = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": hash_file(path)}
    return dict(sorted(record.items()))


def read_record(path: Path) -> dict[str, Any]:
    """Read the record of finished work; an empty mapping if there is none, or if it is damaged, which is reported.

    Every stage and every function that resumes writes its record last, and knows by it that its work is done.
    """
    if not path.is_file():
        return {}
    try:
        stamp = dict(read_json(path))
        content = {key: value for key, value in stamp.items() if key != "seal"}
        if "seal" in stamp and stamp["seal"] != hash_value(content):
            raise ValueError("it does not fit its own hash")
        if path.name == STAMP and not isinstance(stamp.get("seconds"), (int, float)):
            raise ValueError("it does not say how long the stage took")
    except (ValueError, TypeError) as error:
        reason = error.problems[0].message if isinstance(error, InputError) else error
        console.print(f"[yellow]{path}: this record is damaged ({reason}); the work is done again[/yellow]")
        return {}
    return stamp


def renew_record(folder: Path) -> None:
    """Update the record of a finished stage after a command changed its files; does nothing without a stamp."""
    file = folder / STAMP
    if not file.is_file():
        return
    stamp = read_json(file)
    if not isinstance(stamp, dict) or "files" not in stamp:
        return
    content = {key: value for key, value in stamp.items() if key != "seal"}
    content["files"] = record_files(folder, STAGE_RECORDS)
    write_json(file, {**content, "seal": hash_value(content)})


def file_changes(folder: Path, record: Record, hash_all: bool = False) -> tuple[list[Change], Record]:
    """Return the changes since a record, and the record with new times of files whose content is the same.

    Content is hashed where size or time differ, always for tables and other small files, with ``hash_all`` for all.
    """
    changes, updated = [], dict(record)
    for name, entry in record.items():
        path = folder / name
        if not path.is_file():
            changes.append(Change(name, "damaged", "is missing"))
            continue
        status = path.stat()
        same = status.st_size == entry["size"] and status.st_mtime_ns == entry["mtime_ns"]
        if same and not hash_all and path.suffix not in TABLES:
            continue
        if hash_file(path) == entry["sha256"]:
            if not same:
                updated[name] = {**entry, "mtime_ns": status.st_mtime_ns}
        elif status.st_size < entry["size"] and not is_readable(path):
            changes.append(Change(name, "damaged", f"is cut off: {status.st_size} of {entry['size']} bytes are left"))
        elif not is_readable(path):
            changes.append(Change(name, "damaged", "has other content, which cannot be read"))
        elif status.st_mtime_ns <= entry["mtime_ns"]:
            changes.append(Change(name, "damaged", "has other content, although nothing has written it since"))
        else:
            changes.append(Change(name, "edited", "has other content, and was written later"))
    return changes, updated


def is_readable(path: Path) -> bool:
    """Whether a file is complete in its format: a table, JSON, PNG, safetensors or text.

    A file of another format is readable if it is neither empty nor all zeros.
    """
    reader = READERS.get(path.suffix.lower(), _check_text if path.suffix.lower() in TEXTS else _check_nonzero)
    try:
        reader(path)
    except (InputError, OSError, ValueError, SyntaxError, KeyError, TypeError, struct.error):
        return False
    return True


def _check_text(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if not text.strip() or "\0" in text:
        raise ValueError("no text")


def _check_nonzero(path: Path) -> None:
    with path.open("rb") as handle:
        if not any(any(block) for block in iter(lambda: handle.read(1 << 20), b"")):
            raise ValueError("empty, or all zeros")


def _check_image(path: Path) -> None:
    with Image.open(path) as image:
        image.verify()  # checksums of all chunks
    with Image.open(path) as image:
        image.load()


def _check_tensors(path: Path) -> None:
    with path.open("rb") as handle:
        (length,) = struct.unpack("<Q", handle.read(8))
        if not 0 < length <= 100_000_000:
            raise ValueError("no header")
        header = json.loads(handle.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        if path.stat().st_size != 8 + length + max(ends, default=0):
            raise ValueError("cut off")
    _check_nonzero(path)


READERS: Mapping[str, Callable[[Path], object]] = {
    ".parquet": read_parquet, ".json": read_json, ".png": _check_image, ".safetensors": _check_tensors,
}  # fmt: skip


def remove_temporary_files(folder: Path) -> list[Path]:
    """Remove temporary files and folders of a killed process below a folder; returns the removed paths.

    Only for a folder that no other process is using.
    """
    orphans = [path for path in sorted(folder.rglob(".*")) if TEMPORARY_NAME.fullmatch(path.name)]
    for path in orphans:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return orphans
