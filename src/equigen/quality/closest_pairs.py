"""Table of the generated images that are most like copies of a training image."""

from __future__ import annotations

import pandas as pd

from equigen.quality.metrics.memorisation import NearestTraining, closest_pairs

COPIES_COLUMNS = [
    "run",
    "rank",
    "generated",
    "training",
    "distance",
    "ratio",
    "near_copy",
    "view",
    "thumbnail_distance",
]
PAIR_COUNT = 24


def copies_table(
    run: str,
    closest: NearestTraining | None,
    generated: pd.DataFrame | None,
    training: pd.DataFrame | None,
    attributes: list[str],
) -> pd.DataFrame:
    """Table of the 24 closest pairs of one set, closest first, with ``attributes``; empty without ``closest``.

    ``view`` says by which view a pair is a near copy: features, thumbnails or both. ``thumbnail_distance`` is that of
    the generated image to its nearest training thumbnail, the pair's image where that view alone calls it a near copy.
    ``generated`` and ``training`` in the table are paths, or "row 17" (counted from 1) of images in memory.
    """
    names = [f"attr.{name}" for name in attributes]
    rows = []
    if closest is not None and generated is not None and training is not None:
        for rank, index in enumerate(closest_pairs(closest, PAIR_COUNT), start=1):
            nearest = int(closest.training[index])
            rows.append(
                {
                    "run": run,
                    "rank": rank,
                    "generated": _image_name(generated, int(index)),
                    "training": _image_name(training, nearest),
                    "distance": float(closest.distance[index]),
                    "ratio": float(closest.ratio[index]),
                    "near_copy": bool(closest.near_copy[index]),
                    "view": str(closest.view[index]),
                    "thumbnail_distance": None
                    if closest.thumbnail_distance is None
                    else float(closest.thumbnail_distance[index]),
                    **{name: generated[name].iloc[index] if name in generated else None for name in names},
                }
            )
    return pd.DataFrame(rows, columns=[*COPIES_COLUMNS, *names])


def _image_name(frame: pd.DataFrame, row: int) -> str:
    """Path of an image, or the number of its row where images are in memory."""
    return str(frame["path"].iloc[row]) if "path" in frame.columns else f"row {int(frame.index[row]) + 1}"
