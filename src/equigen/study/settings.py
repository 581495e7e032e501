"""Settings of a whole study: one YAML file."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from equigen.cohort import check_bounds, read_yaml, suggestion
from equigen.errors import InputError, Problem
from equigen.study.stage_settings import (
    AuditSettings,
    DiagnoseSettings,
    EvaluateSettings,
    MechanismSettings,
    PairsSettings,
    PhantomStage,
    PlanSettings,
    ReportSettings,
    ScreenSettings,
    Strict,
)

NAME = re.compile(r"^\w[\w .\-]*$")   # of generators and plans: they name folders
TAKEN = ("real", "reconstruction", "synthetic")   # rows of result tables that are no generator
_EXPONENT = re.compile(r"^[+-]?\d+(\.\d*)?[eE][+-]?\d+$")   # 1e-4, which YAML 1.1 takes for text


class StudySettings(Strict):
    """A study: which cohort, which generators, what is measured. Missing parts take these defaults."""

    name: str
    cohort: dict[str, Any] | str | None = None      # a cohort.yaml, or its content
    phantom: PhantomStage | None = None             # or a phantom made on the spot
    quarantine: bool = False                        # go on without bad rows
    size: int = Field(64, ge=16)                    # side of all images, pixels
    autoencoder: str | None = None                  # a diffusers folder; None: of train.base its own, else the shipped
    train: dict[str, Any] = Field(default_factory=dict)   # TrainSettings but for size, mechanism and seed
    mechanisms: dict[str, MechanismSettings] = Field({"none": {}, "perturbation": {}}, min_length=1)
    seeds: list[int] = Field([0], min_length=1)     # training seeds of every mechanism
    plans: dict[str, PlanSettings] = Field(
        {"match": PlanSettings(policy="match"), "balanced": PlanSettings(policy="balanced")}
    )
    screen: ScreenSettings | None = None            # None: no image is refused
    pairs: PairsSettings | None = None              # None: no page of pairs
    evaluate: EvaluateSettings = EvaluateSettings()
    diagnose: DiagnoseSettings = DiagnoseSettings()
    audit: AuditSettings = AuditSettings()
    report: ReportSettings = ReportSettings()

    @model_validator(mode="after")
    def _whole(self) -> StudySettings:
        """One source of images, and plans that exist."""
        if (self.cohort is None) == (self.phantom is None):
            raise ValueError("give either 'cohort' or 'phantom'")
        for stage in ("evaluate", "diagnose"):
            name = getattr(self, stage).plan
            if name not in self.plans:
                raise ValueError(f"{stage}.plan '{name}' is not among plans ({', '.join(self.plans)})")
        for fault in [*_pairs_faults(self), *_screen_faults(self), *base_faults(self.autoencoder, self.train)]:
            raise ValueError(fault)
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


def _pairs_faults(settings: StudySettings) -> list[str]:
    """Pairs of a plan that is not there, or that makes none."""
    asked = settings.pairs
    if asked is None:
        return []
    if asked.plan not in settings.plans:
        return [f"pairs.plan '{asked.plan}' is not among plans ({', '.join(settings.plans)})"]
    policy = settings.plans[asked.plan].policy
    return [] if policy == "counterfactual" else [
        f"pairs.plan '{asked.plan}' has the policy {policy}: name a plan with the policy counterfactual"
    ]


def _screen_faults(settings: StudySettings) -> list[str]:
    """Counterfactual pairs are not screened: a screen would hide what they are to show, and part their seeds."""
    used = {"evaluate": settings.evaluate.plan, "diagnose": settings.diagnose.plan} if settings.screen else {}
    return [f"{stage}.plan '{name}' is counterfactual, and with 'screen' its pairs would be parted: name another plan"
            for stage, name in used.items() if settings.plans[name].policy == "counterfactual"]


def base_faults(autoencoder: str | None, *trainings: Mapping[str, Any]) -> list[str]:
    """An autoencoder that a base would leave aside."""
    based = any(values.get("base") is not None for values in trainings)
    return ["autoencoder: a base has its own, leave it out"] if based and autoencoder is not None else []


def beside(folder: Path, place: str) -> str:
    """A path of a settings file, seen from where that lies; a name (of the hub, say) that is no such path stays."""
    path = folder / Path(place).expanduser()
    return str(path.resolve()) if path.exists() else place


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
        check_bounds(text)
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
        check_bounds(text)
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
        problems = [_path_fault(model, dict(fault), source, under) for fault in error.errors(include_url=False)]
        raise InputError(title, list(dict.fromkeys(problems))) from error


def _path_fault(model: type[BaseModel], fault: dict[str, Any], source: str, under: str) -> Problem:
    """One pydantic fault as key, message, value and mend."""
    loc = [str(part) for part in fault["loc"] if not re.match(r"^(dict|list)\[|^str$", str(part))]  # arms of a union
    key, message = ".".join([under, *loc] if under else loc), str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        return Problem(f"{key}: unknown key", suggestion(loc[-1], _siblings(model, loc[:-1])), file=source)
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
