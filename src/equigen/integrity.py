"""Records of files (size, time, SHA-256), the changes since one was made, and whether a file can still be read.

A file that is missing, cannot be read as what its suffix says, or has other content although its size and time are
those of the record, is *damaged*: no program that edits a file leaves its time. A file that can be read and was written
later than the record says is *edited*.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from equigen.errors import InputError
from equigen.files import hash_file, hash_value, read_json, read_parquet, write_json

Record = dict[str, dict[str, Any]]                  # relative path -> {size, mtime_ns, sha256}
TABLES = (".parquet", ".json", ".csv", ".html", ".yaml", ".md")  # files whose content is hashed at every look
STAMP, BEGUN = "stage.json", "begun.json"
OWN = (STAMP, BEGUN)  # records of a stage, which are not recorded themselves
TEXTS = (".csv", ".html", ".yaml", ".md", ".txt", ".svg")
PART = re.compile(r"\..+\.[0-9a-f]{8}\.part(\.\w+)?")   # temporary names of ``files.replace_file`` and of latent stores


@dataclass(frozen=True)
class Change:
    """One file that is not what a record says: its path below the folder, whether damaged or edited, and how."""

    file: str
    kind: Literal["damaged", "edited"]
    message: str


def record_files(folder: Path, skip: tuple[str, ...] = ()) -> Record:
    """Size, modification time and SHA-256 of every file below a folder, by relative path.

    ``skip``: names of files in the folder itself that are left out. Temporary files are left out too.
    """
    return {name: _entry(folder / name) for name in sorted(_names(folder)) if name not in skip}


def renew_record(folder: Path) -> None:
    """Record a finished stage's files anew after a command of ours changed them; nothing without a stamp."""
    file = folder / STAMP
    if not file.is_file():
        return
    stamp = read_json(file)
    if not isinstance(stamp, dict) or "files" not in stamp:
        return
    content = {key: value for key, value in stamp.items() if key != "seal"}
    content["files"] = record_files(folder, OWN)
    write_json(file, {**content, "seal": hash_value(content)})


def _names(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file() and not PART.fullmatch(path.name) and not PART.fullmatch(path.parent.name):
            yield path.relative_to(folder).as_posix()


def _entry(path: Path) -> dict[str, Any]:
    told = path.stat()
    return {"size": told.st_size, "mtime_ns": told.st_mtime_ns, "sha256": hash_file(path)}


def file_changes(folder: Path, record: Record, whole: bool = False) -> tuple[list[Change], Record]:
    """What has changed since a record, and the record with new times of files whose content is the same.

    Content is hashed where size or time differ, for tables and other small files always, with ``whole`` for all.
    """
    found, healed = [], dict(record)
    for name, entry in record.items():
        path = folder / name
        if not path.is_file():
            found.append(Change(name, "damaged", "is missing"))
            continue
        told = path.stat()
        same = told.st_size == entry["size"] and told.st_mtime_ns == entry["mtime_ns"]
        if same and not whole and path.suffix not in TABLES:
            continue
        if hash_file(path) == entry["sha256"]:
            if not same:
                healed[name] = {**entry, "mtime_ns": told.st_mtime_ns}
        elif told.st_size < entry["size"] and not is_readable(path):
            found.append(Change(name, "damaged", f"is cut off: {told.st_size} of {entry['size']} bytes are left"))
        elif not is_readable(path):
            found.append(Change(name, "damaged", "has other content, which cannot be read"))
        elif told.st_mtime_ns <= entry["mtime_ns"]:
            found.append(Change(name, "damaged", "has other content, although nothing has written it since"))
        else:
            found.append(Change(name, "edited", "has other content, and was written later"))
    return found, healed


def is_readable(path: Path) -> bool:
    """Whether a file is whole by its own format: a table, JSON, PNG, safetensors or text.

    A file of another format is readable where it is neither empty nor all zeros.
    """
    reader = READERS.get(path.suffix.lower(), _text if path.suffix.lower() in TEXTS else _bytes)
    try:
        reader(path)
    except (InputError, OSError, ValueError, SyntaxError, KeyError, TypeError, struct.error):
        return False
    return True


def _text(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if not text.strip() or "\0" in text:
        raise ValueError("no text")


def _bytes(path: Path) -> None:
    with path.open("rb") as handle:
        if not any(any(block) for block in iter(lambda: handle.read(1 << 20), b"")):
            raise ValueError("empty, or all zeros")


def _json(path: Path) -> None:
    json.loads(path.read_text(encoding="utf-8"))


def _image(path: Path) -> None:
    with Image.open(path) as image:
        image.verify()  # checksums of all chunks
    with Image.open(path) as image:
        image.load()


def _tensors(path: Path) -> None:
    with path.open("rb") as handle:
        (length,) = struct.unpack("<Q", handle.read(8))
        if not 0 < length <= 100_000_000:
            raise ValueError("no header")
        header = json.loads(handle.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        if path.stat().st_size != 8 + length + max(ends, default=0):
            raise ValueError("cut off")
    _bytes(path)


READERS: Mapping[str, Callable[[Path], object]] = {
    ".parquet": read_parquet, ".json": _json, ".png": _image, ".safetensors": _tensors,
}  # fmt: skip


def remove_temporary_files(folder: Path) -> list[Path]:
    """Remove temporary files and folders that a killed process left below a folder; the paths that were removed.

    Only for a folder in which no other process is at work.
    """
    orphans = [path for path in sorted(folder.rglob(".*")) if PART.fullmatch(path.name)]
    for path in orphans:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return orphans
