"""A finished training run: its folder, the record that says all is done, and whose folder it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import equigen
from equigen.diffusion import EquigenPipeline, TextGenerator, open_any_generator
from equigen.errors import InputError, Problem
from equigen.files import read_json, write_json, write_parquet
from equigen.integrity import record_files
from equigen.training.loop import Trainer

RECORD = "training.json"
SKIPPED = (RECORD, "checkpoint.safetensors", "begun.json", "stage.json", ".lock")  # not part of the generator
APART = ("snapshots", "grids", "runs", "wandb", "mlruns", "logs", "calibration")   # folders that are not either


@dataclass(frozen=True)
class Run:
    """A finished training run: the generator's folder and its name."""

    folder: Path
    name: str

    def pipeline(self, device: str | None = None) -> EquigenPipeline | TextGenerator:
        """The generator, ready to make images."""
        return open_any_generator(self.folder, device)


def finished(folder: Path, key: str) -> bool:
    """Whether a folder holds this run's generator. Raises InputError when it holds another's."""
    if not (folder / RECORD).is_file():
        return False
    if read_json(folder / RECORD)["key"] != key:
        problem = Problem(
            "holds a generator of other data or settings",
            "choose another folder with --out",
            file=str(folder),
        )
        raise InputError("The output folder is taken.", [problem])
    return True


def write_record(trainer: Trainer, generator: str, autoencoder: str, folder: Path) -> None:
    """Write the history, and last the record that says all is done; ``generator``, ``autoencoder``: their hashes."""
    write_parquet(folder / "history.parquet", trainer.history.frame())
    record: dict[str, Any] = {
        "key": trainer.key,
        "generator": generator,
        "autoencoder": autoencoder,
        "settings": trainer.settings.model_dump(mode="json"),
        "images_seen": trainer.seen,
        "best": trainer.best.record() if trainer.best else None,
        "training_images": len(trainer.data.latents),
        "parameters": sum(parameter.numel() for parameter in trainer.network.parameters()),
        "trained_parameters": sum(parameter.numel() for parameter in trainer.parameters),
        "processes": trainer.accelerator.num_processes,
        "files": {name: entry["sha256"] for name, entry in record_files(folder, SKIPPED).items()
                  if name.partition("/")[0] not in APART},
        "versions": {"equigen": equigen.__version__, "torch": torch.__version__},
    }
    write_json(folder / RECORD, record)
