"""From a cohort to a generator folder."""

from __future__ import annotations

import copy
from pathlib import Path

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
from equigen.equity import build
from equigen.errors import InputError, Problem
from equigen.files import convert_disk_full, hash_value
from equigen.latents import SHIPPED, Autoencoder, load_autoencoder
from equigen.training.cohort_data import Sides, check_cohort, groups_of
from equigen.training.datasets import prepare_sides
from equigen.training.gradients import check_batch
from equigen.training.grids import group_grids, token_draws
from equigen.training.loop import Images, Trainer
from equigen.training.requirements import check_accelerator
from equigen.training.run import Run, finished, write_record
from equigen.training.settings import TrainSettings
from equigen.training.text_to_image import train_text


def check_settings(settings: TrainSettings, cohort: Cohort | Manifest, autoencoder: Autoencoder) -> None:
    """Everything that can be known to fail before an image is encoded.

    Raises InputError for an image size that does not fit the autoencoder, and as ``check_cohort`` does. What a training
    with prompts starts from is looked at by ``equigen.training.pipeline.check_base``.
    """
    check_cohort(settings, cohort)
    if not settings.reads_text:
        autoencoder.check_size(settings.size)


def train(
    cohort: Cohort | Manifest,
    mechanism: str | None = None,
    images: int | None = None,
    seed: int | None = None,
    *,
    settings: TrainSettings | None = None,
    out: str | Path | None = None,
    latents: str | Path | None = None,
    autoencoder: str | Path = SHIPPED,
    show: bool = True,
) -> Run:
    """Train a conditional latent diffusion model on a cohort's training split; validation and test stay unseen.

    Conditions are tokens of attributes and labels, or, with ``settings.base`` (a text-to-image pipeline to fine-tune)
    or ``settings.text_encoder``, the cohort's prompts. A ``Manifest`` (``settings.store`` on the disk) is a cohort
    larger than memory.

    ``mechanism``, ``images`` and ``seed`` override those of ``settings``. ``out``: the generator's folder
    (``generators/<mechanism>-seed<seed>`` by default); ``latents``: folder of the latent cache; ``autoencoder``: a
    diffusers folder, or ``shipped``. The held-out probe is the validation split: it steers the mechanism and is
    never trained on. The same call on the same folder goes on after an interruption, and returns at once when the
    training is done. Raises InputError before any expensive work when something does not fit.
    """
    changes = {"mechanism": mechanism, "images": images, "seed": seed}
    given = {name: value for name, value in changes.items() if value is not None}
    settings = TrainSettings(**{**(settings or TrainSettings()).model_dump(), **given})
    folder = Path(out) if out else Path("generators") / f"{settings.mechanism}-seed{settings.seed}"
    accelerator = Accelerator()
    check_accelerator(accelerator)
    coder = load_autoencoder(autoencoder, str(accelerator.device))
    check_settings(settings, cohort, coder)
    cache = latents or folder.parent.parent / "latents"
    if settings.reads_text:
        return train_text(cohort, settings, folder, cache, coder, accelerator, show)
    check_batch(settings.batch, accelerator.num_processes, settings.accumulate)
    words, groups = Vocabulary.of(cohort), groups_of(cohort)
    origin = None if settings.start is None else open_start(settings, words, coder)
    key = run_key(cohort, coder, settings, origin)
    if finished(folder, key):
        return Run(folder, folder.name)
    sides = prepare_sides(cohort, coder, cache, settings, accelerator, show)
    denoiser = _network(settings, coder, words)
    if origin is not None:
        denoiser.load_state_dict(origin.denoiser.state_dict())
    rule = build(settings.mechanism, groups, settings.seed, **settings.mechanism_settings)
    conditions = TokenConditions(sides.train.ids, settings.drop_all, settings.drop_one)

    def keep(trainer: Trainer, weights: Tensors) -> None:
        place = folder / "snapshots" / f"{trainer.seen:09d}"
        with convert_disk_full(place):
            _pipeline(settings, weights, coder, words, sides).save_pretrained(str(place), safe_serialization=True)

    def grids(trainer: Trainer) -> Images:
        weights = trainer.weights(now=True)
        if not accelerator.is_main_process:
            return {}
        pipeline = _pipeline(settings, weights, coder, words, sides).to(accelerator.device)
        shown = sides.held_out if len(sides.held_out.latents) else sides.train
        return group_grids(token_draws(pipeline), shown, settings.seed)

    trainer = Trainer(
        denoiser, objective_of(noise_schedule(settings.prediction)), conditions, sides.train, sides.held_out, rule,
        settings, folder / "checkpoint.safetensors", key, accelerator, keep, grids,
    )  # fmt: skip
    trainer.run(show)
    weights = trainer.weights()
    if accelerator.is_main_process:
        with convert_disk_full(folder):
            write_trained_on(folder, cohort, key, settings.start)
            _export(trainer, _pipeline(settings, weights, coder, words, sides), folder)
    accelerator.wait_for_everyone()
    return Run(folder, folder.name)


