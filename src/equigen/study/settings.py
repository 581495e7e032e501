"""Settings of a whole study: one YAML file."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from equigen.cohort import read_yaml
from equigen.cohort.spec import nearest
from equigen.errors import InputError, Problem
from equigen.synthesis.plan import Policy

NAME = re.compile(r"^\w[\w .\-]*$")   # of generators and plans: they name folders
TAKEN = ("real", "reconstruction", "synthetic")   # rows of result tables that are no generator
_EXPONENT = re.compile(r"^[+-]?\d+(\.\d*)?[eE][+-]?\d+$")   # 1e-4, which YAML 1.1 takes for text


class Strict(BaseModel):
    """A mapping that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PhantomStage(Strict):
    """A phantom cohort, written into the run folder and then read like anybody's data."""

    images: int = Field(4000, ge=50)
    seed: int = 0


class PlanRequest(Strict):
    """What is asked of a generator, at whatever guidance."""

    policy: Policy
    size: int = Field(1000, ge=1)
    steps: int = Field(20, ge=1)   # DPM-Solver++ steps
    seed: int = 0


class PlanSettings(PlanRequest):
    """One synthetic set of each generator."""

    guidance: float = Field(2.0, ge=0)


def _empty(value: object) -> object:
    """``none:`` with nothing behind it is a mechanism without settings."""
    return {} if value is None else value


MechanismSettings = Annotated[dict[str, Any], BeforeValidator(_empty)]


class EvaluateSettings(Strict):
    """Image quality against the held-out test images of the training domain."""

    plan: str = "match"                     # name of the synthetic set that is measured
    groups: list[str] | None = None         # attributes; None takes all
    encoder: str = "efficientnet-lite0"
    metrics: list[str] | None = None        # None takes all
    labels: list[str] | None = None         # diagnoses that a judge looks for; None takes all
    intersections: bool = True              # also pairs of attributes, such as sex & age
    matched_n: int | None = Field(None, ge=2)
    replicates: int = Field(500, ge=20)
    limit: int = Field(4000, ge=50)         # images per side in a cell; beyond it whole patients are drawn at random


class DiagnoseSettings(Strict):
    """Classifiers trained on real, and on real and synthetic images."""

    plan: str = "balanced"                  # name of the synthetic set that is mixed in
    label: str | None = None                # None takes the cohort's first
    ratios: list[Annotated[float, Field(ge=0)]] = Field([0.0, 1.0], min_length=1)   # synthetic images a real one
    images: int = Field(40_000, ge=1)       # images shown to each classifier
    width: int = Field(32, ge=8)            # channels of its first stage
    class_balanced: bool = False


class AuditSettings(Strict):
    """Fairness of the predictions."""

    groups: list[str] | None = None
    replicates: int = Field(500, ge=20)
    permutations: int = Field(500, ge=20)


class StudySettings(Strict):
    """A study: which cohort, which generators, what is measured. Missing parts take these defaults."""

    name: str
    cohort: dict[str, Any] | str | None = None      # a cohort.yaml, or its content
    phantom: PhantomStage | None = None             # or a phantom made on the spot
    quarantine: bool = False                        # go on without bad rows
    size: int = Field(64, ge=16)                    # side of all images, pixels
    autoencoder: str = "shipped"                    # or a diffusers folder
    train: dict[str, Any] = {}                      # TrainSettings but for size, mechanism and seed
    mechanisms: dict[str, MechanismSettings] = Field({"none": {}, "perturbation": {}}, min_length=1)
    seeds: list[int] = Field([0], min_length=1)     # training seeds of every mechanism
    plans: dict[str, PlanSettings] = {
        "match": PlanSettings(policy="match"),
        "balanced": PlanSettings(policy="balanced"),
    }
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
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {self.seeds} names a seed twice")
        for name in [*self.mechanisms, *self.plans]:
            if not NAME.match(name):
                raise ValueError(f"'{name}' cannot name a folder: use letters, digits, blank, _ . or -")
        taken = [name for name in self.mechanisms if name in TAKEN]
        if taken:
            raise ValueError(f"mechanisms.{taken[0]}: the name means something else in result tables; "
                             f"write another, such as my-{taken[0]}: {{mechanism: perturbation}}")
        return self


