"""The file of one job of a comparison: typed steps, which the job's process reads from JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from equigen.comparison.paths import Guidance
from equigen.config import StrictModel, check_keys
from equigen.files import read_json
from equigen.training import TrainSettings


class LatentsStep(StrictModel):
    """What a step says about latents: the autoencoder (None: that of the comparison), and how they are stored."""

    autoencoder: str | None = None
    store: Literal["memory", "disk"] = "memory"


class EncodeStep(LatentsStep):
    """Encode the training and validation images."""

    kind: Literal["encode"] = "encode"


class TrainStep(LatentsStep):
    """Train one generator in the folder ``stage``."""

    kind: Literal["train"] = "train"
    stage: str
    settings: TrainSettings


class SetRequest(StrictModel):
    """One synthetic set in the folder ``stage``; ``plan``: arguments of ``equigen.plan``."""

    stage: str
    plan: dict[str, Any]
    guidance: Guidance


class SetsStep(StrictModel):
    """Generate and encode sets of one generator (a folder)."""

    kind: Literal["sets"] = "sets"
    generator: str
    encoder: str
    sets: list[SetRequest]


class SnapshotsStep(SetRequest):
    """Generate and encode a set of each snapshot of a training; ``stage`` holds ``{snapshot}`` for its name."""

    kind: Literal["snapshots"] = "snapshots"
    training: str
    encoder: str


class CalibrateStep(StrictModel):
    """Calibrate the guidance of a generator; ``settings``: arguments of ``equigen.calibrate``."""

    kind: Literal["calibrate"] = "calibrate"
    generator: str
    stage: str
    seed: int
    settings: dict[str, Any]


Step: TypeAlias = EncodeStep | TrainStep | SetsStep | SnapshotsStep | CalibrateStep


class JobFile(StrictModel):
    """The inputs of one job's process: run folder, folder of the images, autoencoder, image size, and its steps."""

    out: str
    root: str
    autoencoder: str
    size: int
    threads: int
    steps: list[Annotated[Step, Field(discriminator="kind")]]


def read_job(file: Path) -> JobFile:
    """Read the file of a job. Raises InputError where it is damaged."""
    return check_keys(JobFile, read_json(file), str(file), "The file of a job is damaged.")
