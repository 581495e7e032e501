"""The quality stage of a study: all generators and the autoencoder's reconstruction, on the same real images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from equigen.cohort import Cohort, Oracle, check_unseen, load_images
from equigen.latents import Autoencoder
from equigen.quality import (
    EvaluateSettings,
    Evaluation,
    ImageSet,
    evaluate,
    filter_by_labels,
    load_image_set,
    oracle_correctness,
)
from equigen.study.stage_settings import EvaluateStage

RECONSTRUCTION = "reconstruction"
GENERATOR_METRICS = ("mifid", "nn_ratio", "authenticity", "near_copies")  # a reconstruction of a test image is no copy


def evaluate_study(
    cohort: Cohort,
    folders: Mapping[str, Path],
    coder: Autoencoder,
    settings: EvaluateStage,
    size: int,
    cache_dir: Path,
    show: bool,
) -> Evaluation:
    """Measure every generator's set, and the autoencoder's reconstruction of the test images, against test images.

    ``folders``: generator -> folder of its synthetic set. On phantoms the oracle's correctness is measured too.
    """
    test_images = cohort.split("test", domain="id")
    check_unseen(test_images, folders.items(), "This cohort cannot be evaluated against")
    levels = {name: list(spec.levels) for name, spec in cohort.attributes.items()}
    sets = {"real": ImageSet(test_images.frame.reset_index(drop=True), levels=levels)}
    sets |= {name: replace(load_image_set(folder, name), levels=levels) for name, folder in folders.items()}
    generated = filter_by_labels(sets, settings.only)
    real = generated.pop("real")
    pixels = load_images(list(real.frame["path"]), size)
    generated[RECONSTRUCTION] = ImageSet(real.frame, coder.reconstruct(pixels), levels)
    correctness = []
    if cohort.phantom:
        oracle = Oracle()
        options: dict[str, Any] = {"levels": levels, "replicates": settings.replicates, "show": show}
        sets = {"real": ImageSet(real.frame, pixels, levels), **generated}
        for name, images in sets.items():
            array = images.pixels
            if array is None:
                array = load_images([Path(path) for path in images.frame["path"]], size)
            correctness.append(oracle_correctness(array, images.frame, oracle, run=name, **options))
            judged = pd.concat([images.frame, oracle.judge(array).add_prefix("oracle.")], axis=1)
            if name == "real":
                real = replace(real, frame=judged)
            else:
                generated[name] = replace(images, frame=judged)
    kinds = {name: spec.kind for name, spec in cohort.labels.items()}
    result = evaluate(
        real,
        generated,
        train=cohort.split("train", domain="id"),
        settings=EvaluateSettings(**settings.model_dump(exclude={"plan"}), size=size, kinds=kinds),
        autoencoder=coder,
        cache_dir=cache_dir,
        show=show,
    )
    quality = result.quality
    quality = quality[~((quality["run"] == RECONSTRUCTION) & quality["metric"].isin(GENERATOR_METRICS))]
    quality = pd.concat([quality, *(table for table in correctness if len(table))], ignore_index=True)
    copies = result.copies[result.copies["run"] != RECONSTRUCTION]
    differences = result.differences[result.differences["run"] != RECONSTRUCTION]
    return Evaluation(quality, differences, copies, result.copy_power)
