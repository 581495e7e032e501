"""Classifiers on real and synthetic images, and what they predict for patients they have not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from equigen.cohort import Cohort, check_image, check_unseen, same_files_note
from equigen.devices import best_device
from equigen.diagnosis.fitting import FitSettings, Pool, fit
from equigen.diagnosis.networks import Card, Classifier
from equigen.diagnosis.recipes import REAL, SYNTHETIC, Recipe, parse_recipe, recipe_names
from equigen.diagnosis.targets import encode, outputs, tasks
from equigen.diagnosis.training_images import Arm, Data, Folders, Source, read_source, synthetic_folders
from equigen.errors import InputError, Problem
from equigen.files import read_json, read_parquet, write_json, write_parquet
from equigen.progress import console

PREDICTIONS, DONE, CHECKPOINT = "predictions.parquet", "done.json", "checkpoint.safetensors"
KEPT = ["image", "patient", "site", "split", "domain"]


def diagnose(
    cohort: Cohort,
    synthetic: Folders | None = None,
    *,
    label: str | Sequence[str] | None = None,
    ratios: Sequence[float] | None = None,
    recipes: Sequence[str] | None = None,
    seeds: int | Sequence[int] = 0,
    size: int = 64,
    images: int | None = None,
    settings: FitSettings | None = None,
    out: str | Path | None = None,
    device: str | torch.device | None = None,
    show: bool = True,
) -> pd.DataFrame:
    """Train a classifier for each recipe and seed, and predict the validation and test rows.

    Every recipe gets the same steps, augmentation, schedule, network and choice of checkpoint (by macro AUC
    on the validation split). Probabilities are as the network gives them, without calibration. All images
    are held in memory as uint8: 12 KB each at 64 pixels.

    Args:
        cohort: real images; the train split trains, val chooses, val and test are predicted.
        synthetic: folder with ``synthetic.parquet``, or generator name -> folder. Rows not accepted are
            left out, and it is said how many.
        label: diagnosis, or several (a network each); None is the cohort's first.
        ratios: synthetic images shown for each real one; None is 0 and, with a synthetic set, 1.
        recipes: names (see ``parse_recipe``) instead of ratios; with several generators ``synthetic``
            stands for each.
        seeds: training seed or seeds.
        size: side of the images, in pixels.
        images: images shown in training, in place of ``settings.images``.
        settings: how every arm is trained.
        out: folder for ``predictions.parquet`` and each fitted model. What is finished there is not run
            again, and an interrupted fit goes on, as long as settings and inputs are the same.
        device: None takes a GPU where there is one.
        show: show progress bars.

    Returns:
        One row per image, task, recipe and seed: ``recipe, seed, task, image, patient, site, split,
        domain, truth, probability, attr.<name>``. Rows of unknown truth are left out.

    Raises:
        InputError: an unknown label or recipe, an empty split, a synthetic set that is missing or does not
            fit.

    """
    settings = settings or FitSettings()
    settings = replace(settings, images=images) if images is not None else settings
    names = _labels(cohort, label)
    sources = {name: read_source(folder, names) for name, folder in synthetic_folders(synthetic).items()}
    check_unseen(cohort, [(name, source.folder) for name, source in sources.items()], "This cohort cannot be diagnosed")
    for name, source in sources.items():
        if show and source.remark:
            console.print(f"{name}: {source.remark}", style="yellow", markup=False)
    if show:
        for remark in _same_files(cohort, sources):
            console.print(remark, style="yellow", markup=False)
    chosen = _recipes(ratios, recipes, list(sources))
    _check_splits(cohort)
    where = torch.device(device or best_device())
    data = Data(cohort, sources, size)
    parts = []
    for name in names:
        for recipe in chosen:
            for seed in [seeds] if isinstance(seeds, int) else seeds:
                folder = (
                    Path(out) / name / recipe.name.replace(":", "-") / f"seed{seed}"
                    if out is not None
                    else None
                )
                parts.append(_run(data, Arm(name, recipe, settings, seed), folder, device=where, show=show))
    table = pd.concat(parts, ignore_index=True)
    if out is not None:
        write_parquet(Path(out) / PREDICTIONS, table)
    return table


def _same_files(cohort: Cohort, sources: Mapping[str, Source]) -> list[str]:
    """Held-out files that are byte for byte training files, real or synthetic, in words."""
    if "sha256" not in cohort.frame.columns:
        return []
    training = cohort.frame["split"] == "train"
    train, held_out = cohort.frame[training], cohort.frame[~training]
    found = [same_files_note(held_out, train, "held-out images", "training images")]
    for name, source in sources.items():
        paths = [str(source.folder / image) for image in source.table["image"]]
        made = pd.DataFrame({"image": paths, "sha256": [check_image(path, decoded=False).sha256 for path in paths]})
        found.append(same_files_note(made, held_out, f"images of {name}", "held-out real images"))
    return [remark for remark in found if remark]


def _labels(cohort: Cohort, label: str | Sequence[str] | None) -> list[str]:
    """Names of the diagnoses to learn."""
    asked = (
        [label] if isinstance(label, str) else list(label) if label is not None else list(cohort.labels)[:1]
    )
    strange = [name for name in asked if name not in cohort.labels]
    if strange or not asked:
        problems = [
            Problem(f"there is no label '{name}'", f"labels are: {', '.join(cohort.labels)}")
            for name in strange
        ]
        raise InputError(
            "Nothing to diagnose.",
            problems or [Problem("the cohort has no label", "give 'labels' in cohort.yaml")],
        )
    return asked


def _recipes(
    ratios: Sequence[float] | None, recipes: Sequence[str] | None, generators: list[str]
) -> list[Recipe]:
    """Recipes to run, each once."""
    if recipes is None:
        wanted = ratios if ratios is not None else ([0, 1] if generators else [0])
        if not generators and any(ratio != 0 for ratio in wanted):
            raise InputError(
                "A ratio above 0 needs a synthetic set.",
                [Problem(f"ratios are {list(wanted)}", "give 'synthetic', or ratios=[0]")],
            )
        recipes = recipe_names(wanted, generators)
    several = [f"{SYNTHETIC}:{name}" for name in generators] if SYNTHETIC not in generators else [SYNTHETIC]
    names = [name for given in recipes for name in (several if given == SYNTHETIC and several else [given])]
    return [parse_recipe(name, generators) for name in dict.fromkeys(names)]


def _check_splits(cohort: Cohort) -> None:
    """All three splits hold images."""
    counts = cohort.frame["split"].value_counts()
    problems = [
        Problem(f"split '{split}' is empty", "change 'split' in cohort.yaml")
        for split in ("train", "val", "test")
        if counts.get(split, 0) == 0
    ]
    if problems:
        raise InputError("Diagnosis needs train, val and test images.", problems)


def _run(data: Data, arm: Arm, folder: Path | None, *, device: torch.device, show: bool) -> pd.DataFrame:
    """Predictions of one arm: those of an earlier run, or a new fit's."""
    key = data.key(arm)
    earlier = None if folder is None else _earlier(folder, key)
    if earlier is not None:
        return earlier
    checkpoint = folder / CHECKPOINT if folder is not None else None
    classifier = _fit(data, arm, checkpoint, key=key, device=device, show=show)
    table = _predict(data, arm, classifier)
    if folder is not None:
        classifier.save(folder)
        write_parquet(folder / PREDICTIONS, table)
        done = {"key": key, "recipe": arm.recipe.name, "seed": arm.seed, "settings": asdict(arm.settings)}
        write_json(folder / DONE, done)
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return table


