"""What is checked before training: whole images, no patient and no image on two sides of a split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.cohort.images.faults import ImageFault
from equigen.cohort.images.reader import decode_values
from equigen.cohort.images.sources import file_state, open_fault, open_image, reading_order
from equigen.errors import Problem
from equigen.progress import progress_bar

BLOCK = 4096  # images that wait for a thread at a time
DIM = 16  # levels of 255: 12 bits in a 16-bit file reach no further


@dataclass(frozen=True)
class Checked:
    """SHA-256 of an image's file or member ("" = unreadable), and its fault where it has one."""

    sha256: str
    fault: ImageFault | None = None
    dim: tuple[str, int | None] | None = None  # "nearly black" or "nearly constant", and the file's greatest value


_seen: dict[tuple[str, int, int, bool], Checked] = {}  # (path, bytes, mtime, decoded) of this process


def check_image(path: str, decoded: bool = True) -> Checked:
    """Hash one image, and decode it in full unless told not to; an unchanged file is not read again."""
    file = Path(path)
    try:
        key = (path, *file_state(file), decoded)
        if key not in _seen:
            _seen[key] = _check(file, decoded)
        return _seen[key]
    except OSError as error:
        return Checked("", open_fault(error))


def _check(file: Path, decoded: bool) -> Checked:
    try:
        with open_image(file) as handle:
            sha256 = hashlib.file_digest(handle, "sha256").hexdigest()  # type: ignore[arg-type, unused-ignore]
    except ImageFault as fault:
        return Checked("", fault.with_traceback(None))
    try:
        found = decode_values(file) if decoded else None
    except ImageFault as fault:
        return Checked(sha256, fault.with_traceback(None))
    dim = _dimness(found.pixels) if found is not None else ""
    return Checked(sha256, None, (dim, found.top) if dim and found is not None else None)


def _dimness(pixels: NDArray[np.uint8]) -> str:
    """The word for an image of which 98 % of the pixels show nothing: "nearly black" or "nearly constant", else ""."""
    step = max(1, int((pixels.shape[0] * pixels.shape[1] / 65_536) ** 0.5))
    part = pixels[::step, ::step]
    shares = [np.cumsum(np.bincount(part[:, :, colour].ravel(), minlength=256)) for colour in range(3)]
    low, high = ([int(np.searchsorted(share, share[-1] * cut)) for share in shares] for cut in (0.01, 0.99))
    if max(high) <= DIM:
        return "nearly black"
    return "nearly constant" if all(b - a <= DIM for a, b in zip(low, high, strict=True)) else ""


def dim_warnings(images: Sequence[str], checked: Sequence[Checked]) -> list[Problem]:
    """A warning for every kind of image that shows nearly nothing once read: how many, why, and three of them."""
    kinds: dict[tuple[str, bool], list[int]] = {}
    for place, item in enumerate(checked):
        if item.dim is not None:
            kinds.setdefault((item.dim[0], item.dim[1] is not None), []).append(place)
    problems = []
    for (word, wide), places in sorted(kinds.items()):
        names = ", ".join(f"'{images[place]}'" for place in places[:3])
        verb = "image is" if len(places) == 1 else "images are"
        message = f"{len(places)} of {len(images)} {verb} {word} once read, such as {names}"
        if wide:
            top = max(item.dim[1] or 0 for item in (checked[place] for place in places) if item.dim is not None)
            message += f": 16-bit values are scaled by their full range, 0 to 65535, and these are at most {top}"
        mend = "scale the values to the whole range, or save 8 bits" if wide else "check whether their export failed"
        problems.append(Problem(message, mend))
    return problems


def check_images(paths: Sequence[str], decoded: bool = True, show: bool = True) -> list[Checked]:
    """Check many images in threads (decoding leaves Python's lock), with a progress bar; shards from front to back."""
    order, found = reading_order(paths), dict[int, Checked]()
    with (
        progress_bar("checking images", len(paths), show=show) as bar,
        ThreadPoolExecutor(cpu_count()) as pool,
    ):
        for low in range(0, len(order), BLOCK):
            block = order[low : low + BLOCK]
            for place, checked in zip(block, pool.map(lambda at: check_image(paths[at], decoded), block), strict=True):
                found[place] = checked
                bar.advance()
    return [found[place] for place in range(len(paths))]


def split_conflicts(frame: pd.DataFrame, side: str, column: str, what: str, mend: str) -> list[Problem]:
    """A problem for every row of a patient who is on more than one side of column ``side`` of ``frame``."""
    known = frame[frame["patient"].notna() & frame[side].notna()]
    sides = known.groupby("patient", sort=False)[side].agg(lambda values: sorted(set(values)))
    bad = sides[sides.map(len) > 1]
    rows = known[known["patient"].isin(bad.index)]
    return [
        Problem(
            f"patient '{patient}' is {what}: {', '.join(bad[patient])}", mend, row=int(row), column=column
        )
        for row, patient in zip(rows["row"], rows["patient"], strict=True)
    ]


def identical_groups(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """The groups of rows whose image files are byte for byte the same (named by different paths)."""
    known = frame[frame["sha256"] != ""].drop_duplicates("image")
    twice = known[known.duplicated("sha256", keep=False)]
    return [group for _, group in twice.groupby("sha256", sort=False)]


def identical_across(frame: pd.DataFrame, side: str, column: str, mend: str) -> list[Problem]:
    """A problem for every row whose image is byte-identical to one on another side of column ``side``."""
    problems = []
    for group in identical_groups(frame):
        if group[side].nunique() > 1:
            rows = ", ".join(str(row) for row in group["row"])
            sides = ", ".join(sorted(set(group[side].dropna())))
            message = f"byte-identical images (rows {rows}) are on several sides of the split: {sides}"
            problems += [Problem(message, mend, row=int(row), column=column) for row in group["row"]]
    return problems


def identical_warnings(frame: pd.DataFrame) -> list[Problem]:
    """Byte-identical images that may stay, but should be known: shared by patients, or labelled twice."""
    labels = [name for name in frame.columns if name.startswith("label.")]
    found = []
    for group in identical_groups(frame):
        rows = ", ".join(str(row) for row in group["row"])
        if group["patient"].nunique() > 1:
            message = (
                f"rows {rows}: byte-identical images of different patients; these patients stay in one split"
            )
            found.append(Problem(message, "check whether they are one patient"))
        found += [
            Problem(
                f"rows {rows}: byte-identical images with different values of {name}", "keep the right row"
            )
            for name in labels
            if group[name].nunique(dropna=False) > 1
        ]
    return found


def joined_patients(frame: pd.DataFrame) -> dict[str, str]:
    """Patient -> unit: patients who share a byte-identical image are one unit named by its first."""
    parent = {patient: patient for patient in sorted(set(frame["patient"]))}

    def root(patient: str) -> str:
        while parent[patient] != patient:
            parent[patient] = parent[parent[patient]]
            patient = parent[patient]
        return patient

    for group in identical_groups(frame):
        first, *others = [root(patient) for patient in sorted(set(group["patient"]))]
        for other in others:
            low, high = sorted((root(first), root(other)))
            parent[high] = low
    return {patient: root(patient) for patient in parent}
