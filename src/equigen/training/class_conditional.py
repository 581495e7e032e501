"""Training of a class-conditional latent diffusion model on a cohort, and its generator folder."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from equigen.checkpoints import Tensors
from equigen.cohort import Cohort, Manifest, write_trained_on
from equigen.diffusion import (
    PRESETS,
    Denoiser,
    EquigenPipeline,
    TokenConditions,
    Vocabulary,
    build_tokens,
    build_unet,
    noise_schedule,
    objective_of,
    open_generator,
)
from equigen.equity import Mechanism, build_mechanism
from equigen.errors import InputError, Problem
from equigen.files import convert_disk_full, hash_value
from equigen.latents import SHIPPED, Autoencoder, load_autoencoder
from equigen.training.datasets import LatentSplits, check_cohort, cohort_groups, prepare_splits
from equigen.training.gradients import check_batch
from equigen.training.loop import Images, Trainer
from equigen.training.requirements import check_accelerator
from equigen.training.run import Run, is_finished, write_record
from equigen.training.settings import TrainSettings
from equigen.training.text_to_image import train_text
from equigen.training.trackers import group_grids, token_sampler


def check_settings(settings: TrainSettings, cohort: Cohort | Manifest, autoencoder: Autoencoder) -> None:
    """Check settings, cohort and autoencoder before an image is encoded.

    Raises InputError for an image size that does not fit the autoencoder, and as ``check_cohort`` does. The base or
    text encoder of a training with prompts is checked by ``equigen.training.pipeline.check_base``.
    """
    check_cohort(settings, cohort)
    if not settings.reads_text:
        autoencoder.check_size(settings.size)


def train(
    cohort: Cohort | Manifest,
    mechanism: str | type[Any] | Mechanism | None = None,
    images: int | None = None,
    seed: int | None = None,
    *,
    settings: TrainSettings | None = None,
    out: str | Path | None = None,
    latents: str | Path | None = None,
    autoencoder: str | Path = SHIPPED,
    show: bool = True,
) -> Run:
    """Train a conditional latent diffusion model on a cohort's training split.

    Conditions are tokens of attributes and labels, or, with ``settings.base`` (a text-to-image pipeline to fine-tune)
    or ``settings.text_encoder``, the cohort's prompts. A ``Manifest`` (``settings.store`` on the disk) is a cohort
    larger than memory.

    ``mechanism``, ``images`` and ``seed`` override those of ``settings``. ``mechanism`` is a name, ``FILE.py:CLASS``, a
    class that is called with (groups, seed, **settings), or an object, of which every training gets a copy. ``out``:
    the generator's folder (``generators/<mechanism>-seed<seed>`` by default); ``latents``: folder of the latent cache;
    ``autoencoder``: a diffusers folder, or ``shipped``. The held-out probe is the validation split: mechanisms use its
    losses, and it is never trained on; the test split is not read. The same call on the same folder resumes after an
    interruption, and returns at once when the training is finished. Raises InputError before any expensive work when
    something does not fit.
    """
    changes = {"mechanism": mechanism, "images": images, "seed": seed}
    overrides = {name: value for name, value in changes.items() if value is not None}
    settings = TrainSettings(**{**(settings or TrainSettings()).model_dump(), **overrides})
    folder = Path(out) if out else Path("generators") / f"{settings.mechanism_label}-seed{settings.seed}"
    accelerator = Accelerator()
    check_accelerator(accelerator)
    vae = load_autoencoder(autoencoder, str(accelerator.device))
    check_settings(settings, cohort, vae)
    cache = latents or folder.parent.parent / "latents"
    if settings.reads_text:
        return train_text(cohort, settings, folder, cache, vae, accelerator, show)
    check_batch(settings.batch, accelerator.num_processes, settings.accumulate)
    vocabulary, groups = Vocabulary.from_cohort(cohort), cohort_groups(cohort)
    origin = None if settings.start is None else open_start(settings, vocabulary, vae)
    key = run_key(cohort, vae, settings, origin)
    if is_finished(folder, key):
        return Run(folder, folder.name)
    splits = prepare_splits(cohort, vae, cache, settings, accelerator, show)
    denoiser = _network(settings, vae, vocabulary)
    if origin is not None:
        denoiser.load_state_dict(origin.denoiser.state_dict())
    rule = build_mechanism(settings.mechanism, groups, settings.seed, **settings.mechanism_settings)
    conditions = TokenConditions(splits.train.ids, settings.drop_all, settings.drop_one)

    def save_snapshot(trainer: Trainer, weights: Tensors) -> None:
        snapshot_folder = folder / "snapshots" / f"{trainer.images_seen:09d}"
        with convert_disk_full(snapshot_folder):
            pipeline = _pipeline(settings, weights, vae, vocabulary, splits)
            pipeline.save_pretrained(str(snapshot_folder), safe_serialization=True)

    def sample_grids(trainer: Trainer) -> Images:
        weights = trainer.weights(current=True)
        if not accelerator.is_main_process:
            return {}
        pipeline = _pipeline(settings, weights, vae, vocabulary, splits).to(accelerator.device)
        dataset = splits.held_out if len(splits.held_out.latents) else splits.train
        return group_grids(token_sampler(pipeline), dataset, settings.seed)

    trainer = Trainer(
        denoiser, objective_of(noise_schedule(settings.prediction)), conditions, splits.train, splits.held_out, rule,
        settings, folder / "checkpoint.safetensors", key, accelerator, save_snapshot, sample_grids,
    )  # fmt: skip
    trainer.run(show)
    weights = trainer.weights()
    if accelerator.is_main_process:
        with convert_disk_full(folder):
            write_trained_on(folder, cohort, key, settings.start)
            pipeline = _pipeline(settings, weights, vae, vocabulary, splits)
            pipeline.save_pretrained(str(folder), safe_serialization=True)
            write_record(trainer, pipeline.hash, pipeline.autoencoder.hash, folder)  # last: marks the run as finished
    accelerator.wait_for_everyone()
    return Run(folder, folder.name)


def run_key(
    cohort: Cohort | Manifest, autoencoder: Autoencoder, settings: TrainSettings, origin: EquigenPipeline | None
) -> str:
    """Return the hash of all that a run depends on; a generator to start from counts by its weights, not its path."""
    values = {**settings.key_values(), "start": None if origin is None else origin.hash}
    return hash_value([cohort.hash, autoencoder.hash, values])


def open_start(settings: TrainSettings, vocabulary: Vocabulary, autoencoder: Autoencoder) -> EquigenPipeline:
    """Open the generator that ``settings.start`` names.

    Raises InputError when its network, autoencoder, prediction, size or conditions differ from the settings.
    """
    origin = open_generator(settings.start or "", "cpu")
    shape = PRESETS[settings.preset]
    expected = {
        "preset": (shape["channels"][0], shape["layers"]),
        "autoencoder": autoencoder.hash,
        "prediction": settings.prediction,
        "size": settings.size,
        "conditions (attributes and labels with their levels)": list(vocabulary.fields.items()),
    }
    actual = {
        "preset": (origin.unet.config.block_out_channels[0], origin.unet.config.layers_per_block),
        "autoencoder": origin.autoencoder.hash,
        "prediction": origin.scheduler.config.prediction_type,
        "size": int(origin.config["size"]),
        "conditions (attributes and labels with their levels)": list(origin.words.fields.items()),
    }
    problems = [
        Problem(f"has another {name} than was asked for", "match it, or train from scratch", file=settings.start)
        for name in expected
        if expected[name] != actual[name]
    ]
    if problems:
        raise InputError("Training cannot go on from this generator.", problems)
    return origin


def _network(settings: TrainSettings, autoencoder: Autoencoder, vocabulary: Vocabulary) -> Denoiser:
    """Return a fresh network, initialised from the seed alone."""
    return Denoiser(
        build_unet(settings.preset, autoencoder.channels, settings.size // autoencoder.factor, settings.seed),
        build_tokens(vocabulary.sizes, settings.preset, settings.seed),
    )


def _pipeline(
    settings: TrainSettings, weights: Tensors, autoencoder: Autoencoder, vocabulary: Vocabulary, splits: LatentSplits
) -> EquigenPipeline:
    """Return a generator with these weights, on the CPU, that shares no tensor with the network in training."""
    network = _network(settings, autoencoder, vocabulary)
    network.load_state_dict(weights)
    pipeline = EquigenPipeline(
        unet=network.unet,
        tokens=network.tokens,
        vae=copy.deepcopy(autoencoder.network),
        scheduler=noise_schedule(settings.prediction),
        latent_mean=splits.mean,
        latent_std=splits.std,
        vocabulary=vocabulary.fields,
        size=settings.size,
    )
    return pipeline.to("cpu")  # type: ignore[no-any-return]
