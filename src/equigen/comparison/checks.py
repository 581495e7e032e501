"""The trainings of a comparison, and what can be known to fail before the first of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from equigen.cohort import Cohort, PhantomSettings, parse_spec, read_yaml, suggestion
from equigen.comparison.paths import Member, Places
from equigen.comparison.runners.cluster import check_engine
from equigen.comparison.settings import PRETRAINED, ComparisonSettings
from equigen.equity import Groups, build, names
from equigen.errors import InputError, Problem
from equigen.latents import Autoencoder
from equigen.quality import load_encoder, select_metrics
from equigen.study import (
    DiagnoseSettings,
    EvaluateSettings,
    PlanSettings,
    StudySettings,
    at,
    check_cohort,
    check_keys,
    check_only,
    check_starts,
    placed,
    planned,
)
from equigen.synthesis import INITIAL_POINTS, attribute_parts, check_cohorts, eligible_groups, images_per_group
from equigen.training import TrainSettings

# what a training can only go on from a generator that has the same
SHARED = {"preset": "preset", "prediction": "prediction", "base": "base", "text_encoder": "text_encoder",
          "tune": "tuned", "rank": "rank", "alpha": "alpha"}  # fmt: skip
MIN_PATIENTS = 30                   # in a group, for a guidance of its own
BASE_SEED = 1000                    # added to a pretraining's seed, so that going on does not see the same noise again


def trainings(settings: ComparisonSettings, places: Places, base: Path, source: str) -> dict[Member, TrainSettings]:
    """Settings of every training, pretrainings before those that go on from them.

    Raises InputError for a key of ``train``, ``pretrain`` or ``settings`` that is unknown or wrong.
    """
    made: dict[Member, TrainSettings] = {}
    for setting, changes in settings.settings.items():
        train = {**settings.train, **{key: value for key, value in changes.items() if key != "pretrain"}}
        first = None if settings.pretrain is None else {**settings.pretrain, **changes.get("pretrain", {})}
        for seed in settings.seeds:
            origin = Member(setting, PRETRAINED, seed)
            if first is not None:
                made[origin] = _settings(settings.size, {**train, **first}, "none", {}, BASE_SEED + seed, base, source)
            for name, own in settings.mechanisms.items():
                rest = {key: value for key, value in own.items() if key != "mechanism"}
                values = train if first is None else {**train, "start": str(places.generator(origin).resolve())}
                rule = str(own.get("mechanism", name))
                made[Member(setting, name, seed)] = _settings(settings.size, values, rule, rest, seed, base, source)
                if first is not None:
                    _check_shared(made[Member(setting, name, seed)], made[origin], setting, source)
    return made


def _settings(
    size: int, values: Mapping[str, Any], rule: str, own: Mapping[str, Any], seed: int, base: Path, source: str
) -> TrainSettings:
    """One training; what the file names is looked for beside it."""
    start = values.get("start")
    whole = {
        **placed(values, base),
        "size": size,
        "mechanism": rule,
        "mechanism_settings": dict(own),
        "seed": seed,
        "start": None if start is None else str(base / str(start)),
    }
    title = "The training settings have errors."
    checked: TrainSettings = check_keys(TrainSettings, whole, source, title, under="train")
    return checked


def _check_shared(own: TrainSettings, origin: TrainSettings, setting: str, source: str) -> None:
    """InputError where a mechanism could not go on from its pretraining."""
    problems = [
        Problem(f"settings.{setting}: {key} is {getattr(own, name)} in train and {getattr(origin, name)} in pretrain",
                "use the same in both", file=source)
        for key, name in SHARED.items()
        if getattr(own, name) != getattr(origin, name)
    ]
    if problems:
        raise InputError("Training cannot go on from the pretraining.", problems)


def check_names_early(settings: ComparisonSettings, base: Path, source: str) -> None:
    """Checks that need no image: mechanisms, encoder, metrics, engine, attributes.

    Raises InputError with all that is wrong in one of these respects.
    """
    known = names()
    rules = {name: str(own.get("mechanism", name)) for name, own in settings.mechanisms.items()}
    problems = [
        Problem(f"mechanisms.{name}: there is no mechanism '{rule}'", suggestion(rule, known), file=source)
        for name, rule in rules.items()
        if rule not in known
    ]
    if problems:
        raise InputError("There is no such mechanism.", problems)
    with at("engine_settings", source):
        check_engine(settings.engine, settings.engine_settings)
    with at("evaluate.encoder", source):
        load_encoder(settings.evaluate.encoder)
    with at("evaluate.metrics", source):
        select_metrics(settings.evaluate.metrics, train=False, labels=False)
    if settings.phantom is not None:
        shape = PhantomSettings()
        levels = {"race": tuple(shape.races), "sex": tuple(shape.sexes)}
        check_attributes(settings, levels, source)
        _check_mechanisms(settings, Groups(tuple(levels.items())), source)
    else:
        inline = not isinstance(settings.cohort, str)
        place = source if inline else str(base / str(settings.cohort))
        spec = parse_spec(settings.cohort if inline else read_yaml(place), place)  # type: ignore[arg-type]
        check_attributes(settings, spec.attributes, source)


def check_attributes(settings: ComparisonSettings, attributes: Collection[str], source: str) -> None:
    """Attributes that measuring and calibration will ask for. Raises InputError for those that are not there."""
    asked = [("evaluate.groups", name) for name in settings.evaluate.groups or []]
    if settings.calibrate is not None:
        asked += [("calibrate.attribute", name) for name in attribute_parts(settings.calibrate.attribute)]
    problems = [
        Problem(f"{key}: '{name}' is not an attribute of the cohort", suggestion(name, attributes), file=source)
        for key, name in asked
        if name not in attributes
    ]
    if not attributes:
        problems.append(Problem("the cohort has no attribute", "give 'attributes' in the cohort", file=source))
    if problems:
        raise InputError("The comparison's settings do not fit the cohort.", problems)


def _check_mechanisms(settings: ComparisonSettings, groups: Groups, source: str) -> None:
    """Settings of the mechanisms, on known groups."""
    for name, own in settings.mechanisms.items():
        rest = {key: value for key, value in own.items() if key != "mechanism"}
        with at(f"mechanisms.{name}", source):
            build(str(own.get("mechanism", name)), groups, settings.seeds[0], **rest)


def check_against(against: str, hashes: Collection[str], source: str) -> None:
    """InputError where sets cannot be measured against reconstructions, since there are several autoencoders."""
    if against == "reconstructions" and len(set(hashes)) > 1:
        problem = Problem("evaluate.against is reconstructions, and the settings have different autoencoders",
                          "make a comparison for each of them, or measure against images", file=source)
        raise InputError("There is no one set of reconstructions.", [problem])


def as_study(settings: ComparisonSettings) -> StudySettings:
    """The parts of a comparison that a study has too: its cohort, trainings and plans."""
    first = next(iter(settings.plans))
    return StudySettings(
        **{key: getattr(settings, key) for key in
           ("name", "cohort", "phantom", "quarantine", "size", "autoencoder", "mechanisms", "seeds")},
        plans={name: PlanSettings(**asked.model_dump()) for name, asked in settings.plans.items()},
        evaluate=EvaluateSettings(plan=first),
        diagnose=DiagnoseSettings(plan=first),
    )


def check_images(
    settings: ComparisonSettings,
    runs: Mapping[Member, TrainSettings],
    cohort: Cohort,
    coders: Mapping[str, Autoencoder],
    places: Places,
    source: str,
) -> None:
    """Whether there are images to train on, steer by and measure against, for every training and plan.

    ``coders``: the autoencoder of each training, by its path. Raises InputError.
    """
    check_cohort({member.path: chosen for member, chosen in runs.items()}, cohort, coders, source)
    own = {str(places.generator(member).resolve()) for member in runs}
    first = {
        member.path: chosen.model_copy(update={"start": None}) if chosen.start in own else chosen
        for member, chosen in runs.items()
    }
    _check_calibration(settings, cohort, source)
    rows = {text: _asked(settings, cohort, chosen, source) for text, chosen in
            {chosen.reads_text: chosen for chosen in runs.values()}.items()}  # fmt: skip
    first_rows = next(iter(rows.values()))  # they differ in prompts alone
    named = {f"plan '{name}'": asked for name, asked in first_rows.items()}
    check_only(settings.evaluate.only, cohort, named, source)
    check_starts(first, cohort, coders, {name: rows[chosen.reads_text] for name, chosen in first.items()}, source)


def _asked(
    settings: ComparisonSettings, cohort: Cohort, chosen: TrainSettings, source: str
) -> dict[str, pd.DataFrame]:
    """Rows of every plan at every guidance that it is asked for."""
    found = {}
    for name, rows in planned(settings.requests, cohort, chosen, source).items():
        curve = [settings.curve.guidance] if settings.curve is not None and settings.curve_plan == name else []
        each = [rows.assign(guidance=float(value)) for value in [*settings.guidance, *curve]]
        found[name] = pd.concat(each, ignore_index=True)
    return found


def _check_calibration(settings: ComparisonSettings, cohort: Cohort, source: str) -> None:
    """InputError where the validation images or the budget cannot carry a calibration."""
    asked = settings.calibrate
    if asked is None:
        return
    with at("calibrate", source):
        tune = cohort.split("val", domain="id")
        check_cohorts(tune, None, asked.attribute)
        names, _ = eligible_groups(tune, asked.attribute, MIN_PATIENTS)
        images_per_group(asked.images, asked.budget, len(names), INITIAL_POINTS)
