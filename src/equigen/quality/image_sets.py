"""What is evaluated: images of any origin with their table, brought to one form."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.cohort import (
    Cohort,
    accepted_mask,
    add_paths,
    check_images,
    image_exists,
    image_problems,
    read_generated,
    screening_note,
)
from equigen.errors import InputError, Problem


@dataclass(frozen=True)
class ImageSet:
    """Images with one table row each.

    ``frame`` has the columns ``attr.<name>`` (None is unknown), ``path`` unless ``pixels`` are given, and
    where known ``patient`` and ``sha256``. ``pixels`` is uint8 [N, H, W, 3] in memory. ``levels`` gives the
    order of each attribute's groups; an attribute that is not in it takes its groups in sorted order.
    ``remark`` says in words what was left out.
    """

    frame: pd.DataFrame
    pixels: NDArray[np.uint8] | None = None
    levels: dict[str, list[str]] = field(default_factory=dict)
    remark: str = ""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.frame)

    def take(self, rows: NDArray[np.int64]) -> ImageSet:
        """The images at these positions."""
        pixels = None if self.pixels is None else self.pixels[rows]
        return ImageSet(self.frame.iloc[rows].reset_index(drop=True), pixels, self.levels, self.remark)

    @property
    def attributes(self) -> list[str]:
        """Names of the attributes in the table."""
        return [str(name)[5:] for name in self.frame.columns if str(name).startswith("attr.")]

    @property
    def labels(self) -> list[str]:
        """Names of the labels in the table."""
        return [str(name)[6:] for name in self.frame.columns if str(name).startswith("label.")]

    def patients(self, side: str) -> NDArray[np.str_]:
        """[N] patient of each image; an image without one stands for itself."""
        own = np.array([f"{side} image {index}" for index in range(len(self))], dtype=str)
        if "patient" not in self.frame.columns:
            return own
        known = self.frame["patient"].notna().to_numpy(dtype=bool)
        return np.where(known, np.array([str(name) for name in self.frame["patient"]], dtype=str), own)


Source: TypeAlias = ImageSet | Cohort | pd.DataFrame | str | PathLike[str]


def load_image_set(source: Source, side: str) -> ImageSet:
    """Bring a source to one form and check it before anything expensive.

    Args:
        source: an ``ImageSet``; a cohort; a table with ``path`` and ``attr.*`` columns; or the folder of a
            synthetic set (its ``synthetic.parquet``). Images that screening did not accept (``accepted`` is False) are
            left out of a table and of a set, and the remark counts them.
        side: "real" or "generated", for messages.

    Raises:
        InputError: no image, no path column, files that are not there, each named with its row, or
            files that are not those whose ``sha256`` a table or a set records.

    """
    images = _form(source, side)
    problems = []
    if len(images) == 0:
        problems.append(Problem(f"the {side} side holds no image", "check the filter or the plan"))
    elif images.pixels is None:
        problems += _path_problems(images.frame)
    elif images.pixels.ndim != 4 or images.pixels.dtype != np.uint8 or images.pixels.shape[3] != 3:
        found = f"{images.pixels.dtype} {images.pixels.shape}"
        problems.append(Problem(f"pixels are {found}", "give uint8 [N, H, W, 3]"))
    elif len(images.pixels) != len(images.frame):
        counts = f"{len(images.pixels)} images, {len(images.frame)} table rows"
        problems.append(Problem(counts, "give one row per image"))
    if problems:
        raise InputError(f"The {side} images cannot be evaluated.", problems)
    return images


def _form(source: Source, side: str) -> ImageSet:
    if isinstance(source, ImageSet):
        return source
    if isinstance(source, pd.DataFrame):
        return _recorded(_accepted(source, side), side)
    if isinstance(source, str | PathLike):
        return _synthetic(Path(source), side)
    levels = {name: list(spec.levels) for name, spec in source.attributes.items()}
    return ImageSet(source.frame.reset_index(drop=True), levels=levels)


def _synthetic(folder: Path, side: str) -> ImageSet:
    frame = read_generated(folder, f"The {side} images cannot be read.")
    images = _accepted(add_paths(frame, folder), side)
    check_images(images.frame, folder, f"The {side} images cannot be evaluated.")
    return images


def _recorded(images: ImageSet, side: str) -> ImageSet:
    """The same images; InputError where a file is not the one that the table's column ``sha256`` records."""
    frame = images.frame
    if {"path", "sha256"} <= set(frame.columns):
        here = [isinstance(path, str) and Path(path).is_file() for path in frame["path"]]
        problems = image_problems(frame["path"][here], frame["sha256"][here])
        if problems:
            raise InputError(f"The {side} images cannot be evaluated.", problems)
    return images


def _accepted(frame: pd.DataFrame, side: str) -> ImageSet:
    """A table without the rows that screening refused; not screened (None) counts as accepted."""
    flags, problems = accepted_mask(frame)
    if problems:
        raise InputError(f"The {side} images cannot be read.", problems)
    return ImageSet(frame[flags].reset_index(drop=True), remark=screening_note(flags))


def _path_problems(frame: pd.DataFrame) -> list[Problem]:
    if "path" not in frame.columns:
        return [Problem("the table has no column path", "add it, or give pixels", column="path")]
    return [
        Problem(f"no file '{path}'", "correct the path or leave the row out", row=index + 2, column="path")
        for index, path in enumerate(frame["path"]) if not isinstance(path, str) or not image_exists(Path(path))
    ]


def attribute_levels(real: ImageSet, generated: ImageSet, groups: list[str] | None) -> dict[str, list[str]]:
    """Attributes to compare with the order of their groups; None takes all that both sides have.

    Raises:
        InputError: an attribute that a side does not have, or a level that is not one of the real side.

    """
    names = [name for name in real.attributes if name in generated.attributes] if groups is None else groups
    problems = [
        Problem(f"the {side} images have no attribute '{name}'",
                f"they have: {', '.join(source.attributes) or 'none'}", column=f"attr.{name}")
        for side, source in (("real", real), ("generated", generated))
        for name in names if name not in source.attributes
    ]
    if problems:
        raise InputError("These groups cannot be compared.", problems)
    levels = {name: real.levels.get(name) or sorted(_known(real, name)) for name in names}
    strange = [
        Problem(f"level '{value}' of the {side} images is not listed", f"levels: {', '.join(levels[name])}",
                column=f"attr.{name}")
        for side, source in (("real", real), ("generated", generated))
        for name in names for value in sorted(_known(source, name) - set(levels[name]))
    ]
    if strange:
        raise InputError("The two sides name their groups differently.", strange)
    return levels


def _known(source: ImageSet, name: str) -> set[str]:
    return {str(value) for value in source.frame[f"attr.{name}"].dropna().unique()}


def group_codes(frame: pd.DataFrame, name: str, levels: list[str]) -> NDArray[np.int64]:
    """[N] index of each row's group in ``levels``; -1 where it is unknown."""
    index = {level: code for code, level in enumerate(levels)}
    values = frame[f"attr.{name}"]
    known = values.notna().to_numpy(dtype=bool)
    return np.array([index.get(str(value), -1) if is_known else -1
                     for value, is_known in zip(values, known, strict=True)], dtype=np.int64)
