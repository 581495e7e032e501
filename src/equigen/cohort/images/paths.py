"""From a row to its image file: below the root, there, and named once."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath

import pandas as pd

from equigen.cohort.images.arrow import image_columns, is_dataset, open_dataset
from equigen.cohort.images.shard_members import Members
from equigen.cohort.images.tar_shards import leads_out
from equigen.cohort.spec import CohortSpec, ImageRole, suggestion
from equigen.errors import InputError, Problem, readable

FOLDER = "@folder"  # a column that every table has: the entry of image.folders in which the image was found


@dataclass
class Located:
    """Per row: path relative to the root ("" = not usable), absolute path, folder; and what was wrong."""

    root: Path
    images: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def locate_images(table: pd.DataFrame, spec: CohortSpec, base: Path, show: bool = True) -> Located:
    """Find every row's image below ``base / image.root``, in its shards, or in the dataset that is the table.

    Raises:
        InputError: the root or one of ``image.folders`` is no folder, ``image.shards`` matches nothing, a shard cannot
            be read, or ``image.column`` of a dataset holds no images. Faults of rows are collected.

    """
    role = spec.image
    if is_dataset(base / spec.table):
        root, find = _dataset(base / spec.table, role), _row
    else:
        root = (base / role.root).resolve()
        _check_folders(root, role)
        given = Path(os.path.abspath(base / role.root))  # noqa: PTH100 (links stay)
        find = partial(_find, root, given, role) if role.shards is None else Members(root, role.shards, show).find
    located = Located(root)
    column = "+".join(role.columns)
    for row, name in zip(table.index, _names(table, role), strict=True):
        found = find(name)
        if isinstance(found, tuple):
            message, mend = found
            located.problems.append(Problem(message, mend, row=int(row), column=column))
            found = ""
        folder = next((item for item in role.folders if found.startswith(_prefix(item))), "") if found else ""
        located.images.append(found)
        located.paths.append(str(root / found) if found else "")
        located.folders.append(folder)
    located.problems += _named_twice(table, located.images, column)
    return located


def _check_folders(root: Path, role: ImageRole) -> None:
    if readable(str(root)) != str(root):
        problem = Problem("the folder's name is no UTF-8 text", "rename it", file=str(root))
        raise InputError("The images' folder cannot be used.", [problem])
    lacking = [folder for folder in role.folders if not (root / folder).is_dir()]
    if lacking:
        problems = [
            Problem("there is no such folder", "mend image.root or image.folders", file=str(root / folder))
            for folder in lacking
        ]
        raise InputError("The images' folder is not there.", problems)


def _dataset(folder: Path, role: ImageRole) -> Path:
    """The folder of a dataset that holds the images in ``image.column``."""
    known = image_columns(open_dataset(folder))
    plain = ImageRole(column=role.column or "")
    given = [key for key in ImageRole.model_fields if key != "column" and getattr(role, key) != getattr(plain, key)]
    problems = [Problem(f"image.{key} has no meaning for a dataset", f"leave '{key}' out") for key in given]
    if role.column not in known:
        problems.append(Problem(f"the column '{role.column}' holds no images", suggestion(role.column or "", known)))
    if problems:
        raise InputError(f"The dataset {folder.name} does not fit the specification.", problems)
    return folder.resolve()


def _row(name: str) -> str | tuple[str, str]:
    """A cell of ``dataset_table``, which is the path of an image already."""
    return name or ("there is no image", "add it, or leave the row out")


def _names(table: pd.DataFrame, role: ImageRole) -> list[str]:
    """The image's name as each row gives it, "" where a cell is empty."""
    if role.column is not None:
        cells = [cell.strip() for cell in table[role.column]]
    else:
        rows = table[role.columns].to_dict("records")
        cells = [
            _fill(role.template or "", {str(key): str(value).strip() for key, value in row.items()})
            for row in rows
        ]
    return [cell + role.suffix if cell else "" for cell in cells]


