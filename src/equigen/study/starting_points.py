"""The weights that trainings start from: autoencoders and pretrained pipelines, opened and checked before training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from equigen.cohort import Cohort, prompt_columns
from equigen.config import settings_key
from equigen.diffusion import (
    PromptConditions,
    TextGenerator,
    Vocabulary,
    check_token_requests,
    noise_schedule,
    pipeline_folder,
    sampling_requests,
)
from equigen.errors import InputError, Problem
from equigen.latents import SHIPPED, Autoencoder, load_autoencoder
from equigen.study.stage_settings import PlanRequest
from equigen.synthesis import plan
from equigen.training import TrainSettings, check_base, open_start

Tables = Mapping[str, pd.DataFrame]
# settings that determine the weights at the start, apart from those that a seed draws
START_SETTINGS = ("base", "start", "text_encoder", "tune", "rank", "alpha", "size", "preset", "prediction")


def autoencoder_source(autoencoder: str | None, folder: Path, settings: TrainSettings) -> str:
    """Return the folder of a training's autoencoder: the base's own, else the one of the study, else ``shipped``."""
    if settings.base is not None:
        return str(pipeline_folder(settings.base).resolve())
    return SHIPPED if autoencoder in {None, SHIPPED} else str((folder / str(autoencoder)).resolve())


def open_autoencoder(
    autoencoder: str | None, folder: Path, settings: TrainSettings, device: str, source: str
) -> Autoencoder:
    """Open the autoencoder of a training. Raises InputError, also if the image size does not fit it."""
    with settings_key("train.base" if settings.base is not None else "autoencoder", source):
        coder = load_autoencoder(autoencoder_source(autoencoder, folder, settings), device)
    with settings_key("size", source):
        coder.check_size(settings.size)
    return coder


def plan_arguments(request: PlanRequest, cohort: Cohort, settings: TrainSettings) -> dict[str, Any]:
    """Return the arguments of ``plan``; there are no captions for a generator that reads no prompts."""
    needless = not settings.reads_text and bool(prompt_columns(cohort.spec.prompt))
    return {**request.model_dump(exclude_none=True), **({"captions": False} if needless else {})}


def plan_tables(plans: Mapping[str, PlanRequest], cohort: Cohort, settings: TrainSettings, source: str) -> Tables:
    """Return the rows of each plan, by its name. Raises InputError for a plan that is impossible or empty."""
    tables = {}
    for name, request in plans.items():
        with settings_key(f"plans.{name}", source):
            tables[name] = plan(cohort, **plan_arguments(request, cohort, settings))
            if not len(tables[name]):
                mend = "a 'complement' is empty when all groups are equally large"
                raise InputError("A plan is empty.", [Problem("asks for no image", mend)])
    return tables


def check_starts(
    runs: Mapping[str, TrainSettings],
    cohort: Cohort,
    coders: Mapping[str, Autoencoder],
    plans: Mapping[str, Tables],
    source: str,
) -> dict[str, str]:
    """Open the weights that trainings start from, once each, and check that every generator can follow its plans.

    ``coders``, ``plans``: autoencoder and rows of the plans of each run, by its name. Returns for each run with prompts
    a hash of its pipeline, without LoRA. Raises InputError for weights that cannot be opened, trained, continued or
    sampled, and for cohorts without prompts.
    """
    hashes: dict[str, str] = {}
    checked: dict[str, str] = {}
    for name, settings in runs.items():
        key = settings.model_dump_json(include=set(START_SETTINGS))
        if key not in checked:
            check = _check_prompt_start if settings.reads_text else _check_token_start
            checked[key] = check(settings, cohort, coders[name], plans[name], source)
        if settings.reads_text:
            hashes[name] = checked[key]
    return hashes


def _check_token_start(settings: TrainSettings, cohort: Cohort, coder: Autoencoder, plans: Tables, source: str) -> str:
    """Check a generator that is conditioned on tokens; the hash is empty, since its key is that of the training."""
    if settings.start is not None:
        with settings_key("train.start", source):
            open_start(settings, Vocabulary.from_cohort(cohort), coder)
    for name, rows in plans.items():
        with settings_key(f"plans.{name}", source):
            check_token_requests(sampling_requests(rows)[0], noise_schedule(settings.prediction))
    return ""


def _check_prompt_start(settings: TrainSettings, cohort: Cohort, coder: Autoencoder, plans: Tables, source: str) -> str:
    """Check a pipeline that is conditioned on prompts; return its hash."""
    with settings_key("train", source):
        PromptConditions(cohort.split("train", "val", domain="id"), settings.drop_all, settings.drop_one)
        start = check_base(settings, coder)
    generator = TextGenerator(start.pipeline(), settings.size)
    for name, rows in plans.items():
        with settings_key(f"plans.{name}", source):
            generator.check(rows)
    return str(start.lora["base"]) if start.lora is not None else start.hash


def base_fact(settings: TrainSettings) -> dict[str, str]:
    """Return the report's entry on the base or text encoder of generators with prompts; empty for others."""
    if not settings.reads_text:
        return {}
    if settings.base is not None:
        name = Path(settings.base).name if Path(settings.base).is_dir() else settings.base
        return {"Base": f"{name}, {settings.trainable_weights}"}
    return {"Text encoder": Path(str(settings.text_encoder)).name}
