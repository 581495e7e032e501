"""Find the image file of each row: it must exist, lie below the root and belong to one row only."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath

import pandas as pd

from equigen.cohort.images.arrow import image_columns, is_dataset, open_dataset
from equigen.cohort.images.sources import TAR
from equigen.cohort.images.tar_shards import leads_out, open_shard
from equigen.cohort.spec import CohortSpec, ImageRole
from equigen.errors import InputError, Problem, printable_text, suggestion
from equigen.progress import progress_bar

FOLDER = "@folder"  # column of every table: the entry of image.folders in which the image was found


@dataclass
class ImageLocations:
    """Per row: path relative to the root ("" = not usable), absolute path, folder; and the problems."""

    root: Path
    images: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def locate_images(table: pd.DataFrame, spec: CohortSpec, base: Path, show: bool = True) -> ImageLocations:
    """Find every row's image below ``base / image.root``, in its shards, or in the dataset that is the table.

    Raises:
        InputError: the root or one of ``image.folders`` is no folder, ``image.shards`` matches nothing, a shard cannot
            be read, or ``image.column`` of a dataset holds no images. Faults of rows are collected.

    """
    role = spec.image
    if is_dataset(base / spec.table):
        root, find = _dataset_root(base / spec.table, role), _dataset_path
    else:
        root = (base / role.root).resolve()
        if printable_text(str(root)) != str(root):
            problem = Problem("the folder's name is no UTF-8 text", "rename it", file=str(root))
            raise InputError("The images' folder cannot be used.", [problem])
        lacking = [folder for folder in role.folders if not (root / folder).is_dir()]
        if lacking:
            problems = [
                Problem("there is no such folder", "mend image.root or image.folders", file=str(root / folder))
                for folder in lacking
            ]
            raise InputError("The images' folder is not there.", problems)
        unresolved = Path(os.path.abspath(base / role.root))  # noqa: PTH100 (links stay)
        find = partial(_find, root, unresolved, role)
        if role.shards is not None:
            find = ShardMembers(root, role.shards, show).find
    located = ImageLocations(root)
    column = "+".join(role.columns)
    prefixes = {folder: PurePosixPath(folder).as_posix() + "/" for folder in role.folders}
    for row, name in zip(table.index, _image_names(table, role), strict=True):
        image = find(name)
        if isinstance(image, tuple):
            message, mend = image
            located.problems.append(Problem(message, mend, row=int(row), column=column))
            image = ""
        folders = (key for key, prefix in prefixes.items() if prefix == "./" or image.startswith(prefix))
        located.images.append(image)
        located.paths.append(str(root / image) if image else "")
        located.folders.append(next(folders, "") if image else "")
    located.problems += _repeated_images(table, located.images, column)
    return located


def _dataset_root(folder: Path, role: ImageRole) -> Path:
    """Return the folder of a saved dataset, after checking that ``image`` names only one of its image columns."""
    columns = image_columns(open_dataset(folder))
    defaults = ImageRole(column=role.column or "")
    keys = [key for key in ImageRole.model_fields if key != "column" and getattr(role, key) != getattr(defaults, key)]
    problems = [Problem(f"image.{key} has no meaning for a dataset", f"leave '{key}' out") for key in keys]
    if role.column not in columns:
        problems.append(Problem(f"the column '{role.column}' holds no images", suggestion(role.column or "", columns)))
    if problems:
        raise InputError(f"The dataset {folder.name} does not fit the specification.", problems)
    return folder.resolve()


def _dataset_path(name: str) -> str | tuple[str, str]:
    """Return a cell of ``dataset_table``, which already is the image's path, or (message, mend)."""
    return name or ("there is no image", "add it, or leave the row out")


def _image_names(table: pd.DataFrame, role: ImageRole) -> list[str]:
    """Return the image name of each row, from ``column`` or ``template``; "" where a cell is empty."""
    if role.column is not None:
        names = [cell.strip() for cell in table[role.column]]
    else:
        names = []
        for row in table[role.columns].to_dict("records"):
            cells = {str(key): str(cell).strip() for key, cell in row.items()}
            name = (role.template or "") if all(cells.values()) else ""
            for key, cell in cells.items():
                name = name.replace("{" + key + "}", cell)
            names.append(name)
    return [name + role.suffix if name else "" for name in names]


def _find(root: Path, unresolved: Path, role: ImageRole, name: str) -> str | tuple[str, str]:
    """Return the path relative to the root, or (message, mend); ``unresolved`` is the root with its links."""
    if not name:
        return "the cell is empty", "name the image, or leave the row out"
    if (text := printable_text(name)) != name:
        return f"the file name '{text}' is no UTF-8 text", "rename the file, or leave the row out"
    image = _find_below(root, unresolved, role, name)
    if isinstance(image, tuple) and "\\" in name:
        posix = _find_below(root, unresolved, role, name.replace("\\", "/"))
        if isinstance(posix, str):
            return posix
        if PureWindowsPath(name).anchor:
            return f"the path '{name}' is a Windows path with a drive", "give paths below image.root, with '/'"
        return posix if leads_out(name.replace("\\", "/")) else (f"{image[0]}; it has backslashes", image[1])
    return image


