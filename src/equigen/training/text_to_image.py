"""Fine-tuning of a text-to-image pipeline on a cohort's prompts, in full or by LoRA."""

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
    PromptTable,
    TextDenoiser,
    TextGenerator,
    objective_of,
    open_any_generator,
    prompt_table,
    save_lora,
    warn_of_long_prompts,
)
from equigen.equity import build_mechanism
from equigen.files import convert_disk_full
from equigen.latents import Autoencoder
from equigen.progress import console
from equigen.training.datasets import LatentSplits, prepare_splits
from equigen.training.gradients import check_batch
from equigen.training.loop import Images, Trainer
from equigen.training.pipeline import PipelineFactory, latent_scale, pipeline_factory, text_key
from equigen.training.run import Run, is_finished, write_record
from equigen.training.settings import TrainSettings
from equigen.training.trackers import GUIDANCE, STEPS, Sampler, group_grids


def train_text(
    cohort: Cohort | Manifest,
    settings: TrainSettings,
    folder: Path,
    cache: str | Path,
    autoencoder: Autoencoder,
    accelerator: Accelerator,
    show: bool,
) -> Run:
    """Fine-tune a text-to-image pipeline on a cohort's training split, with an equity mechanism.

    Latents and prompt embeddings are encoded once and kept below ``cache``. Full training writes a folder that plain
    diffusers opens, LoRA one that its ``load_lora_weights`` opens; ``equigen.json`` beside the weights records their
    provenance. ``autoencoder``: of a network that is trained from scratch.
    """
    check_batch(settings.batch, accelerator.num_processes, settings.accumulate)
    device = str(accelerator.device)
    with accelerator.main_process_first():
        base = pipeline_factory(
            settings, autoencoder, lambda: latent_scale(cohort, autoencoder, cache, settings.size, show)
        )
    pretrained = base.open_trainable(device)
    pretrained.check_size(settings.size)
    TextGenerator(pretrained.pipeline(), settings.size)  # refuses what cannot be sampled
    if settings.size != pretrained.size and accelerator.is_main_process:
        console.print(f"[yellow]The base was made for {pretrained.size} px; training at {settings.size}.[/yellow]")
    key = text_key(cohort, pretrained.hash, settings)
    if is_finished(folder, key):
        return Run(folder, folder.name)
    images = cohort.split("train", "val", domain="id")
    conditions = PromptConditions(images, settings.drop_all, settings.drop_one)
    if accelerator.is_main_process:
        warn_of_long_prompts(conditions, pretrained.excess)
    statistics = (list(pretrained.mean), list(pretrained.std))
    splits = prepare_splits(cohort, pretrained.autoencoder, cache, settings, accelerator, show, statistics)
    training = (images.frame["split"] == "train").to_numpy()
    with accelerator.main_process_first():
        table = prompt_table(pretrained, conditions.texts, Path(cache) / "prompts", show=show)
    pretrained.autoencoder.to("cpu")
    if not pretrained.trains_text:
        pretrained.move_text_encoders("cpu")
    splits = use_prompts(splits, conditions, training)
    trainer = _build_trainer(base, pretrained, table, conditions, training, splits, folder, key, accelerator)
    trainer.run(show)
    weights = trainer.weights()
    if accelerator.is_main_process:
        with convert_disk_full(folder):
            _write(base, weights, table, trainer, folder)
            generator = open_any_generator(folder, "cpu")
            write_trained_on(folder, cohort, key, settings.start or settings.base)
            write_record(trainer, generator.hash, pretrained.autoencoder.hash, folder)
    accelerator.wait_for_everyone()
    return Run(folder, folder.name)


def use_prompts(splits: LatentSplits, conditions: PromptConditions, training: NDArray[np.bool_]) -> LatentSplits:
    """Return the splits with prompt numbers [N, 1] in place of tokens; ``training``: rows of the training split."""
    ids = conditions.complete(torch.arange(len(conditions)))
    mask = torch.from_numpy(training.copy())  # a column of a table cannot be written to
    train, held_out = replace(splits.train, ids=ids[mask]), replace(splits.held_out, ids=ids[~mask])
    return replace(splits, train=train, held_out=held_out)


def _build_trainer(
    base: PipelineFactory,
    pretrained: Pretrained,
    table: PromptTable,
    conditions: PromptConditions,
    training: NDArray[np.bool_],
    splits: LatentSplits,
    folder: Path,
    key: str,
    accelerator: Accelerator,
) -> Trainer:
    """Return the trainer, with its callbacks that save snapshots and sample grids."""
    settings, groups = base.settings, splits.train.groups

    def save_snapshot(trainer: Trainer, weights: Tensors) -> None:
        _write(base, weights, table, trainer, folder / "snapshots" / f"{trainer.images_seen:09d}")

    def sample_grids(trainer: Trainer) -> Images:
        weights = trainer.weights(current=True)
        if not accelerator.is_main_process:
            return {}
        dataset = splits.held_out if len(splits.held_out.latents) else splits.train
        # the network has averaged weights now; where each process holds a part of it, a whole one is made
        source = pretrained if settings.sharding == "none" else _pipeline_with_weights(base, weights, table, "cpu")
        with _pipeline_on_device(source, accelerator.device) as pipeline:
            sampler = _prompt_sampler(TextGenerator(pipeline, settings.size), conditions.texts)
            return group_grids(sampler, dataset, settings.seed)

    rule = build_mechanism(settings.mechanism, groups, settings.seed, **settings.mechanism_settings)
    return Trainer(
        pretrained.denoiser(table), objective_of(pretrained.scheduler), conditions.take(training), splits.train,
        splits.held_out, rule, settings, folder / "checkpoint.safetensors", key, accelerator, save_snapshot,
        sample_grids,
    )  # fmt: skip


@contextmanager
def _pipeline_on_device(source: Pretrained, device: torch.device) -> Iterator[Any]:
    """Yield the diffusers pipeline with all components on one device, and move them back after the block."""
    devices = source.autoencoder.device, source.text_device
    try:
        yield source.to(device).pipeline()
    finally:
        source.autoencoder.to(devices[0])
        source.move_text_encoders(devices[1])


def _prompt_sampler(generator: TextGenerator, texts: Sequence[str]) -> Sampler:
    """Return a sampler of a text-to-image pipeline."""

    def sample(ids: torch.Tensor, seeds: list[int]) -> NDArray[np.uint8]:
        plan = pd.DataFrame({"prompt": [texts[number] for number in ids[:, 0].tolist()]})
        return generator(plan, seeds, guidance=GUIDANCE, steps=STEPS)

    return sample


def _pipeline_with_weights(base: PipelineFactory, weights: Tensors, table: PromptTable, device: str) -> Pretrained:
    """Return a new pipeline with these trained weights, sharing no tensor with the one in training."""
    fresh = base.open_trainable(device)
    module: TextDenoiser = fresh.denoiser(table)
    parameters = dict(module.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            parameters[name].copy_(value)
    return fresh


def _write(base: PipelineFactory, weights: Tensors, table: PromptTable, trainer: Trainer, folder: Path) -> None:
    """Write a generator of these weights: a whole pipeline, or LoRA weights."""
    settings = base.settings
    equity = {"mechanism": settings.mechanism_label, "settings": settings.mechanism_settings, "seed": settings.seed}
    record = {"size": settings.size, "equity": equity, "images_seen": trainer.images_seen}
    with convert_disk_full(folder):
        fresh = _pipeline_with_weights(base, weights, table, "cpu")
        if fresh.lora is None:
            fresh.save(folder, record)
        else:
            save_lora(fresh, folder, record)
