"""From a cohort and a text-to-image pipeline to a fine-tuned one, or to LoRA weights for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from equigen.checkpoints import Tensors
from equigen.cohort import Cohort, Manifest, write_trained_on
from equigen.diffusion import (
    Pretrained,
    PromptConditions,
    Table,
    TextDenoiser,
    TextGenerator,
    objective_of,
    open_any_generator,
    prompt_table,
    save_lora,
    warn_of_long_prompts,
)
from equigen.equity import build
from equigen.files import convert_disk_full
from equigen.latents import Autoencoder
from equigen.progress import console
from equigen.training.cohort_data import Sides
from equigen.training.datasets import prepare_sides
from equigen.training.gradients import check_batch
from equigen.training.grids import GUIDANCE, STEPS, Draw, group_grids
from equigen.training.loop import Images, Trainer
from equigen.training.pipeline import Base, base_of, latent_scale, text_key
from equigen.training.run import Run, finished, write_record
from equigen.training.settings import TrainSettings


def train_text(
    cohort: Cohort | Manifest, settings: TrainSettings, folder: Path, cache: str | Path, coder: Autoencoder,
    accelerator: Accelerator, show: bool,
) -> Run:
    """Fine-tune a text-to-image pipeline on a cohort's training split, with an equity mechanism.

    Latents and prompt embeddings are encoded once and kept below ``cache``. Full training writes a folder that plain
    diffusers opens, LoRA one that its ``load_lora_weights`` takes; ``equigen.json`` beside the weights says where they
    come from. ``coder``: the autoencoder of a network that is trained from scratch.
    """
    check_batch(settings.batch, accelerator.num_processes, settings.accumulate)
    device = str(accelerator.device)
    with accelerator.main_process_first():
        base = base_of(settings, coder, lambda: latent_scale(cohort, coder, cache, settings.size, show))
    pretrained = base.ready(device)
    pretrained.check_size(settings.size)
    TextGenerator(pretrained.pipeline(), settings.size)  # what cannot be sampled is not worth training
    if settings.size != pretrained.size and accelerator.is_main_process:
        console.print(f"[yellow]The base was made for {pretrained.size} px; training at {settings.size}.[/yellow]")
    key = text_key(cohort, pretrained.hash, settings)
    if finished(folder, key):
        return Run(folder, folder.name)
    whole = cohort.split("train", "val", domain="id")
    conditions = PromptConditions(whole, settings.drop_all, settings.drop_one)
    if accelerator.is_main_process:
        warn_of_long_prompts(conditions, pretrained.excess)
    statistics = (list(pretrained.mean), list(pretrained.std))
    sides = prepare_sides(cohort, pretrained.autoencoder, cache, settings, accelerator, show, statistics)
    training = (whole.frame["split"] == "train").to_numpy()
    with accelerator.main_process_first():
        table = prompt_table(pretrained, conditions.texts, Path(cache) / "prompts", show=show)
    pretrained.autoencoder.to("cpu")
    if not pretrained.trains_text:
        pretrained.text_to("cpu")
    sides = with_prompts(sides, conditions, training)
    trainer = _trainer(base, pretrained, table, conditions, training, sides, folder, key, accelerator)
    trainer.run(show)
    weights = trainer.weights()
    if accelerator.is_main_process:
        with convert_disk_full(folder):
            _write(base, weights, table, trainer, folder)
            made = open_any_generator(folder, "cpu")
            write_trained_on(folder, cohort, key, settings.start or settings.base)
            write_record(trainer, made.hash, pretrained.autoencoder.hash, folder)
    accelerator.wait_for_everyone()
    return Run(folder, folder.name)


def with_prompts(sides: Sides, conditions: PromptConditions, training: NDArray[np.bool_]) -> Sides:
    """Prompt numbers [N, 1] in place of tokens."""
    train, held_out = (
        replace(data, ids=own.plain(torch.arange(len(own))) if len(own) else torch.zeros(0, 1, dtype=torch.int64))
        for data, own in ((sides.train, conditions.take(training)), (sides.held_out, conditions.take(~training)))
    )
    return replace(sides, train=train, held_out=held_out)


def _trainer(
    base: Base, pretrained: Pretrained, table: Table, conditions: PromptConditions, training: NDArray[np.bool_],
    sides: Sides, folder: Path, key: str, accelerator: Accelerator,
) -> Trainer:
    """The loop, with what it needs to keep generators and to show samples on the way."""
    settings, cohort_groups = base.settings, sides.train.groups

    def keep(trainer: Trainer, weights: Tensors) -> None:
        _write(base, weights, table, trainer, folder / "snapshots" / f"{trainer.seen:09d}")

    def grids(trainer: Trainer) -> Images:
        weights = trainer.weights(now=True)
        if not accelerator.is_main_process:
            return {}
        shown = sides.held_out if len(sides.held_out.latents) else sides.train
        # the network has averaged weights now; where each process holds a part of it, a whole one is made
        source = pretrained if settings.sharding == "none" else _filled(base, weights, table, "cpu")
        with _whole_on(source, accelerator.device) as pipeline:
            return group_grids(_draws(TextGenerator(pipeline, settings.size), conditions.texts), shown, settings.seed)

    rule = build(settings.mechanism, cohort_groups, settings.seed, **settings.mechanism_settings)
    return Trainer(
        pretrained.denoiser(table), objective_of(pretrained.scheduler), conditions.take(training), sides.train,
        sides.held_out, rule, settings, folder / "checkpoint.safetensors", key, accelerator, keep, grids,
    )  # fmt: skip


@contextmanager
def _whole_on(source: Pretrained, device: torch.device) -> Iterator[Any]:
    """The plain pipeline with all its parts on one device, while the block runs."""
    places = source.autoencoder.device, source.text_device
    try:
        yield source.to(device).pipeline()
    finally:
        source.autoencoder.to(places[0])
        source.text_to(places[1])


def _draws(generator: TextGenerator, texts: Sequence[str]) -> Draw:
    """How a text-to-image pipeline draws samples."""
    def draw(ids: torch.Tensor, seeds: list[int]) -> NDArray[np.uint8]:
        asked = pd.DataFrame({"prompt": [texts[number] for number in ids[:, 0].tolist()]})
        return generator(asked, seeds, guidance=GUIDANCE, steps=STEPS)

    return draw


def _filled(base: Base, weights: Tensors, table: Table, device: str) -> Pretrained:
    """The pipeline anew, with these trained weights, sharing nothing with what is being trained."""
    fresh = base.ready(device)
    module: TextDenoiser = fresh.denoiser(table)
    parameters = dict(module.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            parameters[name].copy_(value)
    return fresh


def _write(base: Base, weights: Tensors, table: Table, trainer: Trainer, folder: Path) -> None:
    """A generator of these weights: a whole pipeline, or LoRA weights."""
    settings = base.settings
    equity = {"mechanism": settings.mechanism, "settings": settings.mechanism_settings, "seed": settings.seed}
    record = {"size": settings.size, "equity": equity, "images_seen": trainer.seen}
    with convert_disk_full(folder):
        fresh = _filled(base, weights, table, "cpu")
        if fresh.lora is None:
            fresh.save(folder, record)
        else:
            save_lora(fresh, folder, record)

