"""Settings of a whole study: one YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from equigen.cohort import read_yaml
from equigen.errors import InputError, Problem
from equigen.synthesis.plan import Policy


class _Strict(BaseModel):
    """A mapping that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PhantomStage(_Strict):
    """A phantom cohort, written into the run folder and then read like anybody's data."""

    images: int = Field(4000, ge=50)
    seed: int = 0


class PlanSettings(_Strict):
    """One synthetic set of each generator."""

    policy: Policy
    size: int = Field(1000, ge=1)
    guidance: float = Field(2.0, ge=0)
    steps: int = Field(20, ge=1)   # DPM-Solver++ steps
    seed: int = 0


class EvaluateSettings(_Strict):
    """Image quality against the held-out test images of the training domain."""

    plan: str = "match"                     # name of the synthetic set that is measured
    groups: list[str] | None = None         # attributes; None takes all
    encoder: str = "efficientnet-lite0"
    matched_n: int | None = None
    replicates: int = Field(500, ge=20)
    limit: int = Field(4000, ge=50)


class DiagnoseSettings(_Strict):
    """Classifiers trained on real, and on real and synthetic images."""

    plan: str = "balanced"                  # name of the synthetic set that is mixed in
    label: str | None = None                # None takes the cohort's first
    ratios: list[float] = [0.0, 1.0]        # synthetic images shown for each real one
    images: int = Field(40_000, ge=1)       # images shown to each classifier
    width: int = Field(32, ge=8)            # channels of its first stage
    class_balanced: bool = False


class AuditSettings(_Strict):
    """Fairness of the predictions."""

    groups: list[str] | None = None
    replicates: int = Field(500, ge=20)
    permutations: int = Field(500, ge=20)


class StudySettings(_Strict):
    """A study: which cohort, which generators, what is measured. Missing parts take these defaults."""

    name: str
    cohort: dict[str, Any] | str | None = None      # a cohort.yaml, or its content
    phantom: PhantomStage | None = None             # or a phantom made on the spot
    quarantine: bool = False                        # go on without bad rows
    size: int = Field(64, ge=16)                    # side of all images, pixels
    autoencoder: str = "shipped"                    # or a diffusers folder
    train: dict[str, Any] = {}                      # TrainSettings but for size, mechanism and seed
    mechanisms: dict[str, dict[str, Any]] = {"none": {}, "perturbation": {}}
    seeds: list[int] = Field([0], min_length=1)     # training seeds of every mechanism
    plans: dict[str, PlanSettings] = {"match": PlanSettings(policy="match"), "balanced": PlanSettings(policy="balanced")}
    evaluate: EvaluateSettings = EvaluateSettings()
    diagnose: DiagnoseSettings = DiagnoseSettings()
    audit: AuditSettings = AuditSettings()

    @model_validator(mode="after")
    def _whole(self) -> StudySettings:
        """One source of images, and plans that exist."""
        if (self.cohort is None) == (self.phantom is None):
            raise ValueError("give either 'cohort' or 'phantom'")
        for stage in ("evaluate", "diagnose"):
            name = getattr(self, stage).plan
            if name not in self.plans:
                raise ValueError(f"{stage}.plan '{name}' is not among plans ({', '.join(self.plans)})")
        doubled = sorted({"size", "mechanism", "mechanism_settings", "seed"} & set(self.train))
        if doubled:
            raise ValueError(f"train.{doubled[0]} is set elsewhere: use 'size', 'mechanisms' and 'seeds' of the study")
        return self


def plain(value: Any) -> Any:
    """Scalars as YAML means them: the cohort's reader keeps them as text, since a table's words are text."""
    if isinstance(value, str):
        return yaml.safe_load(value) if value.strip() else value
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def check_keys(model: type[BaseModel], values: Mapping[str, Any], source: str, title: str) -> Any:
    """Build a settings object; every fault becomes a Problem that names file and key."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        problems = []
        for fault in error.errors(include_url=False):
            key = ".".join(str(part) for part in fault["loc"])
            known = ", ".join(model.model_fields) if len(fault["loc"]) < 2 else "see the documentation of studies"
            mend = f"known keys: {known}" if fault["type"] == "extra_forbidden" else "mend this setting"
            message = str(fault["msg"]).removeprefix("Value error, ")
            problems.append(Problem(f"{key}: {message}" if key else message, mend, file=source))
        raise InputError(title, problems) from error


def read_study(path: str | Path, overrides: Mapping[str, Any] | None = None) -> StudySettings:
    """Read study.yaml; ``overrides`` maps dotted keys to values (``train.images`` -> 1000).

    Raises InputError naming the file and every key that is unknown, missing or of the wrong kind.
    """
    values = read_yaml(path)
    cohort = values.pop("cohort", None)
    settings = plain(values)
    for key, value in (overrides or {}).items():
        _put(settings if not key.startswith("cohort.") else {"cohort": cohort}, key.split("."), value, str(path))
    return check_keys(StudySettings, {**settings, "cohort": cohort}, str(path), "The study's settings have errors.")  # type: ignore[no-any-return]


def _put(values: Any, keys: list[str], value: Any, source: str) -> None:
    """Set a nested key."""
    for key in keys[:-1]:
        values = values.setdefault(key, {}) if isinstance(values, dict) else None
    if not isinstance(values, dict):
        raise InputError("A setting cannot be overridden.", [Problem(f"'{'.'.join(keys)}' leads through no mapping", "check the key", file=source)])
    values[keys[-1]] = value
