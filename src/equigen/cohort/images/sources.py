"""Where the bytes of an image are: in a file of its own, in a tar shard, or in a row of a saved dataset.

The path of a member goes through its shard as if that were a folder (``shards/000007.tar/000123.jpg``); that of a row
goes through the dataset's folder and the image's column (``scans/image/17``).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from equigen.cohort.images.arrow import STATE, open_row
from equigen.cohort.images.faults import ImageFault
from equigen.cohort.images.tar_shards import open_shard

TAR = ".tar"


def open_image(path: Path) -> BinaryIO:
    """An image as an open file that can be read and sought in; raises ``ImageFault`` when there is none.

    Raises InputError naming a shard or a dataset that cannot be read as a whole.
    """
    try:
        handle = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 (Path.open takes no opener)
        if stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
            return handle
        handle.close()
        raise ImageFault("is no ordinary file (a pipe or a device)", "name an image file, or leave the row out")
    except ValueError as error:  # a null byte
        raise ImageFault("has a name that no file can have", "mend the cell") from error
    except IsADirectoryError as error:
        raise ImageFault("is a folder", "name an image file, or leave the row out") from error
    except (NotADirectoryError, FileNotFoundError) as error:
        found = _member(path) or _row(path)
        if found is None:
            raise open_fault(error) from error
        return found
    except OSError as error:
        raise open_fault(error) from error


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for somebody to write into a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def open_fault(error: OSError) -> ImageFault:
    """The fault of a file that the system does not open."""
    return ImageFault(f"cannot be opened: {error.strerror}", "check the path and its permissions")


def image_exists(path: Path) -> bool:
    """Whether an image can be opened."""
    try:
        open_image(path).close()
    except ImageFault:
        return False
    return True


def split_member(path: str) -> tuple[Path, str] | None:
    """The shard that a path goes through, and the member's name in it; None for a file of its own."""
    at = path.find(TAR + "/")
    while at >= 0:
        shard = path[: at + len(TAR)]
        if os.path.isfile(shard):  # noqa: PTH113 (a Path per image doubles the time)
            return Path(shard), path[at + len(TAR) + 1 :]
        at = path.find(TAR + "/", at + 1)
    return None


def _member(path: Path) -> BinaryIO | None:
    found = split_member(str(path))
    if found is None:
        return None
    shard, name = open_shard(found[0]), found[1]
    place = shard.find(name)
    if place is None:
        raise ImageFault(
            f"is not there: {shard.path.name} has no member '{name}'", "check the shard, or leave the row out"
        )
    return shard.open(place)


def _row(path: Path) -> BinaryIO | None:
    folder = path.parent.parent
    if not (path.name.isdecimal() and (folder / STATE).is_file()):
        return None
    return open_row(folder, path.parent.name, int(path.name))


def file_state(path: Path) -> tuple[int, int]:
    """(bytes, time of change) of the file that an image is in; raises OSError where there is none."""
    try:
        state = path.stat()
    except (NotADirectoryError, FileNotFoundError):
        found = split_member(str(path))
        state = (found[0] if found is not None else path.parent.parent / STATE).stat()
    return state.st_size, state.st_mtime_ns


def reading_order(paths: Sequence[str]) -> list[int]:
    """The positions of images so that each shard is read from front to back; other files keep their order."""
    return sorted(range(len(paths)), key=lambda position: _key(paths[position]))


def _key(path: str) -> tuple[str, int]:
    """Shard, and where in it; the same for all images outside shards."""
    found = split_member(path)
    if found is None:
        return "", 0
    shard = open_shard(found[0])
    place = shard.find(found[1])
    return str(shard.path), -1 if place is None else int(shard.offsets[place])