def _find_below(root: Path, unresolved: Path, role: ImageRole, name: str) -> str | tuple[str, str]:
    """Look a relative or absolute path up in each of ``image.folders``; returns as ``_find`` does."""
    pure = PurePosixPath(name)
    if pure.is_absolute() and ".." not in pure.parts and "\0" not in name:
        for base in (root, unresolved):
            if pure.is_relative_to(base):
                plain = role.model_copy(update={"folders": ["."]})
                return _find_below(root, unresolved, plain, str(pure.relative_to(base)))
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
    """Return (message, mend) where a link leads out of the root, or out of a folder that ``image.links`` allows."""
    real = os.path.realpath(full)
    if _is_inside(real, str(root)):
        return None
    parts = PurePosixPath(relative).parts
    parents = [os.path.join(root, *parts[: count + 1]) for count in range(len(parts) - 1)]  # noqa: PTH118
    linked = next((parent for parent in parents if os.path.islink(parent)), None)  # noqa: PTH114
    if linked is None:
        return f"'{relative}' is a link that leads out of the image root", "copy the file below image.root"
    target = os.path.realpath(linked)
    folder = Path(linked).relative_to(root).as_posix()
    if not links:
        return (
            f"'{relative}' lies in '{folder}', a folder that is a link that leads out of the image root",
            "set image.links: true if you laid the link, or copy the folder below image.root",
        )
    if not _is_inside(real, target):
        return f"'{relative}' is a link that leads out of the linked folder '{folder}'", "copy the file into it"
    return None


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _repeated_images(table: pd.DataFrame, images: list[str], column: str) -> list[Problem]:
    """Return a problem for each later row that names an image again; the first row is kept."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, image in zip(table.index, images, strict=True):
        if image:
            rows[image].append(int(row))
    return [
        Problem(
            f"the image '{image}' is already in row {numbers[0]}",
            "keep one row an image",
            row=row,
            column=column,
        )
        for image, numbers in rows.items()
        for row in numbers[1:]
    ]


SEVERAL = -1


class ShardMembers:
    """Index of all members of the shards that match a pattern below ``root``, by name.

    Raises InputError when no shard matches, a link leads out of the root, or a shard cannot be read.
    """

    def __init__(self, root: Path, pattern: str, show: bool = True) -> None:
        self.pattern, self.files = pattern, _find_shards(root, pattern)
        self.shards = [item.relative_to(root).as_posix() for item in self.files]
        counts = Counter(item.name for item in self.files)
        self.numbers = {item.name: number for number, item in enumerate(self.files) if counts[item.name] == 1}
        self.numbers |= {name: number for number, name in enumerate(self.shards)}
        self.shard_numbers: dict[str, int] = {}  # member -> number of its shard, or SEVERAL
        with progress_bar("opening shards", len(self.files), show=show) as bar:
            for number, item in enumerate(self.files):
                for name in open_shard(item).names.to_pylist():
                    self.shard_numbers[name] = SEVERAL if name in self.shard_numbers else number
                bar.advance()

    def find(self, name: str) -> str | tuple[str, str]:
        """Return the path through a shard, relative to the root, or (message, mend)."""
        if not name:
            return "the cell is empty", "name the member, or leave the row out"
        if leads_out(name):
            return f"the name '{name}' leads out of the shards", "name a member, without '..'"
        shard, tar, member = name.rpartition(TAR + "/")
        number = self.numbers.get(shard + TAR) if tar else None
        if number is not None and open_shard(self.files[number]).find(member) is not None:
            return f"{self.shards[number]}/{member}"
        number = self.shard_numbers.get(name)
        if number is None and "\\" in name:
            path = self.find(name.replace("\\", "/"))
            return path if isinstance(path, str) else (f"{path[0]}; the cell has backslashes", path[1])
        if number is None:
            mend = "check image.shards and image.suffix, or leave the row out"
            return f"no shard of '{self.pattern}' has a member '{name}'", mend
        several = f"several shards have a member '{name}'", f"put the shard in front: {self.shards[0]}/{name}"
        return several if number == SEVERAL else f"{self.shards[number]}/{name}"


def _find_shards(root: Path, pattern: str) -> list[Path]:
    """Return the shards that match a pattern below the root; temporary files (``.name``) are left out."""
    mend = "give one below image.root, as in 'shards/*.tar'"
    try:
        if leads_out(pattern):
            raise ValueError("it leads out of the image root")
        shards = sorted(item for item in root.glob(pattern) if item.is_file() and not item.name.startswith("."))
    except ValueError as error:
        problem = Problem(f"image.shards '{pattern}' is no pattern of files ({error})", mend)
        raise InputError("The images' shards are not there.", [problem]) from error
    problems = [
        Problem("is a link that leads out of the image root", "copy the shard below image.root", file=str(item))
        for item in shards
        if not item.resolve().is_relative_to(root)
    ]
    problems += [
        Problem("is no .tar file", "a pattern of shards ends in .tar; unpack compressed ones", file=str(item))
        for item in shards
        if item.suffix != TAR
    ]
    if not shards:
        folders = sorted({item.parent.relative_to(root).as_posix() for item in root.glob(f"**/*{TAR}")})
        mend = f"there are shards in: {', '.join(folders[:5])}" if folders else "check image.root and image.shards"
        problems.append(Problem(f"no file matches image.shards '{pattern}'", mend, file=str(root)))
    if problems:
        raise InputError("The images' shards are not there.", problems)
    return shards
