"""Open an image that is a file of its own, a member of a tar shard, or a row of a saved dataset.

The path of a member treats the shard as a folder (``shards/000007.tar/000123.jpg``); that of a row consists of the
dataset's folder, the image's column and the row (``scans/image/17``).
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
    """Open an image as a seekable file; raises ``ImageFault`` when it cannot be opened.

    Raises InputError naming a shard or a dataset that cannot be read at all.
    """
    nonblocking = getattr(os, "O_NONBLOCK", 0)  # so that opening a pipe does not wait for a writer
    try:
        handle = open(path, "rb", opener=lambda name, flags: os.open(name, flags | nonblocking))  # noqa: SIM115
        if stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
            return handle
        handle.close()
        raise ImageFault("is no ordinary file (a pipe or a device)", "name an image file, or leave the row out")
    except ValueError as error:  # a null byte
        raise ImageFault("has a name that no file can have", "mend the cell") from error
    except IsADirectoryError as error:
        raise ImageFault("is a folder", "name an image file, or leave the row out") from error
    except (NotADirectoryError, FileNotFoundError) as error:
        member = split_member(str(path))
        if member is not None:
            return _open_member(*member)
        folder = path.parent.parent
        if not (path.name.isdecimal() and (folder / STATE).is_file()):
            raise open_fault(error) from error
        return open_row(folder, path.parent.name, int(path.name))
    except OSError as error:
        raise open_fault(error) from error


def open_fault(error: OSError) -> ImageFault:
    """Return the fault of a file that the operating system does not open."""
    return ImageFault(f"cannot be opened: {error.strerror}", "check the path and its permissions")


def image_exists(path: Path) -> bool:
    """Whether an image can be opened."""
    try:
        open_image(path).close()
    except ImageFault:
        return False
    return True


def split_member(path: str) -> tuple[Path, str] | None:
    """Return the shard of a path and the member's name in it; None for a file of its own."""
    position = path.find(TAR + "/")
    while position >= 0:
        shard = path[: position + len(TAR)]
        if os.path.isfile(shard):  # noqa: PTH113 (a Path per image doubles the time)
            return Path(shard), path[position + len(TAR) + 1 :]
        position = path.find(TAR + "/", position + 1)
    return None


def _open_member(file: Path, name: str) -> BinaryIO:
    shard = open_shard(file)
    position = shard.find(name)
    if position is None:
        raise ImageFault(
            f"is not there: {shard.path.name} has no member '{name}'", "check the shard, or leave the row out"
        )
    return shard.open(position)


def file_state(path: Path) -> tuple[int, int]:
    """Return (bytes, modification time) of the file that contains an image; raises OSError where there is none."""
    try:
        state = path.stat()
    except (NotADirectoryError, FileNotFoundError):
        member = split_member(str(path))
        state = (member[0] if member is not None else path.parent.parent / STATE).stat()
    return state.st_size, state.st_mtime_ns


def reading_order(paths: Sequence[str]) -> list[int]:
    """Return the indices of images in the order that reads each shard from front to back; files keep their order."""
    keys = []
    for path in paths:
        member = split_member(path)
        if member is None:
            keys.append(("", 0))
            continue
        shard = open_shard(member[0])
        position = shard.find(member[1])
        keys.append((str(shard.path), -1 if position is None else int(shard.offsets[position])))
    return sorted(range(len(paths)), key=keys.__getitem__)
