"""From a cell to a member of one of many tar shards."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from equigen.cohort.images.sources import TAR
from equigen.cohort.images.tar_shards import leads_out, open_shard
from equigen.errors import InputError, Problem
from equigen.progress import progress_bar

SEVERAL = -1


class Members:
    """All members of the shards that a pattern below ``root`` names, by name.

    Raises InputError when no shard is there, a link leads one out of the root, or one cannot be read.
    """

    def __init__(self, root: Path, pattern: str, show: bool = True) -> None:
        self.pattern, self.files = pattern, _matching(root, pattern)
        _check_shards(root, pattern, self.files)
        self.shards = [item.relative_to(root).as_posix() for item in self.files]
        short = Counter(item.name for item in self.files)
        self.numbers = {item.name: number for number, item in enumerate(self.files) if short[item.name] == 1}
        self.numbers |= {name: number for number, name in enumerate(self.shards)}
        self.places: dict[str, int] = {}  # member -> number of its shard, or SEVERAL
        with progress_bar("opening shards", len(self.files), show=show) as bar:
            for number, item in enumerate(self.files):
                for name in open_shard(item).names.to_pylist():
                    self.places[name] = SEVERAL if name in self.places else number
                bar.advance()

    def find(self, name: str) -> str | tuple[str, str]:
        """The path through a shard, relative to the root, or (message, mend)."""
        if not name:
            return "the cell is empty", "name the member, or leave the row out"
        if leads_out(name):
            return f"the name '{name}' leads out of the shards", "name a member, without '..'"
        shard, tar, member = name.rpartition(TAR + "/")
        number = self.numbers.get(shard + TAR) if tar else None
        if number is not None and open_shard(self.files[number]).find(member) is not None:
            return f"{self.shards[number]}/{member}"
        place = self.places.get(name)
        if place is None and "\\" in name:
            plain = self.find(name.replace("\\", "/"))
            return plain if isinstance(plain, str) else (f"{plain[0]}; the cell has backslashes", plain[1])
        return self._path(name, place)

    def _path(self, name: str, place: int | None) -> str | tuple[str, str]:
        """The path of a member in its shard, or what is wrong."""
        if place == SEVERAL:
            return f"several shards have a member '{name}'", f"put the shard in front: {self.shards[0]}/{name}"
        if place is None:
            mend = "check image.shards and image.suffix, or leave the row out"
            return f"no shard of '{self.pattern}' has a member '{name}'", mend
        return f"{self.shards[place]}/{name}"


def _matching(root: Path, pattern: str) -> list[Path]:
    """The files that a pattern below the root names; what an interrupted writer left (``.name``) is none."""
    mend = "give one below image.root, as in 'shards/*.tar'"
    try:
        if leads_out(pattern):
            raise ValueError("it leads out of the image root")
        return sorted(item for item in root.glob(pattern) if item.is_file() and not item.name.startswith("."))
    except ValueError as error:
        problem = Problem(f"image.shards '{pattern}' is no pattern of files ({error})", mend)
        raise InputError("The images' shards are not there.", [problem]) from error


def _check_shards(root: Path, pattern: str, found: list[Path]) -> None:
    problems = [
        Problem("is a link that leads out of the image root", "copy the shard below image.root", file=str(item))
        for item in found
        if not item.resolve().is_relative_to(root)
    ]
    problems += [
        Problem("is no .tar file", "a pattern of shards ends in .tar; unpack compressed ones", file=str(item))
        for item in found
        if item.suffix != TAR
    ]
    if not found:
        there = sorted({item.parent.relative_to(root).as_posix() for item in root.glob(f"**/*{TAR}")})
        mend = f"there are shards in: {', '.join(there[:5])}" if there else "check image.root and image.shards"
        problems.append(Problem(f"no file matches image.shards '{pattern}'", mend, file=str(root)))
    if problems:
        raise InputError("The images' shards are not there.", problems)
