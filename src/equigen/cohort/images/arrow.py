"""Read the table and the images of a folder that ``datasets.Dataset.save_to_disk`` wrote.

The folder is read from the disk only: nothing is downloaded, and nothing in it is unpickled.
"""

from __future__ import annotations

import io
import json
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from equigen.cohort.images.faults import ImageFault
from equigen.errors import InputError, Problem

STATE, SPLITS_OF = "state.json", "dataset_dict.json"


def is_dataset(folder: Path) -> bool:
    """Whether a folder was written by ``save_to_disk``: one dataset, or a dictionary of splits."""
    return (folder / STATE).is_file() or (folder / SPLITS_OF).is_file()


def open_dataset(folder: Path) -> Any:
    """Return the dataset in a folder, memory-mapped, with images as stored bytes; cached until it changes.

    Raises InputError when it is damaged, holds several splits, or ``datasets`` is not installed.
    """
    if not (folder / STATE).is_file():
        splits = ", ".join(sorted(item.parent.name for item in folder.glob(f"*/{STATE}")))
        raise _dataset_error(folder, "holds several splits", f"name the folder of one: {splits}")
    return _open_cached(folder, (folder / STATE).stat().st_mtime_ns)


def _dataset_error(folder: Path, message: str, mend: str) -> InputError:
    return InputError("The dataset cannot be read.", [Problem(message, mend, file=str(folder))])


@lru_cache(maxsize=8)
def _open_cached(folder: Path, mtime: int) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise _dataset_error(folder, "needs the library 'datasets'", "install equigen[datasets]") from error
    try:
        names = [item["filename"] for item in json.loads((folder / STATE).read_text())["_data_files"]]
        if any(Path(name).name != name for name in names):
            raise _dataset_error(folder, "names Arrow files outside itself", "save the dataset again")
        dataset = datasets.load_from_disk(str(folder), keep_in_memory=False).with_format(None)
    except (OSError, ValueError, KeyError, TypeError) as error:  # pyarrow's errors are ValueErrors or OSErrors
        raise _dataset_error(folder, f"is no whole dataset ({error})", "save it again with save_to_disk") from error
    for name in image_columns(dataset):
        dataset = dataset.cast_column(name, datasets.Image(decode=False))
    return dataset


def image_columns(dataset: Any) -> list[str]:
    """Return the names of the columns that hold images."""
    return [name for name, feature in dataset.features.items() if type(feature).__name__ == "Image"]


def dataset_table(folder: Path) -> pd.DataFrame:
    """Return the scalar columns of a dataset as a frame, with class names instead of numbers, and its images' paths.

    An image column holds ``<column>/<row>``, or None where there is no image. Columns of lists and arrays are left
    out.
    """
    dataset = open_dataset(folder)
    kinds = {name: type(feature).__name__ for name, feature in dataset.features.items()}
    frame = dataset.select_columns([name for name in kinds if kinds[name] in {"Value", "ClassLabel"}]).to_pandas()
    for name in (name for name, kind in kinds.items() if kind == "ClassLabel"):
        frame[name] = frame[name].map(dict(enumerate(dataset.features[name].names)))
    for name in image_columns(dataset):
        present = dataset.data.column(name).is_valid().to_pylist()
        frame[name] = [f"{name}/{row}" if valid else None for row, valid in enumerate(present)]
    return frame  # type: ignore[no-any-return]


def open_row(folder: Path, column: str, row: int) -> BinaryIO:
    """Return the image of one row as an open file; raises ``ImageFault`` when the dataset does not hold it."""
    dataset = open_dataset(folder)
    if column not in image_columns(dataset) or row >= len(dataset):
        raise ImageFault("is not in the dataset", "run the cohort stage again")
    cell = dataset[row][column]
    if cell is None or cell["bytes"] is None:
        raise ImageFault("is not held in the dataset itself", "save the dataset again with its images' bytes in it")
    return io.BytesIO(cell["bytes"])
