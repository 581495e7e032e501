"""From a cohort to a generator folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

import equigen
from equigen.cohort import Cohort
from equigen.diffusion import (
    Denoiser,
    EquigenPipeline,
    Vocabulary,
    build_tokens,
    build_unet,
    noise_schedule,
    open_generator,
)
from equigen.equity import Groups, build
from equigen.errors import InputError, Problem
from equigen.files import hash_value, naming_full_disk, read_json, write_json, write_parquet
from equigen.latents import SHIPPED, Autoencoder, channel_statistics, encode, load_autoencoder
from equigen.training.loop import Data, Trainer, check_batch
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

    Raises InputError for an image size that does not fit the autoencoder, a training split without images, or a
    mechanism that is unknown or cannot work on the cohort's groups.
    """
    autoencoder.check_size(settings.size)
    if len(cohort.split("train")) == 0:
        problem = Problem("the training split is empty", "mend the split in cohort.yaml")
        raise InputError("There is nothing to train on.", [problem])
    build(settings.mechanism, groups_of(cohort), settings.seed, **settings.mechanism_settings)


def groups_of(cohort: Cohort) -> Groups:
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
    coder = load_autoencoder(autoencoder, str(accelerator.device))
    check_settings(settings, cohort, coder)
    check_batch(settings.batch, accelerator.num_processes)
    key = hash_value([cohort.hash, coder.hash, settings.model_dump(mode="json")])
    if (folder / "training.json").is_file():
        _check_same(folder, key)
        return Run(folder, folder.name)
    cache = latents or folder.parent.parent / "latents"
    with accelerator.main_process_first():
        sides = prepare(cohort, coder, cache, settings.size, show)
    words, groups = Vocabulary.of(cohort), groups_of(cohort)
    denoiser = Denoiser(
        build_unet(settings.preset, coder.channels, settings.size // coder.factor, settings.seed),
        build_tokens(words.sizes, settings.preset, settings.seed),
    )
    rule = build(settings.mechanism, groups, settings.seed, **settings.mechanism_settings)
    schedule, checkpoint = noise_schedule(settings.prediction), folder / "checkpoint.safetensors"
    trainer = Trainer(denoiser, schedule, sides.train, sides.held_out, rule, settings, checkpoint, key, accelerator)
    trainer.run(show)
    if accelerator.is_main_process:
        with naming_full_disk(folder):
            _export(trainer, coder, words, sides, folder)
    accelerator.wait_for_everyone()
    return Run(folder, folder.name)


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


def _export(trainer: Trainer, coder: Autoencoder, words: Vocabulary, sides: Sides, folder: Path) -> None:
    """Write the pipeline (averaged weights where kept), the history, and last the record that says all is done."""
    if trainer.average is not None:
        trainer.average.copy_to(trainer.network)
    pipeline = EquigenPipeline(
        unet=trainer.network.unet,
        tokens=trainer.network.tokens,
        vae=coder.network,
        scheduler=trainer.schedule,
        latent_mean=sides.mean,
        latent_std=sides.std,
        vocabulary=words.fields,
        size=trainer.settings.size,
    )
    pipeline.to("cpu").save_pretrained(str(folder), safe_serialization=True)
    write_parquet(folder / "history.parquet", trainer.history.frame())
    record: dict[str, Any] = {
        "key": trainer.key,
        "generator": pipeline.hash,
        "autoencoder": coder.hash,
        "settings": trainer.settings.model_dump(mode="json"),
        "images_seen": trainer.seen,
        "training_images": len(trainer.data.latents),
        "parameters": sum(parameter.numel() for parameter in trainer.network.parameters()),
        "processes": trainer.accelerator.num_processes,
        "versions": {"equigen": equigen.__version__, "torch": torch.__version__},
    }
    write_json(folder / "training.json", record)
