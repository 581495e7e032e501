"""Specifications for tables and folders without a YAML file, with all images in split "test"."""

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
    """Return a cohort specification for a table, as a mapping."""
    return {
        "name": _cohort_name(table),
        "table": table.name,
        "image": {"column": image, "root": root},
        "patient": patient,
        "split": {"fractions": {"test": 1.0}},
        "labels": {name: {"kind": "multiclass", "column": column} for name, column in _name_columns(labels).items()},
        "attributes": {name: {"column": column} for name, column in _name_columns(groups).items()},
    }


def _name_columns(names: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Return name -> column; a name without a column is its own column."""
    return dict(names) if isinstance(names, Mapping) else {name: name for name in names}


def folder_values(folder: Path, groups: list[str]) -> tuple[dict[str, Any], pd.DataFrame, list[Problem]]:
    """Return a cohort specification for a folder of images, its table, and notes on the files left out.

    Images are files with one of ``SUFFIXES``, and files without a suffix (or with a number as in a UID) that start like
    DICOM, PNG, JPEG or TIFF. Hidden and system folders, hidden files and linked folders are left out.

    Raises:
        InputError: groups are asked of it, or it has no image.

    """
    if groups:
        problem = Problem(f"groups: {', '.join(groups)}", "give a table with these columns", file=str(folder))
        raise InputError("A folder of images has no groups.", [problem])
    images, remarks = _list_images(folder)
    if not images:
        problem = Problem("there is no image in it", f"it may hold {', '.join(SUFFIXES)}", file=str(folder))
        raise InputError("The folder has no images.", [problem, *remarks])
    values = {
        "name": _cohort_name(folder),
        "table": folder.name or ".",
        "image": {"column": "file"},
        "patient": None,
        "split": {"fractions": {"test": 1.0}},
    }
    index = pd.RangeIndex(2, len(images) + 2, name="row")
    return values, pd.DataFrame({"file": images}, index=index, dtype=object), remarks


_SYSTEM_FOLDERS = {"__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "recycler", "lost+found", "#snapshot",
           "system volume information", "__pycache__"}  # fmt: skip
_UNSUPPORTED = {".jp2", ".j2k", ".jpx", ".jpf", ".jxl", ".avif", ".heic", ".heif",
          ".ico", ".tga", ".psd", ".svs", ".ndpi", ".nii", ".mha", ".mhd", ".nrrd", ".npy", ".pjpeg",
          ".jif", ".apng", ".ima"}  # fmt: skip
_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*")


def _list_images(folder: Path) -> tuple[list[str], list[Problem]]:
    """Return sorted paths of a folder's images relative to it, and a problem for every kind of file left out."""
    images, hidden, unsupported, links = list[str](), list[str](), list[str](), list[str]()
    for directory, folders, files in os.walk(folder):
        relative = Path(directory).relative_to(folder)
        is_hidden = any(name.startswith(".") or name.lower() in _SYSTEM_FOLDERS for name in relative.parts)
        links += [(relative / name).as_posix() for name in folders if (Path(directory) / name).is_symlink()]
        for name in files:
            path = (relative / name).as_posix()
            if is_hidden or name.startswith("."):
                if Path(name).suffix.lower() in SUFFIXES:
                    hidden.append(path)
            elif (kind := _image_kind(Path(directory) / name)) == "image":
                images.append(path)
            elif kind:
                unsupported.append(path)
    remarks = [
        _skipped_files(hidden, "images in hidden or system folders, or hidden themselves,", "", folder),
        _skipped_files(unsupported, "files that may be images", "convert them to PNG to have them read", folder),
        _skipped_files(links, "linked folders", "copy their images into the folder, or give a table", folder),
    ]
    return sorted(images), [item for item in remarks if item is not None]


def _skipped_files(paths: list[str], description: str, mend: str, folder: Path) -> Problem | None:
    if not paths:
        return None
    ends = sorted({Path(path).suffix.lower() for path in paths if Path(path).suffix})
    kinds = f" ({', '.join(ends[:8])})" if ends and "may be" in description else ""
    examples = ", ".join(f"'{path}'" for path in sorted(paths)[:3])
    message = f"{len(paths)} {description}{kinds} were passed over, such as {examples}"
    return Problem(message, mend or "move them if they belong to the images", file=str(folder))


def _image_kind(item: Path) -> str:
    """Return "image" for a file that is read, "unsupported" for another that may be an image, else ""."""
    suffix = item.suffix.lower()
    if suffix in SUFFIXES and item.is_file():
        return "image"
    if item.name.upper() == "DICOMDIR":
        return ""
    if suffix not in SUFFIXES and (not suffix or suffix[1:].isdecimal()) and _starts_as_image(item):
        return "image"
    unsupported = suffix in _UNSUPPORTED or item.name.lower().endswith(".nii.gz")
    return "unsupported" if unsupported or _starts_as_image(item) else ""


def _starts_as_image(item: Path) -> bool:
    """Whether a file's first bytes are those of DICOM, PNG, JPEG or TIFF."""
    try:
        with open_image(item) as handle:
            head = handle.read(132)
    except (ImageFault, OSError):
        return False
    return head[128:132] == b"DICM" or head.startswith(_STARTS)


def _cohort_name(path: Path) -> str:
    """Return a cohort's name derived from the name of a file or folder."""
    stem = path.resolve().stem
    name = "".join(letter if letter.isalnum() or letter in "_.- " else "_" for letter in stem)
    return name.lstrip(".- ") or "table"
