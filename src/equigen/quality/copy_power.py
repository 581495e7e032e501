"""Power of the copy check: the share of planted copies it finds, for each kind of change and each group.

Held-out images are added to the training images, and changed versions of them are searched for like generated
images. The limits of both views come from the held-out images of other patients (cross-fitting over five folds of
patients), and so does ``false_alarm``, the share of unchanged held-out images called near copies. Changed images are
searched by thumbnails alone, so copies that only features would find are not counted.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from equigen.latents import Autoencoder
from equigen.quality.metrics.memorisation import MemorisationScores, near_copies, shared_thresholds
from equigen.quality.metrics.registration import common_components, nearest_thumbnails, thumbnails
from equigen.seeds import numpy_generator
from equigen.statistics import wilson_interval

Images = NDArray[np.uint8]
Rows = NDArray[np.int64]
POWER_COLUMNS = ["change", "attribute", "group", "n", "share", "ci_low", "ci_high", "false_alarm", "note"]
FOLDS = 5
MAX_PLANTED = 200  # patients, of each of whom one image is planted


def _resize(image: Images, size: int) -> Images:
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))


def _compress(image: Images, rng: np.random.Generator) -> Images:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=50)
    return np.asarray(Image.open(buffer).convert("RGB"))


def _crop(image: Images, rng: np.random.Generator) -> Images:
    size = len(image)
    length = max(round(0.9 * size), 1)
    y, x = rng.integers(0, size - length + 1, 2)
    return _resize(image[y : y + length, x : x + length], size)


CHANGES: dict[str, Callable[[Images, np.random.Generator], Images]] = {
    "blur 1 px": lambda image, _: np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1))),
    "JPEG quality 50": _compress,
    "noise sd 5": lambda image, rng: np.clip(np.rint(image + rng.normal(0, 5, image.shape)), 0, 255).astype(np.uint8),
    "mirror image": lambda image, _: np.ascontiguousarray(image[:, ::-1]),
    "90 % crop": _crop,
    "half size and back": lambda image, _: _resize(_resize(image, max(len(image) // 2, 1)), len(image)),
}
AUTOENCODER = "autoencoder"


@dataclass(frozen=True)
class PlantedCopies:
    """Held-out images to plant: ``rows`` [P], thumbnails [P, D] after each change, notes on changes not tried."""

    rows: Rows
    changed: dict[str, NDArray[Any]]
    notes: dict[str, str] = field(default_factory=dict)


def sample_planted_rows(patients: NDArray[Any], seed: int, limit: int = MAX_PLANTED) -> Rows:
    """Ascending rows of one random image of each of at most ``limit`` random patients."""
    rng = numpy_generator(seed, "quality/copies/planted")
    order = rng.permutation(len(patients))
    first = order[np.unique(np.asarray(patients).astype(str)[order], return_index=True)[1]]
    return np.sort(rng.permutation(first)[:limit]).astype(np.int64)


def changed_images(images: Images, seed: int, autoencoder: Autoencoder | None = None) -> dict[str, Images]:
    """Images after each kind of change, and their reconstructions where an ``autoencoder`` is given."""
    changed = {
        name: np.stack(
            [change(image, numpy_generator(seed, f"quality/copies/{name}/{row}")) for row, image in enumerate(images)]
        )
        for name, change in CHANGES.items()
    }
    return changed if autoencoder is None else changed | {AUTOENCODER: autoencoder.reconstruct(images)}


def fold_limits(
    held_out: MemorisationScores, patients: NDArray[Any], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Limits [N, views] for each held-out image, set by other patients, and whether [N] it is a false alarm by them."""
    codes = np.unique(np.asarray(patients).astype(str), return_inverse=True)[1]
    count = int(codes.max()) + 1
    folds = numpy_generator(seed, "quality/copies/folds").permutation(count)[codes] % min(FOLDS, count)
    limits, alarms = np.zeros((len(codes), len(held_out.views))), np.zeros(len(codes), dtype=bool)
    for fold in np.unique(folds):
        rows = folds == fold
        thresholds = shared_thresholds([view[~rows] for view in held_out.views])
        limits[rows] = thresholds
        alarms[rows] = near_copies(held_out, thresholds)[rows]
    return limits, alarms


def copy_check_power(
    planted: PlantedCopies,
    held_out: MemorisationScores,
    thumbnails: tuple[NDArray[Any], NDArray[Any]],
    patients: tuple[NDArray[Any], NDArray[Any]],
    groups: Mapping[str, tuple[Rows, list[str]]],
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Share of planted copies that the check finds, with the columns ``POWER_COLUMNS``.

    A copy counts as found where its nearest training or planted thumbnail is an image of its own patient, at or below
    the limit that other patients set. Intervals are Wilson's; one image of each patient is planted.

    Args:
        planted: the images and their changed versions.
        held_out: result of the search for the held-out images, with thumbnails.
        thumbnails: [N, D] of the held-out and [T, D] of the training images.
        patients: [N] of the held-out and [T] of the training images.
        groups: [N] group codes of the held-out images and the names of the groups, for each attribute.
        seed: of the folds.

    """
    real, train = thumbnails
    planted_rows = planted.rows
    limits, alarms = fold_limits(held_out, patients[0], seed)
    owners = np.concatenate([patients[1], patients[0][planted_rows]]).astype(str)
    reference, common = np.concatenate([train, real[planted_rows]]), common_components(train)
    cells = [("*", "*", np.ones(len(real), dtype=bool))]
    cells += [
        (name, level, codes == code) for name, (codes, levels) in groups.items() for code, level in enumerate(levels)
    ]
    rows = []
    for name, values in planted.changed.items():
        distance, nearest = nearest_thumbnails(values, reference, common=common)
        same_patient = owners[nearest] == patients[0][planted_rows].astype(str)
        detected = (distance <= limits[planted_rows, 1]) & same_patient
        for attribute, group, mask in cells:
            head = {"change": name, "attribute": attribute, "group": group}
            rows.append(head | _power_row(detected[mask[planted_rows]], alarms[mask]))
    rows += [
        {"change": name, "attribute": "*", "group": "*", "n": 0, "note": note} for name, note in planted.notes.items()
    ]
    frame = pd.DataFrame(rows, columns=POWER_COLUMNS)
    numbers = dict.fromkeys(("share", "ci_low", "ci_high", "false_alarm"), "float64")
    return frame.astype({"n": "int64", **numbers, "note": "str"})


def _power_row(detected: NDArray[np.bool_], alarms: NDArray[np.bool_]) -> dict[str, Any]:
    """Share of a group's planted copies that are detected, with Wilson's interval, and its false alarms."""
    row: dict[str, Any] = {"n": len(detected), "note": ""}
    if len(alarms):
        row["false_alarm"] = float(alarms.mean())
    if len(detected) == 0:
        return row | {"note": "no image of this group was planted"}
    low, high = wilson_interval(int(detected.sum()), len(detected))
    return row | {"share": float(detected.mean()), "ci_low": low, "ci_high": high}


def thumbnail_rows(images: Images) -> NDArray[np.float16]:
    """Thumbnails of [N, H, H, 3] images as [N, D] rows, in the form that ``EncodedImages`` holds."""
    return thumbnails(images).reshape(len(images), -1).astype(np.float16)
