"""What an evaluation leaves behind: its tables, the closest pairs as pictures, and a report of them alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.cohort import image_exists, load_images
from equigen.files import read_parquet, write_parquet
from equigen.quality import Evaluation
from equigen.report import ClosePairs, pair_caption, write_report

SHOWN = 12   # closest pairs of a run in a report
TABLES = ("quality", "comparison", "copies", "copy_power")


def write_tables(result: Evaluation, folder: Path) -> list[Path]:
    """Write quality.parquet, and comparison, copies and copy_power.parquet where they are not empty; their paths."""
    paths = []
    for name in TABLES:
        table = getattr(result, name)
        if name == "quality" or len(table):
            write_parquet(folder / f"{name}.parquet", table)
            paths.append(folder / f"{name}.parquet")
        else:
            (folder / f"{name}.parquet").unlink(missing_ok=True)  # of an earlier run with other inputs
    return paths


def read_tables(folder: Path) -> Evaluation:
    """What ``write_tables`` wrote; a table that is not there is empty."""
    found = {name: folder / f"{name}.parquet" for name in TABLES}
    return Evaluation(*(read_parquet(path) if path.is_file() else pd.DataFrame() for path in found.values()))


def close_pairs(copies: pd.DataFrame, size: int) -> Iterator[ClosePairs]:
    """The closest generated and training images of each run as pictures, where both can be opened.

    ``copies``: run, rank, generated, training (paths), distance, ratio, near_copy, view, attr.*.
    """
    if not len(copies):
        return
    for run, own in copies.groupby("run", sort=False):
        pairs = zip(own["generated"], own["training"], strict=True)
        rows = own[[image_exists(Path(a)) and image_exists(Path(b)) for a, b in pairs]].sort_values("rank").head(SHOWN)
        if len(rows):
            sides = (_images(rows["generated"], size), _images(rows["training"], size))
            yield ClosePairs(str(run), *sides, [pair_caption(row) for _, row in rows.iterrows()])


def named_copies(copies: pd.DataFrame) -> pd.DataFrame:
    """The table for a report: file names below the folder that a run's images share, not where that lies."""
    shown = copies.copy()
    for column in ("generated", "training"):
        for _, rows in copies.groupby("run", sort=False):
            paths = [Path(path) for path in rows[column]]
            if all(path.is_absolute() for path in paths):
                root = os.path.commonpath([path.parent for path in paths])
                shown.loc[rows.index, column] = [path.relative_to(root).as_posix() for path in paths]
    return shown


def for_report(result: Evaluation, size: int) -> dict[str, Any]:
    """What ``write_report`` takes of an evaluation: its tables, and the closest pairs at ``size`` pixels."""
    return {
        "quality": result.quality,
        "differences": result.differences if len(result.differences) else None,
        "copies": list(close_pairs(result.copies, size)),
        "copies_table": named_copies(result.copies) if len(result.copies) else None,
        "copy_power": result.copy_power if len(result.copy_power) else None,
    }


def _images(paths: pd.Series, size: int) -> NDArray[np.uint8]:
    return load_images([Path(path) for path in paths], size)


def write_evaluation(
    result: Evaluation, out: Path, *, title: str, size: int, blind: bool = False, names: bool | None = None
) -> Path:
    """The tables in ``out`` and a report of them alone in ``out/report``; the path of its page."""
    write_tables(result, out)
    runs = dict.fromkeys(result.quality["run"])
    return write_report(
        out / "report",
        title=title,
        summary_facts={"Generated sets": ", ".join(map(str, runs))},
        counts=None,
        fairness=None,
        **for_report(result, size),
        blind=blind,
        names=names,
    )
