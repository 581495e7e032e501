"""The rounds of a screening: judge, draw the refused ones again with the next seed, judge those; resumable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.cohort import load_images
from equigen.errors import InputError, Problem
from equigen.files import hash_file, read_parquet, write_parquet
from equigen.pngs import is_complete_png, write_png
from equigen.progress import Bar, progress_bar
from equigen.quality import Classifier, answers
from equigen.seeds import derive_seed
from equigen.synthesis.screening.rules import Rule

TOGETHER = 128  # images drawn, judged and saved together, always the same ones: rounding may depend on them
Images = NDArray[np.uint8]
Redraw = Callable[[pd.DataFrame], Images]
"""Rows of a plan (conditions, prompt, seed, guidance, steps) -> their images [n, size, size, 3] uint8."""


def next_seed(seed: int, redraw: int) -> int:
    """Seed of the k-th redraw (1, 2, ...) of an image that was first drawn with ``seed``."""
    return derive_seed(seed, "redraw", redraw)


@dataclass(frozen=True)
class Rounds:
    """A set, its screen, and where the work is kept.

    ``base``: one row an image as it was first drawn, with ``image`` and ``seed``. ``folder``: of the set. ``place``:
    below it, of this screening: ``draw-<number>/*.parquet`` hold the verdicts and ``images/<row>-<redraw>.png`` what
    was drawn again.
    """

    base: pd.DataFrame
    folder: Path
    place: Path
    rule: Rule
    classifier: Classifier
    redraw: Redraw
    size: int

    def run(self, tries: int, show: bool) -> pd.DataFrame:
        """Verdicts on every image that was drawn: ``row``, ``draw`` (1 is the first), ``seed``, ``image``, verdict.

        Each round draws what the round before refused, at most ``tries`` times. Which rows these are, their seeds
        and which of them are drawn together follow from the set and the screen alone, so work that was interrupted
        goes on to the same bits.
        """
        wanted, found = np.arange(len(self.base)), []
        for draw in range(1, tries + 2):
            with progress_bar(f"screen, draw {draw}", len(wanted), show=show) as bar:
                found.append(pd.concat([self._piece(draw, rows, bar) for rows in _pieces(wanted)], ignore_index=True))
            wanted = found[-1]["row"].to_numpy()[~found[-1]["accepted"].to_numpy(dtype=bool)]
            if not len(wanted):
                break
        return pd.concat(found, ignore_index=True)

    def _piece(self, draw: int, rows: NDArray[np.int64], bar: Bar) -> pd.DataFrame:
        """Verdicts on some rows of one round: kept ones where they and their images are whole, else made."""
        path = self.place / f"draw-{draw}" / f"{rows[0]:07d}.parquet"
        names = [self._name(draw, row) for row in rows]
        kept = read_parquet(path) if path.is_file() else None
        if kept is None or not self._is_kept(kept, rows, names):
            kept = self._judged(draw, rows, names)
            write_parquet(path, kept)
        bar.advance(len(rows))
        return kept

    def _is_kept(self, kept: pd.DataFrame, rows: NDArray[np.int64], names: list[str]) -> bool:
        """Whether kept verdicts are those of these rows, and their images the files that were judged."""
        if "sha256" not in kept or list(kept["row"]) != list(rows):
            return False
        paths = [self.folder / name for name in names]
        return all(is_complete_png(path, self.size) and hash_file(path) == recorded
                   for path, recorded in zip(paths, kept["sha256"], strict=True))  # fmt: skip

    def _judged(self, draw: int, rows: NDArray[np.int64], names: list[str]) -> pd.DataFrame:
        asked = self.base.iloc[rows].reset_index(drop=True)
        if draw > 1:
            asked = asked.assign(seed=[next_seed(int(seed), draw - 1) for seed in asked["seed"]])
            images = self._drawn(asked, names)
        else:
            images = load_images([self.folder / name for name in names], self.size)
        verdicts = self.rule.verdicts(answers(self.classifier, images), asked)
        head = pd.DataFrame({"row": rows, "draw": draw, "seed": asked["seed"].astype("int64"), "image": names,
                             "sha256": [hash_file(self.folder / name) for name in names]})  # fmt: skip
        return pd.concat([head, verdicts], axis=1)

    def _drawn(self, asked: pd.DataFrame, names: list[str]) -> Images:
        """Images drawn again and written; they come back as they are on disk."""
        images = self.redraw(asked)
        want = (len(asked), self.size, self.size, 3)
        if images.shape != want or images.dtype != np.uint8:
            mend = f"images of the set are uint8 {list(want)}"
            problem = Problem(f"it makes {images.dtype} {list(images.shape)}", mend)
            raise InputError("This generator does not make images like those of the set.", [problem])
        for name, image in zip(names, images, strict=True):
            write_png(self.folder / name, image)
        return images

    def _name(self, draw: int, row: int) -> str:
        if draw == 1:
            return str(self.base["image"].iloc[row])
        return (self.place.relative_to(self.folder) / "images" / f"{row:07d}-{draw - 1}.png").as_posix()


def _pieces(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), TOGETHER):
        yield rows[start : start + TOGETHER]


def first_drawn(frame: pd.DataFrame) -> pd.DataFrame:
    """A set's table as it was before any screening, without verdicts."""
    bare = frame.reset_index(drop=True).assign(accepted=True, reason="")
    if "first_seed" not in bare:
        return bare
    restored = bare.assign(image=bare["first_image"], seed=bare["first_seed"])
    if "first_sha256" in restored:
        restored = restored.assign(sha256=restored["first_sha256"]).drop(columns="first_sha256")
    return restored.drop(columns=["tries", "first_image", "first_seed"])


def screened(base: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """The set's table with the last draw of each row.

    ``image`` and ``seed`` are of that draw, ``tries`` counts the images that were drawn, ``first_image`` and
    ``first_seed`` are what it began with; a set with ``sha256`` has that of the last draw, and ``first_sha256``. Rows
    given up keep their last image, are not ``accepted`` and have a ``reason``.
    """
    last = found.groupby("row", sort=True).tail(1).sort_values("row")
    changed = {name: last[name].to_numpy() for name in ("image", "seed", "accepted", "reason")}
    first = {"first_image": base["image"].to_numpy(), "first_seed": base["seed"].to_numpy()}
    if "sha256" in base:
        changed["sha256"] = last["sha256"].to_numpy()
        first["first_sha256"] = base["sha256"].to_numpy()
    return base.assign(**changed, tries=last["draw"].to_numpy(), **first)