def _fill(template: str, values: dict[str, str]) -> str:
    if not all(values.values()):
        return ""
    for key, value in values.items():
        template = template.replace("{" + key + "}", value)
    return template


def _prefix(folder: str) -> str:
    text = PurePosixPath(folder).as_posix()
    return "" if text == "." else text + "/"


def _find(root: Path, given: Path, role: ImageRole, name: str) -> str | tuple[str, str]:
    """The path relative to the root, or (message, mend); ``given`` is the root before links are followed."""
    if not name:
        return "the cell is empty", "name the image, or leave the row out"
    if (text := readable(name)) != name:
        return f"the file name '{text}' is no UTF-8 text", "rename the file, or leave the row out"
    found = _below(root, given, role, name)
    if isinstance(found, tuple) and "\\" in name:
        plain = _below(root, given, role, name.replace("\\", "/"))
        if isinstance(plain, str):
            return plain
        if PureWindowsPath(name).anchor:
            return f"the path '{name}' is a Windows path with a drive", "give paths below image.root, with '/'"
        return plain if leads_out(name.replace("\\", "/")) else (f"{found[0]}; it has backslashes", found[1])
    return found


def _below(root: Path, given: Path, role: ImageRole, name: str) -> str | tuple[str, str]:
    pure = PurePosixPath(name)
    if pure.is_absolute() and ".." not in pure.parts and "\0" not in name:
        for base in (root, given):
            if pure.is_relative_to(base):
                return _below(root, given, role.model_copy(update={"folders": ["."]}), str(pure.relative_to(base)))
        return f"the path '{name}' is absolute and leads out of the image root", "give paths below image.root"
    if leads_out(name):
        return f"the path '{name}' leads out of the image root", "give paths below image.root, without '..'"
    strange = ""
    for folder in role.folders:
        relative = (PurePosixPath(folder) / pure).as_posix()
        full = os.path.join(root, relative)  # noqa: PTH118 (a Path per row doubles the time)
        if os.path.isfile(full):  # noqa: PTH113
            return _link_fault(root, relative, full, role.links) or relative
        if os.path.lexists(full):
            strange = relative
    if strange:
        kind = "a folder" if (root / strange).is_dir() else "no ordinary file (a pipe, a device or a broken link)"
        return f"'{strange}' is {kind}", "name an image file, or leave the row out"
    return (
        f"there is no image '{name}' below {root}",
        "check image.root and image.suffix, or leave the row out",
    )


def _link_fault(root: Path, relative: str, full: str, links: bool) -> tuple[str, str] | None:
    """(message, mend) where a link leads a path out of the root, or out of the folder that the user linked."""
    real = os.path.realpath(full)
    if _inside(real, str(root)):
        return None
    parts = PurePosixPath(relative).parts
    places = [os.path.join(root, *parts[: count + 1]) for count in range(len(parts) - 1)]  # noqa: PTH118
    linked = next((place for place in places if os.path.islink(place)), None)  # noqa: PTH114
    if linked is None:
        return f"'{relative}' is a link that leads out of the image root", "copy the file below image.root"
    target = os.path.realpath(linked)
    folder = Path(linked).relative_to(root).as_posix()
    if not links:
        return (
            f"'{relative}' lies in '{folder}', a folder that is a link that leads out of the image root",
            "set image.links: true if you laid the link, or copy the folder below image.root",
        )
    if not _inside(real, target):
        return f"'{relative}' is a link that leads out of the linked folder '{folder}'", "copy the file into it"
    return None


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _named_twice(table: pd.DataFrame, images: list[str], column: str) -> list[Problem]:
    """The later rows that name an image again; the first row stays."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, image in zip(table.index, images, strict=True):
        if image:
            rows[image].append(int(row))
    return [
        Problem(
            f"the image '{image}' is already in row {given[0]}",
            "keep one row an image",
            row=row,
            column=column,
        )
        for image, given in rows.items()
        for row in given[1:]
    ]
