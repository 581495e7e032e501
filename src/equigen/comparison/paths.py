"""Where everything of a comparison lies within its run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from equigen.comparison.settings import PRETRAINED
from equigen.files import read_json

Guidance = float | str  # a number, or "calibrated" or "common"


@dataclass(frozen=True)
class Member:
    """One trained generator of the comparison; ``name`` is its mechanism's, or ``pretrained``."""

    setting: str
    name: str
    seed: int

    @property
    def path(self) -> str:
        """Its place below ``generators`` and ``synthetic``; also its name in messages."""
        return f"{self.setting}/{self.name}-seed{self.seed}"

    @property
    def pretrained(self) -> Member:
        """The plain training that it goes on from."""
        return Member(self.setting, PRETRAINED, self.seed)


@dataclass(frozen=True)
class Places:
    """The run folder."""

    out: Path

    def generator(self, member: Member) -> Path:
        """The folder of a generator."""
        return self.out / "generators" / member.path

    @staticmethod
    def synthetic(member: Member, plan: str, guidance: Guidance, *, kept: bool = False) -> str:
        """The stage name (place below the run folder) of a synthetic set; of a kept one, ``{snapshot}`` in its name."""
        word = guidance if isinstance(guidance, str) else f"{guidance:g}"
        inner = "snapshots/{snapshot}/" if kept else ""
        return f"synthetic/{member.path}/{inner}{plan}-g{word}"

    @staticmethod
    def features(stage: str) -> str:
        """The stage name of the features of a synthetic set."""
        return f"features/{stage}"

    @staticmethod
    def calibration(member: Member) -> str:
        """The stage name of a generator's calibration."""
        return f"calibration/{member.path}"


def snapshots(training: Path) -> tuple[int, list[Path]]:
    """Images that a finished training saw, and its kept generators in order, but for one of the very end."""
    end = int(read_json(training / "training.json")["images_seen"])
    folders = sorted((training / "snapshots").glob("[0-9]*"))
    return end, [folder for folder in folders if int(folder.name) < end]
