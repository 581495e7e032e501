"""Experiment trackers that follow a training, through accelerate; and grids of samples, which are files as well."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker, WandBTracker
from numpy.typing import NDArray

from equigen.pngs import write_png
from equigen.training.history import Row
from equigen.training.requirements import installed
from equigen.training.settings import TrainSettings

PROJECT = "equigen"


class Follower:
    """Tells a tracker what becomes known in a run, and keeps grids as PNG files; does nothing but that.

    ``folder``: of the run; TensorBoard's events lie in its ``logs``, grids in its ``grids``. ``rows``: the history,
    of which an earlier process told what is there already. ``active``: False in all processes but the first.
    """

    def __init__(self, folder: Path, settings: TrainSettings, rows: list[Row], active: bool) -> None:
        self.folder, self.rows, self.told, self.active = folder, rows, len(rows), active
        self.tracker = open_tracker(folder, settings) if active else None

    def tell(self) -> None:
        """The history's new rows, as ``kind/attribute/group``, at the images seen."""
        fresh, self.told = self.rows[self.told :], len(self.rows)
        moments: dict[int, dict[str, float]] = {}
        for seen, kind, attribute, group, value, _ in fresh:
            name = kind if attribute == "*" else f"{kind}/{attribute}/{group}"
            moments.setdefault(seen, {})[name] = value
        for seen, values in moments.items():
            if self.tracker is not None:
                self.tracker.log(values, step=seen)

    def show(self, images: Mapping[str, NDArray[np.uint8]], seen: int) -> None:
        """Write images [H, W, 3] by name as ``grids/<images seen>/<name>.png``, and give them to the tracker."""
        if not self.active:
            return
        paths = {name: self.folder / "grids" / f"{seen:09d}" / f"{file_name(name)}.png" for name in images}
        for name, image in images.items():
            write_png(paths[name], image)
        if isinstance(self.tracker, TensorBoardTracker):
            batches = {f"grid/{name}": image[None] for name, image in images.items()}
            self.tracker.log_images(batches, step=seen, dataformats="NHWC")
        elif isinstance(self.tracker, WandBTracker):
            self.tracker.log_images({f"grid/{name}": [image] for name, image in images.items()}, step=seen)
        elif isinstance(self.tracker, MLflowTracker):
            for path in paths.values():
                self.tracker.log_artifact(str(path), f"grids/{seen:09d}")

    def close(self) -> None:
        """Let the tracker write what it holds."""
        if self.tracker is not None:
            self.tracker.finish()


def open_tracker(folder: Path, settings: TrainSettings) -> GeneralTracker | None:
    """The tracker that the settings name, begun and told them; None where there is none to be."""
    name = settings.tracker
    if name == "auto":
        name = "tensorboard" if installed("tensorboard") else "none"
    if name == "none":
        return None
    trackers = {
        "tensorboard": lambda: TensorBoardTracker("logs", str(folder)),
        "wandb": lambda: WandBTracker(PROJECT, name=folder.name, dir=str(folder)),
        "mlflow": lambda: MLflowTracker(PROJECT, run_name=folder.name),
    }
    tracker: GeneralTracker = trackers[name]()
    tracker.start()
    tracker.store_init_configuration({key: _plain(value) for key, value in settings.model_dump().items()})
    return tracker


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def file_name(name: str) -> str:
    """A path of names that every file system takes: other characters as their code, so that no two names fall together.

    >>> file_name("age/60 and over"), file_name("stage/II/III?")
    ('age/60 and over', 'stage/II/III%3F')
    """
    parts = [re.sub(r"^\.|[^\w .+-]", lambda found: f"%{ord(found[0]):02X}", part) for part in name.split("/")]
    return "/".join(part or "%" for part in parts)
