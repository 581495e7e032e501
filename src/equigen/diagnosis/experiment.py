"""Classifiers trained on real and synthetic images, and their predictions on held-out patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from equigen.cohort import Cohort, check_image, check_unseen, same_files_note
from equigen.devices import best_device
from equigen.diagnosis.fitting import FitSettings, fit
from equigen.diagnosis.networks import Card, Classifier
from equigen.diagnosis.recipes import REAL, SYNTHETIC, Recipe, parse_recipe, recipe_names
from equigen.diagnosis.targets import encode, outputs, tasks
from equigen.diagnosis.training_images import Arm, Data, Folders, Source, read_source, synthetic_folders
from equigen.errors import InputError, Problem
from equigen.files import write_json
from equigen.integrity import read_record
from equigen.parquet import read_parquet, write_parquet
from equigen.progress import console

PREDICTIONS, RECORD, CHECKPOINT = "predictions.parquet", "done.json", "checkpoint.safetensors"
COLUMNS = ["image", "patient", "site", "split", "domain"]


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

    Every recipe has the same steps, augmentation, schedule, network and model selection (by macro AUC on the validation
    split). Probabilities are not calibrated. All images are in memory as uint8: 12 KB each at 64 pixels.

    Args:
        cohort: real images; the train split trains, val selects the model, val and test are predicted.
        synthetic: folder with ``synthetic.parquet``, or folders by generator name. Rows not accepted are left out, and
            their number is printed.
        label: diagnosis, or several (a network each); None is the cohort's first.
        ratios: numbers of synthetic images per real image; None is 0 and, with a synthetic set, 1.
        recipes: names (see ``parse_recipe``) instead of ratios; with several generators ``synthetic`` means each of
            them.
        seeds: training seed or seeds.
        size: width and height of the images in pixels.
        images: number of training images, in place of ``settings.images``.
        settings: of training.
        out: folder for ``predictions.parquet`` and the classifiers. Finished classifiers are read from there, and an
            interrupted fit is resumed, where settings and inputs are the same.
        device: None takes a GPU where there is one.
        show: show progress bars.

    Returns:
        One row per image, task, recipe and seed: ``recipe, seed, task, image, patient, site, split,
        domain, truth, probability, attr.<name>``. Rows of unknown truth are left out.

    Raises:
        InputError: an unknown label or recipe, an empty split, or a synthetic set that is missing or of another
            cohort.

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
        for note in _duplicate_notes(cohort, sources):
            console.print(note, style="yellow", markup=False)
    parsed = _recipes(ratios, recipes, list(sources))
    counts = cohort.frame["split"].value_counts()
    problems = [
        Problem(f"split '{split}' is empty", "change 'split' in cohort.yaml")
        for split in ("train", "val", "test")
        if counts.get(split, 0) == 0
    ]
    if problems:
        raise InputError("Diagnosis needs train, val and test images.", problems)
    data, target_device = Data(cohort, sources, size), torch.device(device or best_device())
    tables = []
    for name, recipe, seed in product(names, parsed, [seeds] if isinstance(seeds, int) else seeds):
        folder = Path(out) / name / recipe.name.replace(":", "-") / f"seed{seed}" if out is not None else None
        tables.append(_run(data, Arm(name, recipe, settings, seed), folder, device=target_device, show=show))
    table = pd.concat(tables, ignore_index=True)
    if out is not None:
        write_parquet(Path(out) / PREDICTIONS, table)
    return table


def _duplicate_notes(cohort: Cohort, sources: Mapping[str, Source]) -> list[str]:
    """Notes on held-out files that are byte for byte training files, real or synthetic."""
    if "sha256" not in cohort.frame.columns:
        return []
    training = cohort.frame["split"] == "train"
    train, held_out = cohort.frame[training], cohort.frame[~training]
    notes = [same_files_note(held_out, train, "held-out images", "training images")]
    for name, source in sources.items():
        paths = [str(source.folder / image) for image in source.table["image"]]
        files = pd.DataFrame({"image": paths, "sha256": [check_image(path, decoded=False).sha256 for path in paths]})
        notes.append(same_files_note(files, held_out, f"images of {name}", "held-out real images"))
    return [note for note in notes if note]


def _labels(cohort: Cohort, label: str | Sequence[str] | None) -> list[str]:
    """Names of the labels to predict; InputError for unknown ones."""
    names = [label] if isinstance(label, str) else list(cohort.labels)[:1] if label is None else list(label)
    unknown = [name for name in names if name not in cohort.labels]
    if unknown or not names:
        problems = [
            Problem(f"there is no label '{name}'", f"labels are: {', '.join(cohort.labels)}") for name in unknown
        ]
        raise InputError(
            "Nothing to diagnose.",
            problems or [Problem("the cohort has no label", "give 'labels' in cohort.yaml")],
        )
    return names


def _recipes(ratios: Sequence[float] | None, recipes: Sequence[str] | None, generators: list[str]) -> list[Recipe]:
    """The distinct recipes of ratios or names."""
    if recipes is None:
        ratios = ratios if ratios is not None else ([0, 1] if generators else [0])
        if not generators and any(ratio != 0 for ratio in ratios):
            raise InputError(
                "A ratio above 0 needs a synthetic set.",
                [Problem(f"ratios are {list(ratios)}", "give 'synthetic', or ratios=[0]")],
            )
        recipes = recipe_names(ratios, generators)
    expanded = [f"{SYNTHETIC}:{name}" for name in generators] if SYNTHETIC not in generators else [SYNTHETIC]
    names = [name for recipe in recipes for name in (expanded if recipe == SYNTHETIC and expanded else [recipe])]
    return [parse_recipe(name, generators) for name in dict.fromkeys(names)]


def _run(data: Data, arm: Arm, folder: Path | None, *, device: torch.device, show: bool) -> pd.DataFrame:
    """Predictions of one classifier, read from disk where it is finished, else of a new fit."""
    key = data.key(arm)
    finished = None if folder is None else _read_finished(folder, key)
    if finished is not None:
        return finished
    sources = [REAL, *[name for name in arm.recipe.shares if name != REAL]]
    pools = {name: data.pool(name, arm.label, "train" if name == REAL else None) for name in sources}
    problems = [
        Problem(f"no image of '{name}' has a known '{arm.label}'", "check the label's column")
        for name, pool in pools.items()
        if not np.isfinite(pool.targets).any()
    ]
    if problems:
        raise InputError("Nothing to train on.", problems)
    spec = data.cohort.labels[arm.label]
    card = Card(arm.label, spec.kind, outputs(spec), data.size, arm.settings.width)
    classifier = fit(
        pools,
        data.pool(REAL, arm.label, "val"),
        arm.recipe,
        card,
        arm.settings,
        seed=arm.seed,
        device=device,
        checkpoint=folder / CHECKPOINT if folder is not None else None,
        key=key,
        show=show,
    )
    table = _predict(data, arm, classifier)
    if folder is not None:
        classifier.save(folder)
        write_parquet(folder / PREDICTIONS, table)
        record = {"key": key, "recipe": arm.recipe.name, "seed": arm.seed, "settings": asdict(arm.settings)}
        write_json(folder / RECORD, record)
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return table


def _read_finished(folder: Path, key: str) -> pd.DataFrame | None:
    """Predictions of a finished fit with the same inputs; None without one, or where a file is damaged."""
    if read_record(folder / RECORD).get("key") != key:
        return None
    try:
        Classifier.load(folder)
        return read_parquet(folder / PREDICTIONS)
    except (InputError, ValueError, KeyError, TypeError) as error:
        reason = error.problems[0] if isinstance(error, InputError) and error.problems else error
        message = f"{folder}: the classifier is damaged and is trained again: {reason}"
        console.print(message, style="yellow", markup=False)
        return None


def _predict(data: Data, arm: Arm, classifier: Classifier) -> pd.DataFrame:
    """Rows of predictions.parquet for the validation and test images, without those of unknown truth."""
    held_out = data.cohort.frame["split"].isin(["val", "test"]).to_numpy()
    frame, spec = data.cohort.frame[held_out], data.cohort.labels[arm.label]
    targets = encode(frame[f"label.{arm.label}"], spec)
    groups = [column for column in frame.columns if column.startswith("attr.")]
    tables = []
    for task, truth, probability in tasks(arm.label, spec, targets, classifier.predict(data.images(REAL)[held_out])):
        head = pd.DataFrame({"recipe": arm.recipe.name, "seed": arm.seed, "task": task}, index=frame.index)
        values = pd.DataFrame(
            {"truth": np.nan_to_num(truth).astype(np.int64), "probability": probability.astype(np.float64)},
            index=frame.index,
        )
        rows: pd.DataFrame = pd.concat([head, frame[COLUMNS], values, frame[groups]], axis=1)[np.isfinite(truth)]
        tables.append(rows.astype(dict.fromkeys([*COLUMNS, *groups], "str")))  # the types read from Parquet
    return pd.concat(tables, ignore_index=True)
