"""The pairs of generated and training images that are most alike, as a table for people to look at."""

from __future__ import annotations

import pandas as pd

from equigen.quality.metrics.memorisation import NearestTraining, closest_pairs

COPIES_COLUMNS = [
    "run", "rank", "generated", "training", "distance", "ratio", "near_copy", "view", "thumbnail_distance",
]
PAIR_COUNT = 24


def copies_table(
    run: str, closest: NearestTraining | None, generated: pd.DataFrame | None, training: pd.DataFrame | None,
    attributes: list[str],
) -> pd.DataFrame:
    """The 24 closest pairs of one set, closest first, with the attributes asked for; empty without ``closest``.

    ``view`` says by which view a pair is a near copy: features, thumbnails or both. ``thumbnail_distance`` is that of
    the generated image to its nearest training thumbnail, the pair's image where that view alone calls it a near copy.
    ``generated`` and ``training`` in the table are paths, or "row 17" (counted from 1) of images in memory.
    """
    names = [f"attr.{name}" for name in attributes]
    rows = []
    if closest is not None and generated is not None and training is not None:
        for rank, index in enumerate(closest_pairs(closest, PAIR_COUNT), start=1):
            nearest = int(closest.training[index])
            rows.append({
                "run": run, "rank": rank, "generated": _place(generated, int(index)),
                "training": _place(training, nearest), "distance": float(closest.distance[index]),
                "ratio": float(closest.ratio[index]), "near_copy": bool(closest.near_copy[index]),
                "view": str(closest.view[index]),
                "thumbnail_distance": None if closest.thumbnail_distance is None
                else float(closest.thumbnail_distance[index]),
                **{name: generated[name].iloc[index] if name in generated else None for name in names},
            })
    return pd.DataFrame(rows, columns=[*COPIES_COLUMNS, *names])


def _place(frame: pd.DataFrame, row: int) -> str:
    return str(frame["path"].iloc[row]) if "path" in frame.columns else f"row {int(frame.index[row]) + 1}"
