"""The quality stage of a study: all its generators and the autoencoder's reconstruction on the same real images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.cohort import Cohort, Oracle, check_unseen, load_images
from equigen.latents import Autoencoder
from equigen.quality import Evaluation, ImageSet, evaluate_sets, filter_by_labels, load_image_set, oracle_correctness
from equigen.study.stage_settings import EvaluateSettings

RECONSTRUCTION = "reconstruction"
OF_GENERATORS = ("mifid", "nn_ratio", "authenticity", "near_copies")  # of held-out images through the autoencoder: no


def evaluate_study(
    cohort: Cohort,
    folders: Mapping[str, Path],
    coder: Autoencoder,
    asked: EvaluateSettings,
    size: int,
    cache_dir: Path,
    show: bool,
) -> Evaluation:
    """Every generator's set beside held-out test images, and those images through the autoencoder and back.

    ``folders``: generator -> its synthetic set. On phantoms the oracle judges too.
    """
    test_images = cohort.split("test", domain="id")
    check_unseen(test_images, folders.items(), "This cohort cannot be evaluated against")
    levels = {name: list(spec.levels) for name, spec in cohort.attributes.items()}
    sides = {"real": ImageSet(test_images.frame.reset_index(drop=True), levels=levels)}
    sides |= {name: _with_levels(load_image_set(folder, name), levels) for name, folder in folders.items()}
    made = filter_by_labels(sides, asked.only)
    real = made.pop("real")
    pixels = load_images(list(real.frame["path"]), size)
    made[RECONSTRUCTION] = ImageSet(real.frame, coder.reconstruct(pixels), levels)
    rows = []
    if cohort.phantom:
        oracle = Oracle()
        drawn: dict[str, Any] = {"levels": levels, "replicates": asked.replicates, "show": show}
        shown = {"real": ImageSet(real.frame, pixels, levels), **made}
        images = {name: _pixels(side, size) for name, side in shown.items()}
        for name, side in shown.items():
            rows.append(oracle_correctness(images[name], side.frame, oracle, run=name, **drawn))
        real = _read_off(real, images["real"], oracle)
        made = {name: _read_off(side, images[name], oracle) for name, side in made.items()}
    common: dict[str, Any] = asked.model_dump(exclude={"plan", "groups"})
    result = evaluate_sets(
        real,
        made,
        asked.groups,
        train=cohort.split("train", domain="id"),
        kinds={name: spec.kind for name, spec in cohort.labels.items()},
        size=size,
        autoencoder=coder,
        cache_dir=cache_dir,
        show=show,
        **common,
    )
    quality = pd.concat([_of_generators(result.quality), *(part for part in rows if len(part))], ignore_index=True)
    copies = result.copies[result.copies["run"] != RECONSTRUCTION]
    differences = result.differences[result.differences["run"] != RECONSTRUCTION]
    return Evaluation(quality, differences, copies, result.copy_power)


def _of_generators(frame: pd.DataFrame) -> pd.DataFrame:
    """Without what can be said of a generator alone: held-out images through an autoencoder are no copies."""
    return frame[~((frame["run"] == RECONSTRUCTION) & frame["metric"].isin(OF_GENERATORS))]


def _with_levels(side: ImageSet, levels: dict[str, list[str]]) -> ImageSet:
    return ImageSet(side.frame, side.pixels, levels, side.remark)


def _pixels(side: ImageSet, size: int) -> NDArray[np.uint8]:
    return side.pixels if side.pixels is not None else load_images([Path(path) for path in side.frame["path"]], size)


def _read_off(side: ImageSet, pixels: NDArray[np.uint8], oracle: Oracle) -> ImageSet:
    """The side with what the oracle sees in each image, as columns ``oracle.<name>``."""
    seen = oracle.judge(pixels).add_prefix("oracle.")
    return ImageSet(pd.concat([side.frame, seen], axis=1), side.pixels, side.levels, side.remark)
