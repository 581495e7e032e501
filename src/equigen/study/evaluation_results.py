"""Results for a report: the tables of an evaluation, images of the closest pairs, and grids of images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.cohort import Cohort, image_exists, load_images
from equigen.parquet import read_parquet, write_parquet
from equigen.quality import Evaluation
from equigen.report import ClosePairs, Grid, pair_caption, write_report
from equigen.seeds import numpy_generator

MAX_PAIRS = 12  # of a run, in a report
FILES = {"table": "quality.parquet", "differences": "comparison.parquet", "copies": "copies.parquet",
         "copy_power": "copy_power.parquet"}  # fmt: skip


def write_tables(result: Evaluation, folder: Path) -> list[Path]:
    """Write quality.parquet, and comparison, copies and copy_power.parquet unless empty; return their paths."""
    paths = []
    for name, file in FILES.items():
        table = getattr(result, name)
        if name == "table" or len(table):
            write_parquet(folder / file, table)
            paths.append(folder / file)
        else:
            (folder / file).unlink(missing_ok=True)  # of an earlier run with other inputs
    return paths


def read_tables(folder: Path) -> Evaluation:
    """Read what ``write_tables`` wrote; a table without a file is empty."""
    paths = {name: folder / file for name, file in FILES.items()}
    tables = {name: read_parquet(path) if path.is_file() else pd.DataFrame() for name, path in paths.items()}
    return Evaluation(**tables)


def close_pairs(copies: pd.DataFrame, size: int) -> Iterator[ClosePairs]:
    """Yield the images of the closest pairs (generated, training) of each run, where both can be opened.

    ``copies``: run, rank, generated, training (paths), distance, ratio, near_copy, view, attr.*.
    """
    if not len(copies):
        return
    for run, table in copies.groupby("run", sort=False):
        pairs = zip(table["generated"], table["training"], strict=True)
        mask = [image_exists(Path(a)) and image_exists(Path(b)) for a, b in pairs]
        rows = table[mask].sort_values("rank").head(MAX_PAIRS)
        if len(rows):
            images = (_images(rows["generated"], size), _images(rows["training"], size))
            yield ClosePairs(str(run), *images, [pair_caption(row) for _, row in rows.iterrows()])


def copy_table(copies: pd.DataFrame) -> pd.DataFrame:
    """Return the table with file names relative to the common folder of a run's images."""
    table = copies.copy()
    for column in ("generated", "training"):
        for _, rows in copies.groupby("run", sort=False):
            paths = [Path(path) for path in rows[column]]
            if all(path.is_absolute() for path in paths):
                root = os.path.commonpath([path.parent for path in paths])
                table.loc[rows.index, column] = [path.relative_to(root).as_posix() for path in paths]
    return table


def report_tables(result: Evaluation, size: int) -> dict[str, Any]:
    """Return an evaluation as arguments of ``write_report``: tables, and the closest pairs at ``size`` pixels."""
    return {
        "quality": result.quality,
        "differences": result.differences if len(result.differences) else None,
        "copies": list(close_pairs(result.copies, size)),
        "copies_table": copy_table(result.copies) if len(result.copies) else None,
        "copy_power": result.copy_power if len(result.copy_power) else None,
    }


def _images(paths: pd.Series, size: int) -> NDArray[np.uint8]:
    return load_images([Path(path) for path in paths], size)


def write_evaluation(
    result: Evaluation, out: Path, *, title: str, size: int, blind: bool = False, names: bool | None = None
) -> Path:
    """Write the tables to ``out`` and a report of them to ``out/report``; return the path of its page."""
    write_tables(result, out)
    runs = dict.fromkeys(result.quality["run"])
    return write_report(
        out / "report",
        title=title,
        summary_facts={"Generated sets": ", ".join(map(str, runs))},
        counts=None,
        fairness=None,
        **report_tables(result, size),
        blind=blind,
        names=names,
    )


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
