"""Sets of images to evaluate, loaded from cohorts, tables, folders or memory."""

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
    ``remark`` tells what was left out.
    """

    frame: pd.DataFrame
    pixels: NDArray[np.uint8] | None = None
    levels: dict[str, list[str]] = field(default_factory=dict)
    remark: str = ""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.frame)

    def take(self, rows: NDArray[np.int64]) -> ImageSet:
        """Images at these positions."""
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

    def patients(self, name: str) -> NDArray[np.str_]:
        """[N] patient of each image; one without a patient gets one of its own, after the ``name`` of the set."""
        images = np.array([f"{name} image {index}" for index in range(len(self))], dtype=str)
        if "patient" not in self.frame.columns:
            return images
        valid = self.frame["patient"].notna().to_numpy(dtype=bool)
        return np.where(valid, np.array([str(patient) for patient in self.frame["patient"]], dtype=str), images)


Source: TypeAlias = ImageSet | Cohort | pd.DataFrame | str | PathLike[str]


def load_image_set(source: Source, name: str) -> ImageSet:
    """Load the images of a source and check them.

    Args:
        source: an ``ImageSet``; a cohort; a table with ``path`` and ``attr.*`` columns; or the folder of a
            synthetic set (its ``synthetic.parquet``). Images that screening did not accept (``accepted`` is False) are
            left out of a table and of a set, and the remark counts them.
        name: "real", "generated" or the name of the set, for messages.

    Raises:
        InputError: no image, no path column, files that are not there, each named with its row, or
            files that are not those whose ``sha256`` a table or a set records.

    """
    images = _read_source(source, name)
    problems: list[Problem] = []
    if len(images) == 0:
        problems.append(Problem(f"the {name} side holds no image", "check the filter or the plan"))
    elif images.pixels is None:
        if "path" not in images.frame.columns:
            problems.append(Problem("the table has no column path", "add it, or give pixels", column="path"))
        else:
            problems += [
                Problem(f"no file '{path}'", "correct the path or leave the row out", row=index + 2, column="path")
                for index, path in enumerate(images.frame["path"])
                if not isinstance(path, str) or not image_exists(Path(path))
            ]
    elif images.pixels.ndim != 4 or images.pixels.dtype != np.uint8 or images.pixels.shape[3] != 3:
        message = f"pixels are {images.pixels.dtype} {images.pixels.shape}"
        problems.append(Problem(message, "give uint8 [N, H, W, 3]"))
    elif len(images.pixels) != len(images.frame):
        counts = f"{len(images.pixels)} images, {len(images.frame)} table rows"
        problems.append(Problem(counts, "give one row per image"))
    if problems:
        raise InputError(f"The {name} images cannot be evaluated.", problems)
    return images


def _read_source(source: Source, name: str) -> ImageSet:
    """Read the table of a source; InputError where a file is not the one that the column ``sha256`` records."""
    if isinstance(source, ImageSet):
        return source
    title = f"The {name} images cannot be evaluated."
    if isinstance(source, pd.DataFrame):
        images = _accepted_images(source, name)
        frame = images.frame
        if {"path", "sha256"} <= set(frame.columns):
            mask = [isinstance(path, str) and Path(path).is_file() for path in frame["path"]]
            problems = image_problems(frame["path"][mask], frame["sha256"][mask])
            if problems:
                raise InputError(title, problems)
        return images
    if isinstance(source, str | PathLike):
        folder = Path(source)
        frame = read_generated(folder, f"The {name} images cannot be read.")
        images = _accepted_images(add_paths(frame, folder), name)
        check_images(images.frame, folder, title)
        return images
    levels = {attribute: list(spec.levels) for attribute, spec in source.attributes.items()}
    return ImageSet(source.frame.reset_index(drop=True), levels=levels)


def _accepted_images(frame: pd.DataFrame, name: str) -> ImageSet:
    """Rows of a table except those that screening rejected; rows not screened (None) count as accepted."""
    mask, problems = accepted_mask(frame)
    if problems:
        raise InputError(f"The {name} images cannot be read.", problems)
    return ImageSet(frame[mask].reset_index(drop=True), remark=screening_note(mask))


def attribute_levels(real: ImageSet, generated: ImageSet, groups: list[str] | None) -> dict[str, list[str]]:
    """Levels, in order, of the attributes to compare; None takes the attributes that both sets have.

    Raises:
        InputError: an attribute that a set does not have, or a level that is not one of the real images.

    """
    names = [name for name in real.attributes if name in generated.attributes] if groups is None else groups
    sets = {"real": real, "generated": generated}
    problems = [
        Problem(
            f"the {title} images have no attribute '{name}'",
            f"they have: {', '.join(images.attributes) or 'none'}",
            column=f"attr.{name}",
        )
        for title, images in sets.items()
        for name in names
        if name not in images.attributes
    ]
    if problems:
        raise InputError("These groups cannot be compared.", problems)
    levels = {name: real.levels.get(name) or sorted(_present_levels(real, name)) for name in names}
    problems = [
        Problem(
            f"level '{value}' of the {title} images is not listed",
            f"levels: {', '.join(levels[name])}",
            column=f"attr.{name}",
        )
        for title, images in sets.items()
        for name in names
        for value in sorted(_present_levels(images, name) - set(levels[name]))
    ]
    if problems:
        raise InputError("The two sides name their groups differently.", problems)
    return levels


def _present_levels(images: ImageSet, name: str) -> set[str]:
    return {str(value) for value in images.frame[f"attr.{name}"].dropna().unique()}


def group_codes(frame: pd.DataFrame, name: str, levels: list[str]) -> NDArray[np.int64]:
    """[N] index of each row's group in ``levels``; -1 where it is unknown."""
    index = {level: code for code, level in enumerate(levels)}
    values = frame[f"attr.{name}"]
    return np.array(
        [index.get(str(value), -1) if valid else -1 for value, valid in zip(values, values.notna(), strict=True)],
        dtype=np.int64,
    )
