"""Checks of a study before its first expensive stage; every problem names the file and the key of the setting."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd
import torch

from equigen.cohort import Cohort, PhantomSettings, parse_spec
from equigen.config import check_keys, read_yaml, settings_key
from equigen.equity import Groups, build_mechanism, group_losses
from equigen.errors import InputError, Problem, suggestion
from equigen.latents import Autoencoder
from equigen.quality import LabelFilter, describe_label_filter, label_filter_problems, label_mask, load_encoder
from equigen.study.judges import check_judges
from equigen.study.mechanisms import check_mechanism_options, mechanism_choice
from equigen.study.settings import StudySettings, resolve_training_paths
from equigen.study.starting_points import check_starts, plan_tables
from equigen.training import TrainSettings, check_settings, choose_probe_rows, cohort_groups

PHANTOM_LABELS = ("glaucoma",)


def generator_settings(settings: StudySettings, folder: Path, source: str) -> dict[str, TrainSettings]:
    """Return each generator's settings by its name: the mechanism, with ``-seed<seed>`` if there are several seeds.

    ``folder``: folder of the settings file, to which its paths are relative. Raises InputError for a key of ``train``
    that is unknown or wrong.
    """
    runs = {}
    for mechanism, options in settings.mechanisms.items():
        rule, rest = mechanism_choice(mechanism, options, folder)
        for seed in settings.seeds:
            name = mechanism if len(settings.seeds) == 1 else f"{mechanism}-seed{seed}"
            values = {
                **resolve_training_paths(settings.train, folder),
                "size": settings.size,
                "mechanism": rule,
                "mechanism_settings": rest,
                "seed": seed,
            }
            title = "The training settings have errors."
            runs[name] = check_keys(TrainSettings, values, source, title, prefix="train")
    return runs


def check_before_images(settings: StudySettings, base: Path, source: str) -> None:
    """Check what needs no image: encoder, labels, attributes, and settings of mechanisms.

    Raises InputError with all problems of one of these kinds.
    """
    with settings_key("evaluate.encoder", source):
        load_encoder(settings.evaluate.encoder)
    if settings.screen is not None and settings.screen.encoder is not None:
        with settings_key("screen.encoder", source):
            load_encoder(settings.screen.encoder)
    if settings.phantom is not None:
        levels = phantom_levels()
        check_names(settings, PHANTOM_LABELS, levels, source)
        check_mechanism_options(settings.mechanisms, Groups(tuple(levels.items())), settings.seeds[0], base, source)
    else:
        inline = not isinstance(settings.cohort, str)
        file = source if inline else str(base / str(settings.cohort))
        spec = parse_spec(settings.cohort if inline else read_yaml(file), file)  # type: ignore[arg-type]
        check_names(settings, spec.labels, spec.attributes, source)
        if spec.prompt is None and (settings.train.get("base") or settings.train.get("text_encoder")):
            problem = Problem("train: the cohort has no 'prompt'", "write a template, or name a column", file=source)
            raise InputError("There are no prompts to train on.", [problem])


def phantom_levels() -> dict[str, tuple[str, ...]]:
    """Return the attributes of a phantom cohort with their levels."""
    phantom = PhantomSettings()
    return {"race": tuple(phantom.races), "sex": tuple(phantom.sexes)}


def check_names(settings: StudySettings, labels: Collection[str], attributes: Collection[str], source: str) -> None:
    """Raise InputError for labels and attributes of later stages that the cohort does not have."""
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
    trait = (settings.audit.standardise or "truth").removeprefix("attr.")
    if trait != "truth" and trait not in attributes:
        message = f"audit.standardise: '{trait}' is neither truth nor an attribute of the cohort"
        problems.append(Problem(message, suggestion(trait, attributes), file=source))
    if problems:
        raise InputError("The study's settings do not fit the cohort.", problems)


def check_only(only: LabelFilter, cohort: Cohort, plans: Mapping[str, pd.DataFrame], source: str) -> None:
    """Raise InputError unless the levels of ``evaluate.only`` exist and occur in the test split and in every plan.

    ``plans``: rows of the plans that are measured.
    """
    levels = {name: list(spec.levels or ()) for name, spec in cohort.labels.items()}
    problems = label_filter_problems(levels, only, "evaluate.only: ", source)
    tables = {"the test split": cohort.split("test", domain="id").frame, **plans}
    problems = problems or [
        Problem(
            f"evaluate.only: no image of {name} has {describe_label_filter(only)}", "name other levels", file=source
        )
        for name, table in tables.items()
        if not label_mask(table, only).any()
    ]
    if problems:
        raise InputError("The settings do not fit the cohort.", problems)


def check_cohort(
    runs: Mapping[str, TrainSettings], cohort: Cohort, coders: Mapping[str, Autoencoder], source: str
) -> None:
    """Raise InputError unless every split has images and every training fits the cohort and its autoencoder.

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
    for name, settings in runs.items():
        with settings_key(f"generator {name}", source):
            check_settings(settings, cohort, coders[name])
            _check_probe(settings, cohort)


def _check_probe(settings: TrainSettings, cohort: Cohort) -> None:
    """Give the mechanism the probe of the start of training, with all losses 1; it raises InputError if that is unfit.

    Without this check a study would fail only after the trainings before this one.
    """
    validation, groups = cohort.split("val", domain="id"), cohort_groups(cohort)
    if not groups.names:
        return
    index = torch.stack([torch.from_numpy(validation.groups(name)) for name in groups.attributes], dim=1)
    rows = choose_probe_rows(index, groups, settings.probe_images, settings.seed, "heldout")
    monitor = group_losses(torch.ones(len(rows), 1), index[rows], groups)
    build_mechanism(settings.mechanism, groups, settings.seed, **settings.mechanism_settings).observe_probe(monitor, 0)


def check_sets(
    settings: StudySettings, runs: Mapping[str, TrainSettings], cohort: Cohort, coder: Autoencoder, source: str
) -> dict[str, str]:
    """Check what the generators start from, the plans of their synthetic sets, and the judges that screen these.

    Returns for each generator with prompts a hash of the pipeline that it starts from. Raises InputError.
    """
    plans = {name: settings.plans[name] for name in required_plans(settings)}
    rows = plan_tables(plans, cohort, next(iter(runs.values())), source)  # the runs differ in mechanism and seed alone
    plan = settings.evaluate.plan
    check_only(settings.evaluate.only, cohort, {f"plan '{plan}'": rows[plan]}, source)
    check_judges(settings, cohort, source)
    return check_starts(runs, cohort, dict.fromkeys(runs, coder), dict.fromkeys(runs, rows), source)


def required_plans(settings: StudySettings) -> list[str]:
    """Return the names of the plans that a later stage reads."""
    pairs = [] if settings.pairs is None else [settings.pairs.plan]
    return list(dict.fromkeys([settings.evaluate.plan, settings.diagnose.plan, *pairs]))
