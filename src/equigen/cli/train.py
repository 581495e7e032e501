"""The commands `equigen encode` and `equigen train`: latents on disk, and a generator from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from equigen.cli.inputs import echo, open_cohort, read_settings, setting
from equigen.errors import InputError, Problem
from equigen.processes import process_count
from equigen.training import TrainSettings

TEXT, MANY, WATCH = "Text-to-image", "Many devices and memory", "Watching"
CohortArgument = Annotated[
    Path,
    typer.Argument(metavar="COHORT", help="cohort.yaml, its folder, or one that `equigen cohort check` wrote."),
]
Settings = Annotated[
    Path | None,
    typer.Option("--settings", help="YAML with further settings; options on the command line win."),
]


def training_option(name: str, panel: str | None = None, *declarations: str) -> Any:
    """Return the option of a training setting; its default is shown, since None stands for it and for no override."""
    default = TrainSettings.model_fields[name].default
    shown_default = "" if default is None or isinstance(default, bool) else f"{default}"
    return setting(TrainSettings, name, *declarations, rich_help_panel=panel, show_default=shown_default or False)


def encode(
    cohort: CohortArgument,
    out: Annotated[Path, typer.Option(help="Folder of the latent cache.")] = Path("latents"),
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 64,
    autoencoder: Annotated[
        str, typer.Option(help="`shipped`, a diffusers autoencoder folder, or that of a whole pipeline.")
    ] = "shipped",
    store: Annotated[
        bool, typer.Option("--store", help="One file that is read as needed, for cohorts beyond memory: train --store.")
    ] = False,
) -> None:
    """Encode every image once into safetensors shards, and print what the autoencoder loses.

    With `--store` several processes share the work, each encoding some of the shards:
    `torchrun --nproc-per-node 4 -m equigen encode cohort --store --size 512`.
    """
    from equigen.devices import best_device
    from equigen.latents import encode as encode_cohort
    from equigen.latents import load_autoencoder, reconstruction_error

    if process_count() > 1 and not store:
        problem = Problem(f"{process_count()} were started", "add --store, or start it without torchrun")
        raise InputError("The cache is filled by one process.", [problem])
    coder = load_autoencoder(autoencoder, best_device())
    coder.check_size(size)
    data = open_cohort(cohort, large=store)
    if store:
        _fill_store(data, coder, out, size)
        return
    latents = encode_cohort(data, coder, out, size)
    echo(f"{len(data)} images, {reconstruction_error(data, latents, coder):.1f} dB PSNR: {out}")


def _fill_store(data: Any, coder: Any, out: Path, size: int) -> None:
    """Encode the share of this process; the first process prints the result, after all are done.

    Images of validation and training in the training domain, as training reads them.
    """
    from equigen.latents import LatentStore, encode_store, store_error
    from equigen.synthesis import share_of

    share, images = share_of(), data.split("train", "val", domain="id")
    file = encode_store(images, coder, out, size, rank=share.index, world=share.count)
    share.wait()
    if share.leads:
        echo(f"{len(images)} images, {store_error(images, LatentStore(file), coder):.1f} dB PSNR: {file}")


def train(
    *,
    cohort: CohortArgument,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the generator; generators/MECHANISM-seedSEED by default."),
    ] = None,
    mechanism: Annotated[str | None, training_option("mechanism")] = None,
    images: Annotated[int | None, training_option("images")] = None,
    preset: Annotated[str | None, training_option("preset")] = None,
    size: Annotated[int | None, training_option("size")] = None,
    seed: Annotated[int | None, training_option("seed")] = None,
    start: Annotated[Path | None, training_option("start")] = None,
    min_snr: Annotated[float | None, training_option("min_snr")] = None,
    autoencoder: Annotated[
        str | None, typer.Option(help="`shipped` (the default), or a diffusers autoencoder folder; a base has its own.")
    ] = None,
    latents: Annotated[Path, typer.Option(help="Folder of the cache of latents and prompts.")] = Path("latents"),
    settings: Settings = None,
    base: Annotated[str | None, training_option("base", TEXT)] = None,
    tune: Annotated[str | None, training_option("tune", TEXT)] = None,
    rank: Annotated[int | None, training_option("rank", TEXT)] = None,
    text_encoder: Annotated[str | None, training_option("text_encoder", TEXT)] = None,
    precision: Annotated[str | None, training_option("precision", MANY)] = None,
    accumulate: Annotated[int | None, training_option("accumulate", MANY)] = None,
    gradient_checkpointing: Annotated[
        bool | None, training_option("gradient_checkpointing", MANY, "--gradient-checkpointing")
    ] = None,
    sharding: Annotated[str | None, training_option("sharding", MANY)] = None,
    store: Annotated[str | None, training_option("store", MANY)] = None,
    best: Annotated[str | None, training_option("best", WATCH)] = None,
    trackers: Annotated[str | None, training_option("trackers", WATCH)] = None,
    grid_every: Annotated[int | None, training_option("grid_every", WATCH)] = None,
    snapshot_every: Annotated[int | None, training_option("snapshot_every", WATCH)] = None,
) -> None:
    """Train a conditional latent diffusion model on the training split, with an equity mechanism.

    A network from scratch that knows diagnoses and groups as tokens: `equigen train cohort.yaml --images 200000`

    Stable Diffusion and the like, fine-tuned by LoRA on the cohort's prompts:
    `equigen train cohort.yaml --base models/sd-2-1 --size 512 --images 100000 --mechanism perturbation`

    The same on two GPUs: `torchrun --nproc-per-node 2 -m equigen train cohort --base models/sd-2-1 --size 512`

    `equigen list settings train` shows all settings; `--settings` takes them as YAML.
    """
    options = {
        "mechanism": mechanism, "images": images, "preset": preset, "size": size, "seed": seed,
        "start": None if start is None else str(start), "min_snr": min_snr, "base": base, "tune": tune, "rank": rank,
        "text_encoder": text_encoder, "precision": precision, "accumulate": accumulate,
        "gradient_checkpointing": gradient_checkpointing, "sharding": sharding, "store": store, "best": best,
        "trackers": trackers, "grid_every": grid_every, "snapshot_every": snapshot_every,
    }  # fmt: skip
    train_settings = _settings(settings, {key: value for key, value in options.items() if value is not None})
    if train_settings.base is not None and autoencoder is not None:
        problem = Problem(f"--autoencoder {autoencoder}", "leave it out: a base has its own")
        raise InputError("These settings do not go together.", [problem])
    data = open_cohort(cohort, large=train_settings.store == "disk")
    from equigen.training import train as train_generator  # heavy libraries, once the settings and the cohort are right

    run = train_generator(data, settings=train_settings, out=out, latents=latents, autoencoder=autoencoder or "shipped")
    echo(run.folder)


def _settings(file: Path | None, options: dict[str, Any]) -> Any:
    """Return ``TrainSettings`` of a file, to which its paths are relative, and of options, which win."""
    from equigen.config import check_keys
    from equigen.equity import check_mechanism_name

    values = read_settings(file)
    if file is not None:
        from equigen.study import resolve_training_paths

        values = resolve_training_paths(values, file.parent)
    title = "The training settings have errors."
    settings = check_keys(TrainSettings, {**values, **options}, str(file or "options"), title)
    check_mechanism_name(settings.mechanism)
    return settings
