"""Where everything of a contest lies within its run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from equigen.study.contest_settings import PRETRAINED

Guidance = float | str  # a number, or "calibrated" or "common"


@dataclass(frozen=True)
class Member:
    """One trained generator of the contest; ``name`` is its mechanism's, or ``pretrained``."""

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

    def snapshots(self, member: Member) -> dict[int, Path]:
        """Kept generators of a training by the images they had seen, in order."""
        folders = (self.generator(member) / "snapshots").glob("*")
        return {int(folder.name): folder for folder in sorted(folders) if folder.name.isdigit()}

    @staticmethod
    def synthetic(member: Member, plan: str, guidance: Guidance, snapshot: int | None = None) -> str:
        """The stage name (place below the run folder) of a synthetic set."""
        word = guidance if isinstance(guidance, str) else f"{guidance:g}"
        inner = "" if snapshot is None else f"snapshots/{snapshot:09d}/"
        return f"synthetic/{member.path}/{inner}{plan}-g{word}"

    @staticmethod
    def calibration(member: Member) -> str:
        """The stage name of a generator's calibration."""
        return f"calibration/{member.path}"
