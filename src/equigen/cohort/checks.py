"""Checks before training: images can be read, and no patient and no image is in two splits."""

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

BLOCK = 4096  # images that are queued for the threads at a time
DIM = 16  # levels of 255: 12 bits in a 16-bit file reach no further


@dataclass(frozen=True)
class ImageCheck:
    """SHA-256 of an image's file or member ("" = unreadable), its fault if any, and whether it is near-empty."""

    sha256: str
    fault: ImageFault | None = None
    dim: tuple[str, int | None] | None = None  # "nearly black" or "nearly constant", and the file's greatest value


_checks: dict[tuple[str, int, int, bool], ImageCheck] = {}  # (path, bytes, mtime, decoded) of this process


def check_image(path: str, decoded: bool = True) -> ImageCheck:
    """Hash one image, and decode it in full if ``decoded``; the result is cached until the file changes."""
    file = Path(path)
    try:
        key = (path, *file_state(file), decoded)
        if key not in _checks:
            _checks[key] = _check_file(file, decoded)
        return _checks[key]
    except OSError as error:
        return ImageCheck("", open_fault(error))


def _check_file(file: Path, decoded: bool) -> ImageCheck:
    try:
        with open_image(file) as handle:
            sha256 = hashlib.file_digest(handle, "sha256").hexdigest()  # type: ignore[arg-type, unused-ignore]
    except ImageFault as fault:
        return ImageCheck("", fault.with_traceback(None))
    try:
        image = decode_values(file) if decoded else None
    except ImageFault as fault:
        return ImageCheck(sha256, fault.with_traceback(None))
    dim = _dimness(image.pixels) if image is not None else ""
    return ImageCheck(sha256, None, (dim, image.top) if dim and image is not None else None)


def _dimness(pixels: NDArray[np.uint8]) -> str:
    """Return "nearly black" or "nearly constant" if 98 % of the pixels are within ``DIM`` levels, else ""."""
    step = max(1, int((pixels.shape[0] * pixels.shape[1] / 65_536) ** 0.5))
    sample = pixels[::step, ::step]
    shares = [np.cumsum(np.bincount(sample[:, :, colour].ravel(), minlength=256)) for colour in range(3)]
    low, high = ([int(np.searchsorted(share, share[-1] * quantile)) for share in shares] for quantile in (0.01, 0.99))
    if max(high) <= DIM:
        return "nearly black"
    return "nearly constant" if all(b - a <= DIM for a, b in zip(low, high, strict=True)) else ""


def dim_warnings(images: Sequence[str], checks: Sequence[ImageCheck]) -> list[Problem]:
    """Return a warning for every kind of near-empty image: their number, the cause and three examples."""
    kinds: dict[tuple[str, bool], list[int]] = {}
    for index, item in enumerate(checks):
        if item.dim is not None:
            kinds.setdefault((item.dim[0], item.dim[1] is not None), []).append(index)
    problems = []
    for (word, wide), indices in sorted(kinds.items()):
        names = ", ".join(f"'{images[index]}'" for index in indices[:3])
        verb = "image is" if len(indices) == 1 else "images are"
        message = f"{len(indices)} of {len(images)} {verb} {word} once read, such as {names}"
        if wide:
            top = max(item.dim[1] or 0 for item in (checks[index] for index in indices) if item.dim is not None)
            message += f": 16-bit values are scaled by their full range, 0 to 65535, and these are at most {top}"
        mend = "scale the values to the whole range, or save 8 bits" if wide else "check whether their export failed"
        problems.append(Problem(message, mend))
    return problems


def check_images(paths: Sequence[str], decoded: bool = True, show: bool = True) -> list[ImageCheck]:
    """Check many images in threads (decoding releases the GIL), with a progress bar; shards from front to back."""
    order, checks = reading_order(paths), dict[int, ImageCheck]()
    with (
        progress_bar("checking images", len(paths), show=show) as bar,
        ThreadPoolExecutor(cpu_count()) as pool,
    ):
        for low in range(0, len(order), BLOCK):
            block = order[low : low + BLOCK]
            results = pool.map(lambda index: check_image(paths[index], decoded), block)
            for index, check in zip(block, results, strict=True):
                checks[index] = check
                bar.advance()
    return [checks[index] for index in range(len(paths))]


def split_conflicts(frame: pd.DataFrame, split_column: str, column: str, conflict: str, mend: str) -> list[Problem]:
    """Return a problem for every row of a patient with more than one value of ``split_column``."""
    complete = frame[frame["patient"].notna() & frame[split_column].notna()]
    splits = complete.groupby("patient", sort=False)[split_column].agg(lambda values: sorted(set(values)))
    bad = splits[splits.map(len) > 1]
    rows = complete[complete["patient"].isin(bad.index)]
    return [
        Problem(f"patient '{patient}' is {conflict}: {', '.join(bad[patient])}", mend, row=int(row), column=column)
        for row, patient in zip(rows["row"], rows["patient"], strict=True)
    ]


def identical_groups(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the groups of rows whose image files are byte-identical (under different paths)."""
    images = frame[frame["sha256"] != ""].drop_duplicates("image")
    repeated = images[images.duplicated("sha256", keep=False)]
    return [group for _, group in repeated.groupby("sha256", sort=False)]


def identical_across(frame: pd.DataFrame, split_column: str, column: str, mend: str) -> list[Problem]:
    """Return a problem for every row whose image is byte-identical to one with another ``split_column``."""
    problems = []
    for group in identical_groups(frame):
        if group[split_column].nunique() > 1:
            rows = ", ".join(str(row) for row in group["row"])
            splits = ", ".join(sorted(set(group[split_column].dropna())))
            message = f"byte-identical images (rows {rows}) are on several sides of the split: {splits}"
            problems += [Problem(message, mend, row=int(row), column=column) for row in group["row"]]
    return problems


def identical_warnings(frame: pd.DataFrame) -> list[Problem]:
    """Return warnings of byte-identical images that are shared by patients, or have different labels."""
    labels = [name for name in frame.columns if name.startswith("label.")]
    warnings = []
    for group in identical_groups(frame):
        rows = ", ".join(str(row) for row in group["row"])
        if group["patient"].nunique() > 1:
            message = f"rows {rows}: byte-identical images of different patients; these patients stay in one split"
            warnings.append(Problem(message, "check whether they are one patient"))
        warnings += [
            Problem(f"rows {rows}: byte-identical images with different values of {name}", "keep the right row")
            for name in labels
            if group[name].nunique(dropna=False) > 1
        ]
    return warnings


def patient_units(frame: pd.DataFrame) -> dict[str, str]:
    """Return the unit of each patient: patients who share a byte-identical image are one unit, named by the first."""
    parent = {name: name for name in sorted(set(frame["patient"]))}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for group in identical_groups(frame):
        first, *remaining = [root(name) for name in sorted(set(group["patient"]))]
        for patient in remaining:
            low, high = sorted((root(first), root(patient)))
            parent[high] = low
    return {name: root(name) for name in parent}
