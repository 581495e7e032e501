"""What trainings start from: the autoencoder of each, and pipelines with prompts, opened and checked early."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from equigen.cohort import Cohort, prompt_columns
from equigen.diffusion import (
    MINILM,
    PromptConditions,
    TextGenerator,
    Vocabulary,
    check_tokens,
    noise_schedule,
    pipeline_folder,
    requests,
)
from equigen.errors import InputError, Problem
from equigen.latents import SHIPPED, Autoencoder, load_autoencoder
from equigen.study.settings import beside
from equigen.study.settings_errors import at
from equigen.study.stage_settings import PlanRequest
from equigen.synthesis import plan
from equigen.training import TrainSettings, check_base, open_start

Rows = Mapping[str, pd.DataFrame]
# settings by which two trainings start from different weights, but for what a seed draws
KINDS = ("base", "start", "text_encoder", "tune", "rank", "alpha", "size", "preset", "prediction")


def placed(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Training settings of a file in ``folder``, with the folders that they name as seen from here."""
    named = {key: values[key] for key in ("base", "start", "text_encoder") if values.get(key) is not None}
    return {**values, **{key: place if place == MINILM else beside(folder, str(place)) for key, place in named.items()}}


def coder_place(autoencoder: str | None, folder: Path, chosen: TrainSettings) -> str:
    """Where the autoencoder of a training lies: of a base its own, else what the settings name, else ``shipped``."""
    if chosen.base is not None:
        return str(pipeline_folder(chosen.base).resolve())
    return SHIPPED if autoencoder in {None, SHIPPED} else str((folder / str(autoencoder)).resolve())


def open_coder(autoencoder: str | None, folder: Path, chosen: TrainSettings, device: str, source: str) -> Autoencoder:
    """The autoencoder of a training, which its images fit. Raises InputError."""
    with at("train.base" if chosen.base is not None else "autoencoder", source):
        coder = load_autoencoder(coder_place(autoencoder, folder, chosen), device)
    with at("size", source):
        coder.check_size(chosen.size)
    return coder


def request(asked: PlanRequest, cohort: Cohort, chosen: TrainSettings) -> dict[str, Any]:
    """What ``plan`` is called with: a generator that reads no prompts needs no captions."""
    needless = not chosen.reads_text and bool(prompt_columns(cohort.spec.prompt))
    return {**asked.model_dump(exclude_none=True), **({"captions": False} if needless else {})}


def planned(asked: Mapping[str, PlanRequest], cohort: Cohort, chosen: TrainSettings, source: str) -> Rows:
    """The rows of plans, by their names. Raises InputError for a plan that cannot be made, or asks for no image."""
    made = {}
    for name, own in asked.items():
        with at(f"plans.{name}", source):
            made[name] = plan(cohort, **request(own, cohort, chosen))
            if not len(made[name]):
                mend = "a 'complement' is empty when all groups are equally large"
                raise InputError("A plan is empty.", [Problem("asks for no image", mend)])
    return made


def check_starts(
    runs: Mapping[str, TrainSettings], cohort: Cohort, coders: Mapping[str, Autoencoder], rows: Mapping[str, Rows],
    source: str,
) -> dict[str, str]:
    """Open what trainings start from, each kind once, and ask all generators whether they can do the plans.

    ``coders``, ``rows``: autoencoder and plans of each run, by its name. Returns for each run with prompts a hash of
    what it starts from, beneath LoRA. Raises InputError for what cannot be opened, trained, gone on from or sampled,
    and for cohorts without prompts.
    """
    found: dict[str, str] = {}
    kinds: dict[str, str] = {}
    for name, chosen in runs.items():
        kind = chosen.model_dump_json(include=set(KINDS))
        if kind not in kinds:
            check = _check_text if chosen.reads_text else _check_tokens
            kinds[kind] = check(chosen, cohort, coders[name], rows[name], source)
        if chosen.reads_text:
            found[name] = kinds[kind]
    return found


def _check_tokens(chosen: TrainSettings, cohort: Cohort, coder: Autoencoder, rows: Rows, source: str) -> str:
    """A network that knows tokens; what it goes on from is of the training, not of a hash."""
    if chosen.start is not None:
        with at("train.start", source):
            open_start(chosen, Vocabulary.of(cohort), coder)
    for name, own in rows.items():
        with at(f"plans.{name}", source):
            check_tokens(requests(own)[0], noise_schedule(chosen.prediction))
    return ""


def _check_text(chosen: TrainSettings, cohort: Cohort, coder: Autoencoder, rows: Rows, source: str) -> str:
    """A pipeline with prompts, open no longer than it takes; a hash of it."""
    with at("train", source):
        PromptConditions(cohort.split("train", "val", domain="id"), chosen.drop_all, chosen.drop_one)
        start = check_base(chosen, coder)
    generator = TextGenerator(start.pipeline(), chosen.size)
    for name, own in rows.items():
        with at(f"plans.{name}", source):
            generator.check(own)
    return str(start.lora["base"]) if start.lora is not None else start.hash


def base_fact(chosen: TrainSettings) -> dict[str, str]:
    """What a report says under its title of what generators were trained from; nothing of networks that know tokens."""
    if not chosen.reads_text:
        return {}
    if chosen.base is not None:
        name = Path(chosen.base).name if Path(chosen.base).is_dir() else chosen.base
        return {"Base": f"{name}, {chosen.trainable_weights}"}
    return {"Text encoder": Path(str(chosen.text_encoder)).name}
