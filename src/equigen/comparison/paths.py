"""Paths in the run folder of a comparison."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from equigen.comparison.settings import PRETRAINED
from equigen.files import read_json

Guidance = float | str  # a number, or "calibrated" or "common"


@dataclass(frozen=True)
class Training:
    """One training of a comparison; ``name`` is that of its mechanism, or ``pretrained``."""

    setting: str
    name: str
    seed: int

    @property
    def path(self) -> str:
        """Path of the generator below ``generators`` and ``synthetic``; also the training's name in messages."""
        return f"{self.setting}/{self.name}-seed{self.seed}"

    @property
    def pretrained(self) -> Training:
        """The plain training whose weights this one continues."""
        return Training(self.setting, PRETRAINED, self.seed)


@dataclass(frozen=True)
class RunPaths:
    """Paths in a run folder."""

    out: Path

    def generator(self, training: Training) -> Path:
        """Return the folder of a generator."""
        return self.out / "generators" / training.path

    @staticmethod
    def synthetic(training: Training, plan: str, guidance: Guidance, *, snapshot: bool = False) -> str:
        """Return the stage name of a synthetic set, which is its path below the run folder.

        ``snapshot``: of a snapshot's set; the name then has the field ``{snapshot}``.
        """
        text = guidance if isinstance(guidance, str) else f"{guidance:g}"
        inner = "snapshots/{snapshot}/" if snapshot else ""
        return f"synthetic/{training.path}/{inner}{plan}-g{text}"

    @staticmethod
    def features(stage: str) -> str:
        """Return the stage name of the features of a synthetic set."""
        return f"features/{stage}"

    @staticmethod
    def calibration(training: Training) -> str:
        """Return the stage name of a generator's calibration."""
        return f"calibration/{training.path}"


def snapshots(folder: Path) -> tuple[int, list[Path]]:
    """Return the images that a finished training has seen, and its snapshots in order, without one of its end.

    ``folder``: of the training.
    """
    end = int(read_json(folder / "training.json")["images_seen"])
    folders = sorted((folder / "snapshots").glob("[0-9]*"))
    return end, [path for path in folders if int(path.name) < end]
