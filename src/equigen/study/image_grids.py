"""Images for the report: held-out real ones and each generator's, group by group on the same rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.cohort import Cohort, load_images
from equigen.report import Grid
from equigen.seeds import numpy_generator

COLUMNS = 5  # images a group and source


def grids(real: Cohort, generated: Mapping[str, pd.DataFrame], size: int, seed: int = 0) -> list[Grid]:
    """One grid for each attribute and for the first label: a row a level, images drawn at random from each source.

    ``generated``: generator name -> table with ``path``, ``attr.*``, ``label.*``. Images are drawn once from (seed,
    column, level), not chosen.
    """
    columns = [(f"attr.{name}", name, list(spec.levels)) for name, spec in real.attributes.items()]
    columns += [(f"label.{name}", name, list(spec.levels)) for name, spec in list(real.labels.items())[:1]]
    made = []
    for column, name, levels in columns:
        sources = {"real": real.frame, **generated}
        drawn = {
            source: [_draw(frame, column, level, size, seed) for level in levels]
            for source, frame in sources.items()
        }
        filled = {
            source: np.stack([_fill(images, size) for images in rows]) for source, rows in drawn.items()
        }
        caption = "Drawn at random, not chosen. Real images are held-out test images."
        short = [
            level
            for index, level in enumerate(levels)
            if any(len(rows[index]) < COLUMNS for rows in drawn.values())
        ]
        if short:
            caption += (
                f" Fewer than {COLUMNS} images exist in some source of: {', '.join(short)} (grey tiles)."
            )
        made.append(Grid(name, levels, filled.pop("real"), filled, caption))
    return made


def _draw(frame: pd.DataFrame, column: str, level: str, size: int, seed: int) -> NDArray[np.uint8]:
    """Up to COLUMNS images of one level."""
    has = np.array(
        [isinstance(value, str) and (value == level or level in value.split("|")) for value in frame[column]],
        dtype=bool,
    )
    rows = np.flatnonzero(has)
    rows = numpy_generator(seed, f"grid/{column}/{level}").permutation(rows)[:COLUMNS]
    if not len(rows):
        return np.zeros((0, size, size, 3), dtype=np.uint8)
    return load_images([frame["path"].iloc[row] for row in rows], size)


def _fill(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """[COLUMNS, size, size, 3]: missing images as plain grey tiles."""
    grey = np.full((COLUMNS - len(images), size, size, 3), 235, dtype=np.uint8)
    return np.concatenate([images, grey])
