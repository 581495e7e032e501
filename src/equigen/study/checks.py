"""What can be known to fail before the first expensive stage of a study, found then, with file and key."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd
import torch

from equigen.cohort import Cohort, PhantomSettings, parse_spec, read_yaml, suggestion
from equigen.equity import Groups, build, group_losses, names
from equigen.errors import InputError, Problem
from equigen.latents import Autoencoder
from equigen.quality import LabelFilter, describe_label_filter, label_filter_problems, label_mask, load_encoder
from equigen.study.judges import check_judges
from equigen.study.settings import StudySettings, check_keys
from equigen.study.settings_errors import at
from equigen.study.starting_points import check_starts, placed, planned
from equigen.training import TrainSettings, check_settings, choose_probe_rows, cohort_groups

PHANTOM_LABELS = ("glaucoma",)


def generators(settings: StudySettings, folder: Path, source: str) -> dict[str, TrainSettings]:
    """Settings of every generator by its name: the mechanism, with ``-seed<seed>`` where there are several seeds.

    ``folder``: where the file lies that paths are relative to. Raises InputError for a key of ``train`` that is unknown
    or wrong.
    """
    runs = {}
    for mechanism, own in settings.mechanisms.items():
        for seed in settings.seeds:
            name = mechanism if len(settings.seeds) == 1 else f"{mechanism}-seed{seed}"
            values = {
                **placed(settings.train, folder),
                "size": settings.size,
                "mechanism": str(own.get("mechanism", mechanism)),
                "mechanism_settings": {key: value for key, value in own.items() if key != "mechanism"},
                "seed": seed,
            }
            title = "The training settings have errors."
            runs[name] = check_keys(TrainSettings, values, source, title, under="train")
    return runs


def check_early(settings: StudySettings, base: Path, source: str) -> None:
    """Checks that need no image: names of mechanisms, encoder, labels and attributes.

    Raises InputError with all that is wrong in one of these respects.
    """
    known = names()
    problems = [
        Problem(f"mechanisms.{name}: there is no mechanism '{rule}'", suggestion(rule, known), file=source)
        for name, rule in (
            (name, str(own.get("mechanism", name))) for name, own in settings.mechanisms.items()
        )
        if rule not in known
    ]
    if problems:
        raise InputError("There is no such mechanism.", problems)
    with at("evaluate.encoder", source):
        load_encoder(settings.evaluate.encoder)
    if settings.screen is not None and settings.screen.encoder is not None:
        with at("screen.encoder", source):
            load_encoder(settings.screen.encoder)
    if settings.phantom is not None:
        shape = PhantomSettings()
        levels = {"race": tuple(shape.races), "sex": tuple(shape.sexes)}
        check_names(settings, PHANTOM_LABELS, levels, source)
        _check_mechanisms(settings, Groups(tuple(levels.items())), source)
    else:
        inline = not isinstance(settings.cohort, str)
        place = source if inline else str(base / str(settings.cohort))
        spec = parse_spec(settings.cohort if inline else read_yaml(place), place)  # type: ignore[arg-type]
        check_names(settings, spec.labels, spec.attributes, source)
        if spec.prompt is None and (settings.train.get("base") or settings.train.get("text_encoder")):
            problem = Problem("train: the cohort has no 'prompt'", "write a template, or name a column", file=source)
            raise InputError("There are no prompts to train on.", [problem])


def _check_mechanisms(settings: StudySettings, groups: Groups, source: str) -> None:
    """Settings of the mechanisms, on known groups."""
    for name, own in settings.mechanisms.items():
        rest = {key: value for key, value in own.items() if key != "mechanism"}
        with at(f"mechanisms.{name}", source):
            build(str(own.get("mechanism", name)), groups, settings.seeds[0], **rest)


def check_names(
    settings: StudySettings, labels: Collection[str], attributes: Collection[str], source: str
) -> None:
    """Labels and attributes that later stages will ask for. Raises InputError for those the cohort does not have."""
    label, problems = settings.diagnose.label, []
    if not labels:
        problems.append(Problem("the cohort has no label", "give 'labels' in the cohort", file=source))
    elif label is not None and label not in labels:
        message = f"diagnose.label: '{label}' is not a label of the cohort"
        problems.append(Problem(message, suggestion(label, labels), file=source))
    for stage in ("evaluate", "audit"):
        problems += [
            Problem(
                f"{stage}.groups: '{name}' is not an attribute of the cohort", suggestion(name, attributes), file=source
            )
            for name in getattr(settings, stage).groups or []
            if name not in attributes
        ]
    if problems:
        raise InputError("The study's settings do not fit the cohort.", problems)


def check_only(only: LabelFilter, cohort: Cohort, plans: Mapping[str, pd.DataFrame], source: str) -> None:
    """Whether the diagnoses that the measurement is kept to are the cohort's, with images of them on both sides.

    ``plans``: rows of the plans that are measured. Raises InputError.
    """
    known = {name: list(spec.levels or ()) for name, spec in cohort.labels.items()}
    problems = label_filter_problems(known, only, "evaluate.only: ", source)
    sides = {"the test split": cohort.split("test", domain="id").frame, **plans}
    problems = problems or [
        Problem(f"evaluate.only: no image of {side} has {describe_label_filter(only)}", "name other levels",
                file=source)
        for side, frame in sides.items() if not label_mask(frame, only).any()
    ]
    if problems:
        raise InputError("The settings do not fit the cohort.", problems)


def check_cohort(
    runs: Mapping[str, TrainSettings], cohort: Cohort, coders: Mapping[str, Autoencoder], source: str
) -> None:
    """Whether every stage has images to work on, and mechanisms their groups. Raises InputError.

    ``coders``: the autoencoder of each run.
    """
    test = cohort.frame["domain"].where(cohort.frame["split"] == "test")
    counts = {"train": 0, "val": 0, **cohort.frame["split"].value_counts()}
    counts["test (in distribution)"] = int((test == "id").sum())
    counts.pop("test", None)
    empty = [
        Problem(f"split {name} has no image", "change 'split' of the cohort, or add images")
        for name, count in counts.items()
        if not count
    ]
    if empty:
        raise InputError("A study needs images for training, validation and testing.", empty)
    for name, chosen in runs.items():
        with at(f"generator {name}", source):
            check_settings(chosen, cohort, coders[name])
            _check_probe(chosen, cohort)


def _check_probe(chosen: TrainSettings, cohort: Cohort) -> None:
    """Show the mechanism the probe that it will get at the start of training, with losses that are all 1.

    It refuses a probe that cannot steer it; without this a study would learn so after hours of other trainings.
    """
    validation, groups = cohort.split("val", domain="id"), cohort_groups(cohort)
    if not groups.names:
        return
    index = torch.stack([torch.from_numpy(validation.groups(name)) for name in groups.attributes], dim=1)
    rows = choose_probe_rows(index, groups, chosen.probe_images, chosen.seed, "heldout")
    monitor = group_losses(torch.ones(len(rows), 1), index[rows], groups)
    build(chosen.mechanism, groups, chosen.seed, **chosen.mechanism_settings).observe_probe(monitor, 0)


def check_sets(
    settings: StudySettings, runs: Mapping[str, TrainSettings], cohort: Cohort, coder: Autoencoder, source: str
) -> dict[str, str]:
    """Whether the generators can be trained from what they start from, make their sets, and have these screened.

    Returns for each generator with prompts a hash of what it starts from. Raises InputError.
    """
    used = {name: settings.plans[name] for name in used_plans(settings)}
    rows = planned(used, cohort, next(iter(runs.values())), source)  # they differ in mechanism and seed alone
    measured = settings.evaluate.plan
    check_only(settings.evaluate.only, cohort, {f"plan '{measured}'": rows[measured]}, source)
    check_judges(settings, cohort, source)
    return check_starts(runs, cohort, dict.fromkeys(runs, coder), dict.fromkeys(runs, rows), source)


def used_plans(settings: StudySettings) -> list[str]:
    """The plans that a later stage reads."""
    pairs = [] if settings.pairs is None else [settings.pairs.plan]
    return list(dict.fromkeys([settings.evaluate.plan, settings.diagnose.plan, *pairs]))
