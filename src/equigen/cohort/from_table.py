"""Roles for tables and folders that come without a YAML file: what to evaluate or audit, all of it "test"."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from equigen.cohort.images.faults import ImageFault
from equigen.cohort.images.reader import SUFFIXES
from equigen.cohort.images.sources import open_image
from equigen.errors import InputError, Problem


def table_values(
    table: Path,
    groups: Sequence[str] | Mapping[str, str],
    labels: Sequence[str] | Mapping[str, str],
    image: str,
    patient: str | None,
    root: str,
) -> dict[str, Any]:
    """A cohort specification for a table, as a mapping."""
    return {
        "name": _name(table),
        "table": table.name,
        "image": {"column": image, "root": root},
        "patient": patient,
        "split": {"fractions": {"test": 1.0}},
        "labels": {name: {"kind": "multiclass", "column": column} for name, column in _columns(labels).items()},
        "attributes": {name: {"column": column} for name, column in _columns(groups).items()},
    }


def _columns(names: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Name -> column; a bare name is its own column."""
    return dict(names) if isinstance(names, Mapping) else {name: name for name in names}


def folder_values(folder: Path, groups: list[str]) -> tuple[dict[str, Any], pd.DataFrame, list[Problem]]:
    """A cohort specification for a folder of images, the table that it lacks, and what was passed over in it.

    Images are files with one of ``SUFFIXES``, and files without a suffix (or with a number as in a UID) that begin as
    DICOM, PNG, JPEG or TIFF do. Hidden and system folders, hidden files and linked folders are passed over.

    Raises:
        InputError: groups are asked of it, or it has no image.

    """
    if groups:
        problem = Problem(f"groups: {', '.join(groups)}", "give a table with these columns", file=str(folder))
        raise InputError("A folder of images has no groups.", [problem])
    images, remarks = _listing(folder)
    if not images:
        problem = Problem("there is no image in it", f"it may hold {', '.join(SUFFIXES)}", file=str(folder))
        raise InputError("The folder has no images.", [problem, *remarks])
    values = {
        "name": _name(folder),
        "table": folder.name or ".",
        "image": {"column": "file"},
        "patient": None,
        "split": {"fractions": {"test": 1.0}},
    }
    index = pd.RangeIndex(2, len(images) + 2, name="row")
    return values, pd.DataFrame({"file": images}, index=index, dtype=object), remarks


_SYSTEM = {"__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "recycler", "lost+found", "#snapshot",
           "system volume information", "__pycache__"}  # fmt: skip
_OTHER = {".jp2", ".j2k", ".jpx", ".jpf", ".jxl", ".avif", ".heic", ".heif",
          ".ico", ".tga", ".psd", ".svs", ".ndpi", ".nii", ".mha", ".mhd", ".nrrd", ".npy", ".pjpeg",
          ".jif", ".apng", ".ima"}  # fmt: skip
_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*")


def _listing(folder: Path) -> tuple[list[str], list[Problem]]:
    """Paths of a folder's images relative to it, sorted, and a problem for every kind that was passed over."""
    images, hidden, other, links = list[str](), list[str](), list[str](), list[str]()
    for place, folders, files in os.walk(folder):
        relative = Path(place).relative_to(folder)
        unseen = any(part.startswith(".") or part.lower() in _SYSTEM for part in relative.parts)
        links += [(relative / name).as_posix() for name in folders if (Path(place) / name).is_symlink()]
        for name in files:
            path = (relative / name).as_posix()
            if unseen or name.startswith("."):
                if Path(name).suffix.lower() in SUFFIXES:
                    hidden.append(path)
            elif _is_image(Path(place) / name):
                images.append(path)
            elif _may_be_image(Path(place) / name):
                other.append(path)
    remarks = [
        _passed_over(hidden, "images in hidden or system folders, or hidden themselves,", "", folder),
        _passed_over(other, "files that may be images", "convert them to PNG to have them read", folder),
        _passed_over(links, "linked folders", "copy their images into the folder, or give a table", folder),
    ]
    return sorted(images), [item for item in remarks if item is not None]


def _passed_over(paths: list[str], what: str, mend: str, folder: Path) -> Problem | None:
    if not paths:
        return None
    ends = sorted({Path(path).suffix.lower() for path in paths if Path(path).suffix})
    kinds = f" ({', '.join(ends[:8])})" if ends and "may be" in what else ""
    examples = ", ".join(f"'{path}'" for path in sorted(paths)[:3])
    message = f"{len(paths)} {what}{kinds} were passed over, such as {examples}"
    return Problem(message, mend or "move them if they belong to the images", file=str(folder))


def _is_image(item: Path) -> bool:
    suffix = item.suffix.lower()
    if suffix in SUFFIXES:
        return item.is_file()
    bare = (not suffix or suffix[1:].isdecimal()) and item.name.upper() != "DICOMDIR"
    return bare and _begins_as_image(item)


def _may_be_image(item: Path) -> bool:
    """Whether a file that is not read looks like an image, by its name or how it begins."""
    if item.name.upper() == "DICOMDIR":
        return False
    return item.suffix.lower() in _OTHER or item.name.lower().endswith(".nii.gz") or _begins_as_image(item)


def _begins_as_image(item: Path) -> bool:
    try:
        with open_image(item) as handle:
            head = handle.read(132)
    except (ImageFault, OSError):
        return False
    return head[128:132] == b"DICM" or head.startswith(_STARTS)


def _name(place: Path) -> str:
    """A cohort's name from a file's or folder's."""
    stem = place.resolve().stem
    kept = "".join(letter if letter.isalnum() or letter in "_.- " else "_" for letter in stem)
    return kept.lstrip(".- ") or "table"