def _earlier(folder: Path, key: str) -> pd.DataFrame | None:
    """Predictions of an earlier fit with the same inputs; None where there is none, or one of its files is damaged."""
    if not (folder / DONE).is_file():
        return None
    try:
        if read_json(folder / DONE)["key"] != key:
            return None
        Classifier.load(folder)
        return read_parquet(folder / PREDICTIONS)
    except (InputError, ValueError, KeyError, TypeError) as error:
        reason = error.problems[0] if isinstance(error, InputError) and error.problems else error
        words = f"{folder}: the classifier is damaged and is trained again: {reason}"
        console.print(words, style="yellow", markup=False)
        return None


def _fit(
    data: Data, arm: Arm, checkpoint: Path | None, *, key: str, device: torch.device, show: bool
) -> Classifier:
    """The trained network of one arm."""
    sources = [REAL, *[name for name in arm.recipe.shares if name != REAL]]
    pools = {name: data.pool(name, arm.label, "train" if name == REAL else None) for name in sources}
    _check_pools(pools, arm.label)
    spec = data.cohort.labels[arm.label]
    card = Card(arm.label, spec.kind, outputs(spec), data.size, arm.settings.width)
    return fit(
        pools,
        data.pool(REAL, arm.label, "val"),
        arm.recipe,
        card,
        arm.settings,
        seed=arm.seed,
        device=device,
        checkpoint=checkpoint,
        key=key,
        show=show,
    )


def _predict(data: Data, arm: Arm, classifier: Classifier) -> pd.DataFrame:
    """Rows of predictions.parquet for the validation and test images."""
    held_out = data.cohort.frame["split"].isin(["val", "test"]).to_numpy()
    frame, spec = data.cohort.frame[held_out], data.cohort.labels[arm.label]
    probability = classifier.predict(data.images(REAL)[held_out])
    targets = encode(frame[f"label.{arm.label}"], spec)
    made = tasks(arm.label, spec, targets, probability)
    return pd.concat([_task_rows(frame, arm, *task) for task in made], ignore_index=True)


def _check_pools(pools: Mapping[str, Pool], label: str) -> None:
    """Every source has an image of known diagnosis."""
    problems = [
        Problem(f"no image of '{name}' has a known '{label}'", "check the label's column")
        for name, pool in pools.items()
        if not np.isfinite(pool.targets).any()
    ]
    if problems:
        raise InputError("Nothing to train on.", problems)


def _task_rows(
    frame: pd.DataFrame, arm: Arm, task: str, truth: NDArray[np.float32], probability: NDArray[np.float32]
) -> pd.DataFrame:
    """Rows of one task, those of unknown truth left out."""
    known = np.isfinite(truth)
    groups = [column for column in frame.columns if column.startswith("attr.")]
    head = pd.DataFrame({"recipe": arm.recipe.name, "seed": arm.seed, "task": task}, index=frame.index)
    values = pd.DataFrame(
        {"truth": np.nan_to_num(truth).astype(np.int64), "probability": probability.astype(np.float64)},
        index=frame.index,
    )
    rows: pd.DataFrame = pd.concat([head, frame[KEPT], values, frame[groups]], axis=1)[known]
    return rows.astype(dict.fromkeys([*KEPT, *groups], "str"))  # as Parquet gives them back
