"""Find the members of many tar shards by name."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from equigen.cohort.images.sources import TAR
from equigen.cohort.images.tar_shards import leads_out, open_shard
from equigen.errors import InputError, Problem
from equigen.progress import progress_bar

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