def plain(value: Any) -> Any:
    """Scalars as YAML means them: the cohort's reader keeps them as text, since a table's words are text.

    Numbers, truth values and null are read; everything else stays the text that it is.
    """
    if isinstance(value, str):
        return _scalar(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def _scalar(text: str) -> Any:
    """One word as a number, a truth value or null, or itself."""
    if _EXPONENT.match(text.strip()):
        return float(text)
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # no YAML, or a date that no calendar has: then it is text
        return text
    clock = ":" in text  # YAML 1.1 takes 1:30 for ninety
    known = isinstance(value, bool | int | float) or (value is None and text.strip().lower() in {"null", "~"})
    return value if known and not clock else text


def parse_override(key: str, text: str) -> Any:
    """The value in ``key=text`` of a command line, as YAML; words of a cohort stay as they are written.

    Raises InputError when the text is no YAML.
    """
    words = key == "name" or key.split(".", maxsplit=1)[0] == "cohort"
    try:
        value = yaml.load(text, Loader=yaml.BaseLoader if words else yaml.SafeLoader)
    except (yaml.YAMLError, ValueError) as error:
        problem = Problem(f"'{key}={text}' is no YAML", "quote the value, as in --set 'key=\"a: b\"'")
        raise InputError("An override cannot be read.", [problem]) from error
    if words:
        return None if value in ("null", "~") else value
    return plain(value)


def check_keys(model: type[BaseModel], values: Mapping[str, Any], source: str, title: str, under: str = "") -> Any:
    """Build a settings object; every fault becomes a Problem that names file and key (``under`` stands before it)."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        problems = [_fault(model, dict(fault), source, under) for fault in error.errors(include_url=False)]
        raise InputError(title, list(dict.fromkeys(problems))) from error


def _fault(model: type[BaseModel], fault: dict[str, Any], source: str, under: str) -> Problem:
    """One pydantic fault as key, message, value and mend."""
    loc = [str(part) for part in fault["loc"] if not re.match(r"^(dict|list)\[|^str$", str(part))]  # arms of a union
    key, message = ".".join([under, *loc] if under else loc), str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        return Problem(f"{key}: unknown key", nearest(loc[-1], _siblings(model, loc[:-1])), file=source)
    if fault["type"] == "missing":
        return Problem(f"{key}: the key is missing", f"add '{loc[-1]}'", file=source)
    if fault["type"] == "value_error":
        return Problem(f"{key}: {message}" if key else message, "mend this setting", file=source)
    return Problem(f"{key}: {message}, not {fault['input']!r}", "mend this setting", file=source)


def _siblings(model: type[BaseModel], loc: list[str]) -> list[str]:
    """The keys that are known where an unknown one stands."""
    found: type[BaseModel] = model
    for part in loc:
        field = found.model_fields.get(part)
        inner = [item for item in _models(field.annotation if field is not None else found)]
        found = inner[0] if inner else found
    return list(found.model_fields)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The settings classes within a type, such as ``PlanSettings`` in ``dict[str, PlanSettings]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def read_study(path: str | Path, overrides: Mapping[str, Any] | None = None) -> StudySettings:
    """Read study.yaml; ``overrides`` maps dotted keys to values (``train.images`` -> 1000), and is left as it is.

    Raises InputError naming the file and every key that is unknown, missing or of the wrong kind.
    """
    settings = read_values(path, overrides)
    checked: StudySettings = check_keys(StudySettings, settings, str(path), "The study's settings have errors.")
    return checked


def read_values(path: str | Path, overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """The content of a settings file with overrides put in, not yet checked."""
    values = read_yaml(path)
    kept = {key: values[key] for key in ("name", "cohort") if key in values}  # text as it is written
    settings = {**plain(values), **kept}
    for key, value in copy.deepcopy(dict(overrides or {})).items():
        _put(settings, key.split("."), value, str(path))
    return settings


def _put(values: Any, keys: list[str], value: Any, source: str) -> None:
    """Set a nested key; mappings on the way that are absent or empty are made."""
    for depth, key in enumerate(keys[:-1], start=1):
        if values.get(key) is None:
            values[key] = {}
        values = values[key]
        if not isinstance(values, dict):
            problem = Problem(
                f"'{'.'.join(keys)}' cannot be set: '{'.'.join(keys[:depth])}' is {values!r}, which has no keys",
                "override that itself, or mend the file it names",
                file=source,
            )
            raise InputError("A setting cannot be overridden.", [problem])
    values[keys[-1]] = value
