"""Grids of samples during training, and logging to experiment trackers through accelerate."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker, WandBTracker
from numpy.typing import NDArray

from equigen.diffusion import EquigenPipeline
from equigen.pngs import write_png
from equigen.seeds import derive_seed, torch_generator
from equigen.training.datasets import LatentDataset
from equigen.training.history import Row
from equigen.training.requirements import is_installed
from equigen.training.settings import TrainSettings

COLUMNS, GUIDANCE, STEPS = 6, 2.0, 20


Sampler = Callable[[torch.Tensor, list[int]], NDArray[np.uint8]]
"""From conditions [n, F] and the seed of each to images [n, size, size, 3]."""


def token_sampler(pipeline: EquigenPipeline) -> Sampler:
    """Return a sampler of a class-conditional generator."""

    def sample(ids: torch.Tensor, seeds: list[int]) -> NDArray[np.uint8]:
        scale = torch.full((len(ids),), GUIDANCE)
        latents = pipeline.sample(pipeline.starting_noise(seeds), ids, scale, STEPS)
        return pipeline.autoencoder.decode(pipeline.denormalise(latents))

    return sample


@torch.no_grad()
def group_grids(sample: Sampler, data: LatentDataset, seed: int) -> dict[str, NDArray[np.uint8]]:
    """Return one strip [size, COLUMNS * size, 3] uint8 of samples for each group, by ``attribute/group``.

    Each sample has the conditions of an image of that group in ``data``, chosen by ``seed``; a group with fewer images
    repeats them, one without any has no strip. Without attributes there is one strip, ``all``.
    """
    strips = {}
    for number, (name, rows) in enumerate(_group_rows(data).items()):
        if len(rows):
            order = torch.randperm(len(rows), generator=torch_generator(seed, "grid", number))
            ids = data.ids[rows[order].repeat(COLUMNS)[:COLUMNS]]
            seeds = [derive_seed(seed, "grid-noise", column) for column in range(COLUMNS)]
            strips[name] = np.concatenate(list(sample(ids, seeds)), axis=1)
    return strips


def _group_rows(data: LatentDataset) -> dict[str, torch.Tensor]:
    """Return the row numbers of each group."""
    if not len(data.groups):
        return {"all": torch.arange(len(data.index))}
    return {
        f"{attribute}/{level}": (data.index[:, column] == number).nonzero().squeeze(1)
        for column, (attribute, levels) in enumerate(data.groups.names)
        for number, level in enumerate(levels)
    }


PROJECT = "equigen"


class HistoryTracker:
    """Log a run's history to a tracker, and write grids as PNG files.

    ``folder``: of the run; TensorBoard's events are in its ``logs``, grids in its ``grids``. ``rows``: the history;
    rows that exist already were logged before an interruption. ``active``: False in all processes but the first.
    """

    def __init__(self, folder: Path, settings: TrainSettings, rows: list[Row], active: bool) -> None:
        self.folder, self.rows, self.logged, self.active = folder, rows, len(rows), active
        self.tracker = open_tracker(folder, settings) if active else None

    def log_history(self) -> None:
        """Log the history's new rows, as ``kind/attribute/group``, at the images seen."""
        new_rows, self.logged = self.rows[self.logged :], len(self.rows)
        metrics: dict[int, dict[str, float]] = {}
        for images_seen, kind, attribute, group, value, _ in new_rows:
            name = kind if attribute == "*" else f"{kind}/{attribute}/{group}"
            metrics.setdefault(images_seen, {})[name] = value
        for images_seen, values in metrics.items():
            if self.tracker is not None:
                self.tracker.log(values, step=images_seen)

    def log_images(self, images: Mapping[str, NDArray[np.uint8]], images_seen: int) -> None:
        """Write images [H, W, 3] by name as ``grids/<images seen>/<name>.png``, and log them to the tracker."""
        if not self.active:
            return
        paths = {name: self.folder / "grids" / f"{images_seen:09d}" / f"{file_name(name)}.png" for name in images}
        for name, image in images.items():
            write_png(paths[name], image)
        if isinstance(self.tracker, TensorBoardTracker):
            batches = {f"grid/{name}": image[None] for name, image in images.items()}
            self.tracker.log_images(batches, step=images_seen, dataformats="NHWC")
        elif isinstance(self.tracker, WandBTracker):
            self.tracker.log_images({f"grid/{name}": [image] for name, image in images.items()}, step=images_seen)
        elif isinstance(self.tracker, MLflowTracker):
            for path in paths.values():
                self.tracker.log_artifact(str(path), f"grids/{images_seen:09d}")

    def close(self) -> None:
        """Finish the tracker."""
        if self.tracker is not None:
            self.tracker.finish()


def open_tracker(folder: Path, settings: TrainSettings) -> GeneralTracker | None:
    """Return the tracker that the settings name, started and with the settings logged; None for no tracker."""
    name = settings.tracker
    if name == "auto":
        name = "tensorboard" if is_installed("tensorboard") else "none"
    if name == "none":
        return None
    trackers = {
        "tensorboard": lambda: TensorBoardTracker("logs", str(folder)),
        "wandb": lambda: WandBTracker(PROJECT, name=folder.name, dir=str(folder)),
        "mlflow": lambda: MLflowTracker(PROJECT, run_name=folder.name),
    }
    tracker: GeneralTracker = trackers[name]()
    tracker.start()
    tracker.store_init_configuration(
        {
            key: value if isinstance(value, bool | int | float | str) else json.dumps(value)
            for key, value in settings.model_dump().items()
        }
    )
    return tracker


def file_name(name: str) -> str:
    """Return a path that every file system accepts: other characters become codes.

    >>> file_name("age/60 and over"), file_name("stage/II/III?")
    ('age/60 and over', 'stage/II/III%3F')
    """
    unsafe = re.compile(r"^\.|[^\w .+-]")
    parts = [unsafe.sub(lambda match: f"%{ord(match[0]):02X}", name_part) for name_part in name.split("/")]
    return "/".join(name_part or "%" for name_part in parts)