def run_key(
    cohort: Cohort | Manifest, coder: Autoencoder, settings: TrainSettings, origin: EquigenPipeline | None
) -> str:
    """What a run depends on; a generator that is gone on from counts by its weights, not by where it lies."""
    values = {**settings.model_dump(mode="json"), "start": None if origin is None else origin.hash}
    return hash_value([cohort.hash, coder.hash, values])


def open_start(settings: TrainSettings, words: Vocabulary, coder: Autoencoder) -> EquigenPipeline:
    """The generator that ``settings.start`` names.

    Raises InputError when it has another network, autoencoder, prediction, size or vocabulary of conditions than asked.
    """
    origin = open_generator(settings.start or "", "cpu")
    shape = PRESETS[settings.preset]
    asked = {
        "preset": (shape["channels"][0], shape["layers"]),
        "autoencoder": coder.hash,
        "prediction": settings.prediction,
        "size": settings.size,
        "conditions (attributes and labels with their levels)": list(words.fields.items()),
    }
    found = {
        "preset": (origin.unet.config.block_out_channels[0], origin.unet.config.layers_per_block),
        "autoencoder": origin.autoencoder.hash,
        "prediction": origin.scheduler.config.prediction_type,
        "size": int(origin.config["size"]),
        "conditions (attributes and labels with their levels)": list(origin.words.fields.items()),
    }
    problems = [
        Problem(f"has another {name} than was asked for", "match it, or train from scratch", file=settings.start)
        for name in asked
        if asked[name] != found[name]
    ]
    if problems:
        raise InputError("Training cannot go on from this generator.", problems)
    return origin


def _network(settings: TrainSettings, coder: Autoencoder, words: Vocabulary) -> Denoiser:
    """A fresh network, initialised from the seed alone."""
    return Denoiser(
        build_unet(settings.preset, coder.channels, settings.size // coder.factor, settings.seed),
        build_tokens(words.sizes, settings.preset, settings.seed),
    )


def _pipeline(
    settings: TrainSettings, weights: Tensors, coder: Autoencoder, words: Vocabulary, sides: Sides
) -> EquigenPipeline:
    """A generator of these weights, on the CPU, that shares nothing with what is trained."""
    network = _network(settings, coder, words)
    network.load_state_dict(weights)
    pipeline = EquigenPipeline(
        unet=network.unet,
        tokens=network.tokens,
        vae=copy.deepcopy(coder.network),
        scheduler=noise_schedule(settings.prediction),
        latent_mean=sides.mean,
        latent_std=sides.std,
        vocabulary=words.fields,
        size=settings.size,
    )
    return pipeline.to("cpu")  # type: ignore[no-any-return]


def _export(trainer: Trainer, pipeline: EquigenPipeline, folder: Path) -> None:
    """Write the pipeline, the history, and last the record that says all is done."""
    pipeline.save_pretrained(str(folder), safe_serialization=True)
    write_record(trainer, pipeline.hash, pipeline.autoencoder.hash, folder)
