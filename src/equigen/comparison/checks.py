"""Settings of the trainings of a comparison, and checks before the first of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from equigen.cohort import Cohort, parse_spec
from equigen.comparison.paths import RunPaths, Training
from equigen.comparison.runners.cluster import check_engine
from equigen.comparison.settings import PRETRAINED, ComparisonSettings
from equigen.config import check_keys, read_yaml, settings_key
from equigen.equity import Groups
from equigen.errors import InputError, Problem, suggestion
from equigen.latents import Autoencoder
from equigen.quality import load_encoder, select_metrics
from equigen.study import (
    check_cohort,
    check_mechanism_options,
    check_only,
    check_starts,
    mechanism_choice,
    phantom_levels,
    plan_tables,
    resolve_training_paths,
)
from equigen.synthesis import INITIAL_POINTS, attribute_parts, check_cohorts, eligible_groups, images_per_group
from equigen.training import TrainSettings

# settings that a training must share with its pretraining
SHARED = {"preset": "preset", "prediction": "prediction", "base": "base", "text_encoder": "text_encoder",
          "tune": "trainable_weights", "rank": "rank", "alpha": "alpha"}  # fmt: skip
MIN_PATIENTS = 30  # in a group, for a guidance of its own
BASE_SEED = 1000  # added to a pretraining's seed, so that the training after it draws other noise


def training_settings(
    settings: ComparisonSettings, paths: RunPaths, base: Path, source: str
) -> dict[Training, TrainSettings]:
    """Return the settings of every training, each pretraining before the trainings that continue it.

    Raises InputError for a key of ``train``, ``pretrain`` or ``settings`` that is unknown or wrong.
    """
    runs: dict[Training, TrainSettings] = {}
    for setting, changes in settings.settings.items():
        train = {**settings.train, **{key: value for key, value in changes.items() if key != "pretrain"}}
        pretrain = None if settings.pretrain is None else {**settings.pretrain, **changes.get("pretrain", {})}
        for seed in settings.seeds:
            origin = Training(setting, PRETRAINED, seed)
            if pretrain is not None:
                values = {**train, **pretrain}
                runs[origin] = _settings(settings.size, values, "none", {}, BASE_SEED + seed, base, source)
            for name, options in settings.mechanisms.items():
                rule, rest = mechanism_choice(name, options, base)
                values = train if pretrain is None else {**train, "start": str(paths.generator(origin).resolve())}
                training = Training(setting, name, seed)
                runs[training] = _settings(settings.size, values, rule, rest, seed, base, source)
                if pretrain is not None:
                    _check_shared(runs[training], runs[origin], setting, source)
    return runs


def _settings(
    size: int, values: Mapping[str, Any], rule: str, options: Mapping[str, Any], seed: int, base: Path, source: str
) -> TrainSettings:
    """Return the settings of one training; ``base`` is the folder to which its paths are relative."""
    start = values.get("start")
    settings: TrainSettings = check_keys(
        TrainSettings,
        {
            **resolve_training_paths(values, base),
            "size": size,
            "mechanism": rule,
            "mechanism_settings": dict(options),
            "seed": seed,
            "start": None if start is None else str(base / str(start)),
        },
        source,
        "The training settings have errors.",
        prefix="train",
    )
    return settings


def _check_shared(settings: TrainSettings, origin: TrainSettings, setting: str, source: str) -> None:
    """Raise InputError where a training cannot continue its pretraining."""
    problems = [
        Problem(
            f"settings.{setting}: {key} is {getattr(settings, name)} in train and {getattr(origin, name)} in pretrain",
            "use the same in both", file=source,
        )
        for key, name in SHARED.items()
        if getattr(settings, name) != getattr(origin, name)
    ]  # fmt: skip
    if problems:
        raise InputError("Training cannot go on from the pretraining.", problems)


def check_before_images(settings: ComparisonSettings, base: Path, source: str) -> None:
    """Check what needs no image: settings of mechanisms, engine, encoder, metrics, attributes.

    Raises InputError with all problems of one of these kinds.
    """
    with settings_key("engine_settings", source):
        check_engine(settings.engine, settings.engine_settings)
    with settings_key("evaluate.encoder", source):
        load_encoder(settings.evaluate.encoder)
    with settings_key("evaluate.metrics", source):
        select_metrics(settings.evaluate.metrics, train=False, labels=False)
    if settings.phantom is not None:
        levels = phantom_levels()
        check_attributes(settings, levels, source)
        check_mechanism_options(settings.mechanisms, Groups(tuple(levels.items())), settings.seeds[0], base, source)
    else:
        inline = not isinstance(settings.cohort, str)
        file = source if inline else str(base / str(settings.cohort))
        spec = parse_spec(settings.cohort if inline else read_yaml(file), file)  # type: ignore[arg-type]
        check_attributes(settings, spec.attributes, source)


def check_attributes(settings: ComparisonSettings, attributes: Collection[str], source: str) -> None:
    """Raise InputError for attributes of the measurement and the calibration that the cohort does not have."""
    names = [("evaluate.groups", name) for name in settings.evaluate.groups or []]
    if settings.calibrate is not None:
        names += [("calibrate.attribute", name) for name in attribute_parts(settings.calibrate.attribute)]
    problems = [
        Problem(f"{key}: '{name}' is not an attribute of the cohort", suggestion(name, attributes), file=source)
        for key, name in names
        if name not in attributes
    ]
    if not attributes:
        problems.append(Problem("the cohort has no attribute", "give 'attributes' in the cohort", file=source))
    if problems:
        raise InputError("The comparison's settings do not fit the cohort.", problems)


def check_against(against: str, hashes: Collection[str], source: str) -> None:
    """Raise InputError where sets are measured against reconstructions and there are several autoencoders."""
    if against == "reconstructions" and len(set(hashes)) > 1:
        problem = Problem(
            "evaluate.against is reconstructions, and the settings have different autoencoders",
            "make a comparison for each of them, or measure against images",
            file=source,
        )
        raise InputError("There is no one set of reconstructions.", [problem])


def check_images(
    settings: ComparisonSettings,
    runs: Mapping[Training, TrainSettings],
    cohort: Cohort,
    coders: Mapping[str, Autoencoder],
    paths: RunPaths,
    source: str,
) -> None:
    """Raise InputError unless the cohort has the images that every training, plan and measurement needs.

    ``coders``: the autoencoder of each training, by its path.
    """
    check_cohort({training.path: values for training, values in runs.items()}, cohort, coders, source)
    generators = {str(paths.generator(training).resolve()) for training in runs}
    starts = {
        training.path: values.model_copy(update={"start": None}) if values.start in generators else values
        for training, values in runs.items()
    }
    _check_calibration(settings, cohort, source)
    rows = {reads_text: _plan_rows(settings, cohort, values, source) for reads_text, values in
            {values.reads_text: values for values in runs.values()}.items()}  # fmt: skip
    tables = {f"plan '{name}'": table for name, table in next(iter(rows.values())).items()}  # they differ in prompts
    check_only(settings.evaluate.only, cohort, tables, source)
    check_starts(starts, cohort, coders, {name: rows[values.reads_text] for name, values in starts.items()}, source)


def _plan_rows(
    settings: ComparisonSettings, cohort: Cohort, training: TrainSettings, source: str
) -> dict[str, pd.DataFrame]:
    """Return the rows of every plan, with every guidance of its sets."""
    tables = {}
    for name, rows in plan_tables(settings.requests, cohort, training, source).items():
        curve = [settings.curve.guidance] if settings.curve is not None and settings.curve_plan == name else []
        copies = [rows.assign(guidance=float(guidance)) for guidance in [*settings.guidance, *curve]]
        tables[name] = pd.concat(copies, ignore_index=True)
    return tables


def _check_calibration(settings: ComparisonSettings, cohort: Cohort, source: str) -> None:
    """Raise InputError where the validation images or the budget are too few for a calibration."""
    calibrate = settings.calibrate
    if calibrate is None:
        return
    with settings_key("calibrate", source):
        validation = cohort.split("val", domain="id")
        check_cohorts(validation, None, calibrate.attribute)
        names, _ = eligible_groups(validation, calibrate.attribute, MIN_PATIENTS)
        images_per_group(calibrate.images, calibrate.budget, len(names), INITIAL_POINTS)
