"""The table of a set of generated images, which may come from anybody: what it names is checked before it is used."""

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
from equigen.cohort.tables.unknown_words import means_unknown, unknown_words
from equigen.errors import InputError, Problem
from equigen.files import hash_file, read_json, read_parquet

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
    """The table of the set in ``folder``, every path in it below the folder and ``accepted`` True or False.

    The table says which files are read, so a path that leads out of the folder is refused: an absolute one, one with
    ``..``, or one through a link. The images themselves are not looked at (``check_images``).

    Args:
        folder: of the set.
        title: of the error, what cannot be done without the table.

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
    flags, strange = accepted_flags(frame, str(file))
    if problems or strange:
        raise InputError(title, [*problems, *strange])
    if "sha256" in frame:
        frame = frame.assign(sha256=frame["sha256"].where(~frame["image"].isin(_edited(folder)), None))
    return frame.assign(accepted=flags) if "accepted" in frame else frame


def _edited(folder: Path) -> list[str]:
    """Files of a set in a study's run folder that its user edited and accepts: the table's hashes are not theirs."""
    stamp = folder / STAMP
    try:
        return list(read_json(stamp).get("accepted", [])) if stamp.is_file() else []
    except (ValueError, AttributeError, TypeError):  # damaged, which the study tells
        return []


def add_paths(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The table with ``path``, where each image lies now."""
    return frame.assign(path=pd.Series([str(folder / name) for name in frame["image"]], frame.index, dtype=object))


def image_problems(paths: Iterable[Any], hashes: Iterable[Any], file: str | None = None) -> list[Problem]:
    """A problem for the images that are missing, and one for those whose SHA-256 is not the recorded one.

    Args:
        paths: of the images.
        hashes: the recorded SHA-256 of each; an image whose cell is none is not looked at.
        file: that the problems are of.

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
    """Hash the images of a set's rows; InputError that names those that are missing or not the recorded ones.

    A table without the column ``sha256``, of another program or an earlier version, is taken as it is.
    """
    if "sha256" in frame:
        paths = [folder / name for name in frame["image"]]
        problems = image_problems(paths, frame["sha256"], str(folder / GENERATED_TABLE))
        if problems:
            raise InputError(title, problems)


def accepted_flags(frame: pd.DataFrame, file: str | None = None) -> tuple[NDArray[np.bool_], list[Problem]]:
    """[N] whether each row's image is accepted, and a problem for each cell of ``accepted`` that says neither.

    True, 1, "True" or "yes" and their opposites count, in any column type. An empty cell, or a table without the
    column, is of an image that was never screened, which is accepted.
    """
    flags, problems = np.ones(len(frame), dtype=np.bool_), []
    if "accepted" not in frame:
        return flags, []
    words = unknown_words()
    for row, cell in enumerate(frame["accepted"]):
        text = "" if cell is None or cell is pd.NA else str(cell).strip().casefold()
        if text in NO:
            flags[row] = False
        elif text not in YES and not means_unknown(text, words):
            message = f"'{cell}' is neither yes nor no"
            problems.append(Problem(message, "write True or False", row=row + HEADER, column="accepted", file=file))
    return flags, problems


def screening_note(flags: NDArray[np.bool_]) -> str:
    """How many of the images are left out because screening refused them, in words; "" for none."""
    count = len(flags) - int(np.sum(flags))
    return f"{count} of {len(flags)} images were refused by screening and are left out" if count else ""


def _path_problems(names: pd.Series, folder: Path, file: Path) -> list[Problem]:
    root, parents = os.path.realpath(folder), dict[str, str]()
    problems = []
    for row, name in enumerate(names):
        fault = _fault(name, folder, root, parents)
        if fault is not None:
            problems.append(Problem(*fault, row=row + HEADER, column=str(names.name), file=str(file)))
    return problems


def _fault(name: Any, folder: Path, root: str, parents: dict[str, str]) -> tuple[str, str] | None:
    """(message, mend) of one cell; ``parents`` remembers where folders really are."""
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
