"""A finished training run: its folder, and the record that marks it as finished."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import equigen
from equigen.diffusion import EquigenPipeline, TextGenerator, open_any_generator
from equigen.equity import COPY, mechanism_label, mechanism_source
from equigen.errors import InputError, Problem
from equigen.files import read_json, write_json, write_text
from equigen.integrity import Change, read_record, record_files
from equigen.parquet import write_parquet
from equigen.training.loop import Trainer

RECORD = "training.json"
CHECKPOINT = "checkpoint.safetensors"
OTHER_FILES = (RECORD, CHECKPOINT, "begun.json", "stage.json", ".lock")  # not part of the generator
OTHER_FOLDERS = ("snapshots", "grids", "runs", "wandb", "mlruns", "logs", "calibration")  # folders that are not either
SNAPSHOT_FOLDERS = ("snapshots", "grids")  # folders that are written during training


@dataclass(frozen=True)
class Run:
    """A finished training run: the generator's folder and its name."""

    folder: Path
    name: str

    def __repr__(self) -> str:
        """Mechanism, seed, length of training and folder."""
        try:
            record = read_json(self.folder / RECORD)
            settings = record["settings"]
            label = mechanism_label(settings["mechanism"])
            training = f"{label}, seed {settings['seed']}, {record['images_seen']:,} images seen"
        except (OSError, InputError, KeyError, TypeError):
            training = "not finished"
        return f"Run '{self.name}' ({training}) in {self.folder}"

    def pipeline(self, device: str | None = None) -> EquigenPipeline | TextGenerator:
        """Open the generator."""
        return open_any_generator(self.folder, device)


def train_again(folder: Path, changes: Sequence[Change]) -> None:
    """Remove the checkpoint where a file is damaged that only the training itself writes, such as a snapshot.

    A training that resumes at its end would not write it again. ``changes``: of files of the folder.
    """
    if any(change.file.partition("/")[0] in SNAPSHOT_FOLDERS for change in changes):
        (folder / CHECKPOINT).unlink(missing_ok=True)


def is_finished(folder: Path, key: str) -> bool:
    """Return whether a folder holds the finished run of ``key``; raises InputError when it holds another.

    A damaged record is reported, and written again from the checkpoint.
    """
    earlier = read_record(folder / RECORD).get("key")
    if earlier is None:
        return False
    if earlier != key:
        problem = Problem(
            "holds a generator of other data or settings",
            "choose another folder with --out",
            file=str(folder),
        )
        raise InputError("The output folder is taken.", [problem])
    return True


def write_record(trainer: Trainer, generator: str, autoencoder: str, folder: Path) -> None:
    """Write the history, then the record that marks the run as finished; ``generator``, ``autoencoder``: hashes.

    The source of a mechanism of a file is kept beside them as text, which nothing runs.
    """
    write_parquet(folder / "history.parquet", trainer.history.frame())
    source = mechanism_source(trainer.settings.mechanism)
    if source is not None:
        write_text(folder / COPY, source)
    record: dict[str, Any] = {
        "key": trainer.key,
        "generator": generator,
        "autoencoder": autoencoder,
        "settings": trainer.settings.key_values(),
        "images_seen": trainer.images_seen,
        "best": trainer.best.record() if trainer.best else None,
        "training_images": len(trainer.data.latents),
        "parameters": sum(parameter.numel() for parameter in trainer.network.parameters()),
        "trained_parameters": sum(parameter.numel() for parameter in trainer.parameters),
        "processes": trainer.accelerator.num_processes,
        "files": {
            name: entry["sha256"]
            for name, entry in record_files(folder, OTHER_FILES).items()
            if name.partition("/")[0] not in OTHER_FOLDERS
        },
        "versions": {"equigen": equigen.__version__, "torch": torch.__version__},
    }
    write_json(folder / RECORD, record)
