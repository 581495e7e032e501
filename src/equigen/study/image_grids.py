"""Grids of images for the report: real test images and those of each generator, a row for each group."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.cohort import Cohort, load_images
from equigen.report import Grid
from equigen.seeds import numpy_generator

COLUMNS = 5  # images of a group and source
GREY = 235  # of tiles without an image


def image_grids(real: Cohort, generated: Mapping[str, pd.DataFrame], size: int, seed: int = 0) -> list[Grid]:
    """Return a grid for each attribute and for the first label: a row for each level, random images of each source.

    ``generated``: generator name -> table with ``path``, ``attr.*``, ``label.*``. The images depend on (seed, column,
    level) alone.
    """
    columns = [(f"attr.{name}", name, list(spec.levels)) for name, spec in real.attributes.items()]
    columns += [(f"label.{name}", name, list(spec.levels)) for name, spec in list(real.labels.items())[:1]]
    grids = []
    for column, name, levels in columns:
        sources = {"real": real.frame, **generated}
        samples = {
            source: [_random_images(frame, column, level, size, seed) for level in levels]
            for source, frame in sources.items()
        }
        tiles = {source: np.stack([_pad(images, size) for images in rows]) for source, rows in samples.items()}
        caption = "Drawn at random, not chosen. Real images are held-out test images."
        short = [
            level for index, level in enumerate(levels) if any(len(rows[index]) < COLUMNS for rows in samples.values())
        ]
        if short:
            caption += f" Fewer than {COLUMNS} images exist in some source of: {', '.join(short)} (grey tiles)."
        grids.append(Grid(name, levels, tiles.pop("real"), tiles, caption))
    return grids


def _random_images(frame: pd.DataFrame, column: str, level: str, size: int, seed: int) -> NDArray[np.uint8]:
    """Return up to COLUMNS images of one level, [n, size, size, 3]."""
    mask = np.array(
        [isinstance(value, str) and (value == level or level in value.split("|")) for value in frame[column]],
        dtype=bool,
    )
    rows = np.flatnonzero(mask)
    rows = numpy_generator(seed, f"grid/{column}/{level}").permutation(rows)[:COLUMNS]
    if not len(rows):
        return np.zeros((0, size, size, 3), dtype=np.uint8)
    return load_images([frame["path"].iloc[row] for row in rows], size)


def _pad(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return [COLUMNS, size, size, 3] images, with grey tiles for those that are missing."""
    return np.concatenate([images, np.full((COLUMNS - len(images), size, size, 3), GREY, dtype=np.uint8)])
