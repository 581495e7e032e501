"""Power of the copy check: the share of planted copies it finds, for each kind of change and each group.

Held-out images take the part of training images, and changed versions of them that of generated ones. The limits of
both views come from the held-out images of other patients (five folds of patients), so that no image is judged by a
limit that it helped to set; so is ``false_alarm``, the share of unchanged held-out images called near copies. Only
the thumbnails' view is tried on the changed images: what features find beyond it is not counted.
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
MAX_PLANTED = 200  # patients of whom an image is planted


def _blur(image: Images, rng: np.random.Generator) -> Images:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1)))


def _jpeg(image: Images, rng: np.random.Generator) -> Images:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=50)
    return np.asarray(Image.open(buffer).convert("RGB"))


def _noise(image: Images, rng: np.random.Generator) -> Images:
    return np.clip(np.rint(image + rng.normal(0, 5, image.shape)), 0, 255).astype(np.uint8)


def _mirror(image: Images, rng: np.random.Generator) -> Images:
    return np.ascontiguousarray(image[:, ::-1])


def _crop(image: Images, rng: np.random.Generator) -> Images:
    size = len(image)
    side = max(round(0.9 * size), 1)
    top, left = rng.integers(0, size - side + 1, 2)
    return _resized(image[top : top + side, left : left + side], size)


def _halved(image: Images, rng: np.random.Generator) -> Images:
    return _resized(_resized(image, max(len(image) // 2, 1)), len(image))


def _resized(image: Images, size: int) -> Images:
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))


CHANGES: dict[str, Callable[[Images, np.random.Generator], Images]] = {
    "blur 1 px": _blur, "JPEG quality 50": _jpeg, "noise sd 5": _noise, "mirror image": _mirror, "90 % crop": _crop,
    "half size and back": _halved,
}
AUTOENCODER = "autoencoder"


@dataclass(frozen=True)
class PlantedCopies:
    """Held-out images that are planted: ``rows`` [P], thumbnails [P, D] after each change, and changes not tried."""

    rows: Rows
    changed: dict[str, NDArray[Any]]
    notes: dict[str, str] = field(default_factory=dict)


def sample_planted_rows(patients: NDArray[Any], seed: int, limit: int = MAX_PLANTED) -> Rows:
    """Rows of one image each of at most ``limit`` patients, drawn at random, in ascending order."""
    rng = numpy_generator(seed, "quality/copies/planted")
    order = rng.permutation(len(patients))
    first = order[np.unique(np.asarray(patients).astype(str)[order], return_index=True)[1]]
    return np.sort(rng.permutation(first)[:limit]).astype(np.int64)


def changed_images(images: Images, seed: int, autoencoder: Autoencoder | None = None) -> dict[str, Images]:
    """The images after each kind of change, and through the autoencoder where one is given."""
    changed = {
        name: np.stack([change(image, numpy_generator(seed, f"quality/copies/{name}/{row}"))
                        for row, image in enumerate(images)])
        for name, change in CHANGES.items()
    }
    return changed if autoencoder is None else changed | {AUTOENCODER: autoencoder.reconstruct(images)}


def fold_limits(
    held_out: MemorisationScores, patients: NDArray[Any], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """For each held-out image the limits [N, views] set by other patients, and whether it is a false alarm by them."""
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
    place = planted.rows
    limits, alarms = fold_limits(held_out, patients[0], seed)
    owner = np.concatenate([patients[1], patients[0][place]]).astype(str)
    reference, common = np.concatenate([train, real[place]]), common_components(train)
    rows = []
    for name, values in planted.changed.items():
        distance, nearest = nearest_thumbnails(values, reference, common=common)
        found = (distance <= limits[place, 1]) & (owner[nearest] == patients[0][place].astype(str))
        rows += [_row(name, cell, found, place, alarms) for cell in _cells(groups, len(real))]
    rows += [{"change": name, "attribute": "*", "group": "*", "n": 0, "note": note}
             for name, note in planted.notes.items()]
    frame = pd.DataFrame(rows, columns=POWER_COLUMNS)
    numbers = dict.fromkeys(("share", "ci_low", "ci_high", "false_alarm"), "float64")
    return frame.astype({"n": "int64", **numbers, "note": "str"})


def _cells(groups: Mapping[str, tuple[Rows, list[str]]], count: int) -> list[tuple[str, str, NDArray[np.bool_]]]:
    cells = [("*", "*", np.ones(count, dtype=bool))]
    return cells + [(name, level, codes == code) for name, (codes, levels) in groups.items()
                    for code, level in enumerate(levels)]


def _row(
    change: str, cell: tuple[str, str, NDArray[np.bool_]], found: NDArray[np.bool_], planted: Rows,
    alarms: NDArray[np.bool_],
) -> dict[str, Any]:
    attribute, group, member = cell
    own = found[member[planted]]
    row: dict[str, Any] = {"change": change, "attribute": attribute, "group": group, "n": len(own), "note": ""}
    if member.any():
        row["false_alarm"] = float(alarms[member].mean())
    if len(own) == 0:
        return row | {"note": "no image of this group was planted"}
    low, high = wilson_interval(int(own.sum()), len(own))
    return row | {"share": float(own.mean()), "ci_low": low, "ci_high": high}


def thumbnail_rows(images: Images) -> NDArray[np.float16]:
    """[N, H, H, 3] -> [N, D] thumbnails as they are kept for a side."""
    return thumbnails(images).reshape(len(images), -1).astype(np.float16)
