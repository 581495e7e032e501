"""Read the table of a set of generated images; its paths and flags are checked before they are used."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.cohort.images.tar_shards import leads_out
from equigen.cohort.tables.values import means_unknown, unknown_words
from equigen.errors import InputError, Problem
from equigen.files import hash_file, read_json
from equigen.parquet import read_parquet

GENERATED_TABLE = "synthetic.parquet"
STAMP = "stage.json"  # of a stage of a study
HEADER = 2  # the number of the first row of a table, as spreadsheets count
SHA256 = re.compile("[0-9a-f]{64}")
PATHS = ("image", "first_image")
REPAIR = (
    "run the command that made the set again (generate; screen for images below screening/; a study with --verify): "
    "it makes them anew"
)
YES, NO = frozenset({"true", "t", "yes", "y", "1", "1.0"}), frozenset({"false", "f", "no", "n", "0", "0.0"})


def read_generated(folder: Path, title: str) -> pd.DataFrame:
    """Read the table of the set in ``folder``, with every path below the folder and ``accepted`` True or False.

    A path that leads out of the folder is refused: an absolute one, one with ``..``, or one through a link. The images
    are not read (see ``check_images``).

    Args:
        folder: folder of the set.
        title: title of the error, which says what cannot be done without the table.

    Raises:
        InputError: there is no table, it cannot be read, it has no column ``image``, a path is empty or leads out of
            the folder, or a cell of ``accepted`` is neither yes nor no; every row at fault is named.

    """
    file = folder / GENERATED_TABLE
    if not file.is_file():
        problem = Problem(f"there is no {GENERATED_TABLE}", "give the folder that generate wrote", file=str(folder))
        raise InputError(title, [problem])
    frame = read_parquet(file, title=title).reset_index(drop=True)
    if "image" not in frame:
        mend = "give the path of each row's image, relative to the folder"
        raise InputError(title, [Problem("is missing", mend, column="image", file=str(file))])
    problems = [problem for name in PATHS if name in frame for problem in _path_problems(frame[name], folder, file)]
    flags, flag_problems = accepted_mask(frame, str(file))
    if problems or flag_problems:
        raise InputError(title, [*problems, *flag_problems])
    if "sha256" in frame:
        try:  # the hashes of images that the user edited and accepted in a study are not the table's
            stamp = folder / STAMP
            edited = list(read_json(stamp).get("accepted", [])) if stamp.is_file() else []
        except (ValueError, AttributeError, TypeError):  # a damaged stamp, which the study reports
            edited = []
        frame = frame.assign(sha256=frame["sha256"].where(~frame["image"].isin(edited), None))
    return frame.assign(accepted=flags) if "accepted" in frame else frame


def add_paths(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Return the table with a column ``path``, the path of each image in ``folder``."""
    return frame.assign(path=pd.Series([str(folder / name) for name in frame["image"]], frame.index, dtype=object))


def image_problems(paths: Iterable[Any], hashes: Iterable[Any], file: str | None = None) -> list[Problem]:
    """Return one problem for the missing images, and one for those whose SHA-256 is not the recorded one.

    Args:
        paths: paths of the images.
        hashes: recorded SHA-256 of each image; an image without one is not checked.
        file: file that the problems name.

    """
    missing, changed = list[str](), list[str]()
    for path, recorded in zip(paths, hashes, strict=True):
        if not isinstance(recorded, str) or not SHA256.fullmatch(recorded):
            continue
        if not Path(path).is_file():
            missing.append(str(path))
        elif hash_file(path) != recorded:
            changed.append(str(path))
    cases = ((missing, "missing"), (changed, "not the ones that were generated: their SHA-256 has changed"))
    return [
        Problem(f"{len(names)} images are {fault}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}",
                REPAIR, column="sha256", file=file)
        for names, fault in cases if names
    ]  # fmt: skip


def check_images(frame: pd.DataFrame, folder: Path, title: str) -> None:
    """Hash the images of a set; raises InputError naming those that are missing or changed.

    A table without the column ``sha256`` (of another program or an earlier version) is not checked.
    """
    if "sha256" in frame:
        paths = [folder / name for name in frame["image"]]
        problems = image_problems(paths, frame["sha256"], str(folder / GENERATED_TABLE))
        if problems:
            raise InputError(title, problems)


def accepted_mask(frame: pd.DataFrame, file: str | None = None) -> tuple[NDArray[np.bool_], list[Problem]]:
    """Return [N] whether each image is accepted, and a problem for each cell of ``accepted`` that is not yes or no.

    True, 1, "True" or "yes" and their opposites count, in any column type. An empty cell, or a table without the
    column, is of an image that was never screened, which is accepted.
    """
    flags, problems = np.ones(len(frame), dtype=np.bool_), []
    if "accepted" not in frame:
        return flags, []
    missing = unknown_words()
    for row, cell in enumerate(frame["accepted"]):
        text = "" if cell is None or cell is pd.NA else str(cell).strip().casefold()
        if text in NO:
            flags[row] = False
        elif text not in YES and not means_unknown(text, missing):
            message = f"'{cell}' is neither yes nor no"
            problems.append(Problem(message, "write True or False", row=row + HEADER, column="accepted", file=file))
    return flags, problems


def screening_note(flags: NDArray[np.bool_]) -> str:
    """Return a sentence with the number of images that screening refused; "" for none."""
    count = len(flags) - int(np.sum(flags))
    return f"{count} of {len(flags)} images were refused by screening and are left out" if count else ""


def _path_problems(names: pd.Series, folder: Path, file: Path) -> list[Problem]:
    """Return a problem for each cell that is empty or leads out of the folder."""
    root, parents = os.path.realpath(folder), dict[str, str]()
    problems = []
    for row, name in enumerate(names):
        fault = _path_fault(name, folder, root, parents)
        if fault is not None:
            problems.append(Problem(*fault, row=row + HEADER, column=str(names.name), file=str(file)))
    return problems


def _path_fault(name: Any, folder: Path, root: str, parents: dict[str, str]) -> tuple[str, str] | None:
    """Return (message, mend) of one cell; ``parents`` caches the resolved folders."""
    if not isinstance(name, str) or not name.strip():
        return "the cell names no image", "give its path relative to the folder, or leave the row out"
    if leads_out(name):
        return f"the path '{name}' leads out of the set's folder", "give paths below the folder, without '..'"
    path = os.path.join(folder, name)  # noqa: PTH118 (a Path per row doubles the time)
    parent = os.path.dirname(path)  # noqa: PTH120
    if parent not in parents:
        parents[parent] = os.path.realpath(parent)
    real = os.path.realpath(path) if os.path.islink(path) else parents[parent]  # noqa: PTH114
    if os.path.commonpath([real, root]) != root:
        return f"'{name}' is a link that leads out of the set's folder", "copy the file below the folder"
    return None
