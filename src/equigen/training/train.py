"""From a cohort to a generator folder."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

import equigen
from equigen.checkpoints import Tensors
from equigen.cohort import Cohort, Manifest
from equigen.diffusion import (
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
from equigen.diffusion.networks import PRESETS
from equigen.equity import Groups, build
from equigen.errors import InputError, Problem
from equigen.files import hash_value, naming_full_disk, read_json, write_json, write_parquet
from equigen.latents import SHIPPED, Autoencoder, channel_statistics, encode, load_autoencoder
from equigen.training.data import Data
from equigen.training.gradients import check_batch
from equigen.training.grids import group_grids
from equigen.training.loop import Images, Trainer
from equigen.training.needs import check_accelerator, check_needs
from equigen.training.settings import TrainSettings


@dataclass(frozen=True)
class Run:
    """A finished training run: the generator's folder and its name."""

    folder: Path
    name: str

    def pipeline(self, device: str | None = None) -> EquigenPipeline:
        """The generator as a diffusers pipeline."""
        return open_generator(self.folder, device)


def check_settings(settings: TrainSettings, cohort: Cohort, autoencoder: Autoencoder) -> None:
    """Everything that can be known to fail before an image is encoded.

    Raises InputError for an image size that does not fit the autoencoder, a batch that cannot be cut in parts, a
    training split without images, a choice of the best weights without validation images, packages that are not
    installed, or a mechanism that is unknown or cannot work on the cohort's groups.
    """
    check_needs(settings)
    check_batch(settings.batch, 1, settings.accumulate)
    autoencoder.check_size(settings.size)
    if len(cohort.split("train")) == 0:
        problem = Problem("the training split is empty", "mend the split in cohort.yaml")
        raise InputError("There is nothing to train on.", [problem])
    if settings.best != "none" and len(cohort.split("val", domain="id")) == 0:
        problem = Problem("the validation split is empty", "mend the split in cohort.yaml, or set best: none")
        raise InputError("The best weights cannot be told.", [problem])
    build(settings.mechanism, groups_of(cohort), settings.seed, **settings.mechanism_settings)


def groups_of(cohort: Cohort | Manifest) -> Groups:
    """The cohort's attributes and their levels, as mechanisms know them."""
    return Groups(tuple((name, tuple(spec.levels)) for name, spec in cohort.attributes.items()))


def train(
    cohort: Cohort,
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
    check_batch(settings.batch, accelerator.num_processes, settings.accumulate)
    words, groups = Vocabulary.of(cohort), groups_of(cohort)
    origin = None if settings.start is None else open_start(settings, words, coder)
    key = run_key(cohort, coder, settings, origin)
    if (folder / "training.json").is_file():
        _check_same(folder, key)
        return Run(folder, folder.name)
    cache = latents or folder.parent.parent / "latents"
    with accelerator.main_process_first():
        sides = prepare(cohort, coder, cache, settings.size, show)
    denoiser = _network(settings, coder, words)
    if origin is not None:
        denoiser.load_state_dict(origin.denoiser.state_dict())
    rule = build(settings.mechanism, groups, settings.seed, **settings.mechanism_settings)
    conditions = TokenConditions(sides.train.ids, settings.drop_all, settings.drop_one)

    def keep(trainer: Trainer, weights: Tensors) -> None:
        place = folder / "snapshots" / f"{trainer.seen:09d}"
        with naming_full_disk(place):
            _pipeline(settings, weights, coder, words, sides).save_pretrained(str(place), safe_serialization=True)

    def grids(trainer: Trainer) -> Images:
        weights = trainer.weights(now=True)
        if not accelerator.is_main_process:
            return {}
        pipeline = _pipeline(settings, weights, coder, words, sides).to(accelerator.device)
        return group_grids(pipeline, sides.held_out if len(sides.held_out.latents) else sides.train, settings.seed)

    trainer = Trainer(
        denoiser, objective_of(noise_schedule(settings.prediction)), conditions, sides.train, sides.held_out, rule,
        settings, folder / "checkpoint.safetensors", key, accelerator, keep, grids,
    )  # fmt: skip
    trainer.run(show)
    weights = trainer.weights()
    if accelerator.is_main_process:
        with naming_full_disk(folder):
            _export(trainer, _pipeline(settings, weights, coder, words, sides), folder)
    accelerator.wait_for_everyone()
    return Run(folder, folder.name)


def run_key(cohort: Cohort, coder: Autoencoder, settings: TrainSettings, origin: EquigenPipeline | None) -> str:
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


@dataclass(frozen=True)
class Sides:
    """Training and held-out data, normalised by ``mean`` and ``std`` [C] of the training images' latents."""

    train: Data
    held_out: Data
    mean: list[float]
    std: list[float]


def prepare(cohort: Cohort, coder: Autoencoder, cache: str | Path, size: int, show: bool = True) -> Sides:
    """Latents, token numbers and group index of the training and validation splits; no other image is touched."""
    whole = cohort.split("train", "val", domain="id")
    values = encode(whole, coder, cache, size, show=show).values
    in_training = torch.tensor([split == "train" for split in whole.frame["split"]])
    mean, std = channel_statistics(values[in_training])
    values = (values - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    ids, groups = Vocabulary.of(cohort).encode(whole.frame), groups_of(cohort)
    columns = [torch.from_numpy(whole.groups(name)) for name in groups.attributes]
    index = torch.stack(columns, dim=1) if columns else torch.zeros(len(whole), 0, dtype=torch.int64)
    parts = [Data(values[mask], ids[mask], index[mask], groups) for mask in (in_training, ~in_training)]
    return Sides(parts[0], parts[1], mean, std)


def _check_same(folder: Path, key: str) -> None:
    """Refuse to take another run's generator for this one's."""
    if read_json(folder / "training.json")["key"] != key:
        problem = Problem(
            "holds a generator of other data or settings",
            "choose another folder with --out",
            file=str(folder),
        )
        raise InputError("The output folder is taken.", [problem])


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
    write_parquet(folder / "history.parquet", trainer.history.frame())
    record: dict[str, Any] = {
        "key": trainer.key,
        "generator": pipeline.hash,
        "autoencoder": pipeline.autoencoder.hash,
        "settings": trainer.settings.model_dump(mode="json"),
        "images_seen": trainer.seen,
        "best": trainer.best.record() if trainer.best else None,
        "training_images": len(trainer.data.latents),
        "parameters": sum(parameter.numel() for parameter in trainer.network.parameters()),
        "processes": trainer.accelerator.num_processes,
        "versions": {"equigen": equigen.__version__, "torch": torch.__version__},
    }
    write_json(folder / "training.json", record)
