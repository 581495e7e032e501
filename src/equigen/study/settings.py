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
    StrictModel,
)
from equigen.training import TrainSettings

FOLDER_NAME = re.compile(r"^\w[\w .\-]*$")  # of generators and plans: they name folders
RESERVED_NAMES = ("real", "reconstruction", "synthetic")  # rows of result tables that are no generator
_EXPONENT = re.compile(r"^[+-]?\d+(\.\d*)?[eE][+-]?\d+$")  # 1e-4, which YAML 1.1 takes for text


class StudySettings(StrictModel):
    """Settings of a study: cohort, generators, and measurements. A missing key takes the default written here."""

    name: str
    cohort: dict[str, Any] | str | None = None  # a cohort.yaml, or its content
    phantom: PhantomStage | None = None  # or a phantom made on the spot
    quarantine: bool = False  # go on without bad rows
    size: int = Field(64, ge=16)  # side of all images, pixels
    autoencoder: str | None = None  # a diffusers folder; None: of train.base its own, else the shipped
    train: dict[str, Any] = Field(default_factory=dict)  # TrainSettings but for size, mechanism and seed
    mechanisms: dict[str, MechanismSettings] = Field({"none": {}, "perturbation": {}}, min_length=1)
    seeds: list[int] = Field([0], min_length=1)  # training seeds of every mechanism
    plans: dict[str, PlanSettings] = Field(
        {"match": PlanSettings(policy="match"), "balanced": PlanSettings(policy="balanced")}
    )
    screen: ScreenSettings | None = None  # None: no image is refused
    pairs: PairsSettings | None = None  # None: no page of pairs
    evaluate: EvaluateSettings = EvaluateSettings()
    diagnose: DiagnoseSettings = DiagnoseSettings()
    audit: AuditSettings = AuditSettings()
    report: ReportSettings = ReportSettings()

    @model_validator(mode="after")
    def _check(self) -> StudySettings:
        """Check keys against each other: one source of images, plans that exist, names that can be folders."""
        if (self.cohort is None) == (self.phantom is None):
            raise ValueError("give either 'cohort' or 'phantom'")
        for stage in ("evaluate", "diagnose"):
            name = getattr(self, stage).plan
            if name not in self.plans:
                raise ValueError(f"{stage}.plan '{name}' is not among plans ({', '.join(self.plans)})")
        # a screening would hide what counterfactual pairs are to show, and draw their images from different seeds
        screened = [("evaluate", self.evaluate.plan), ("diagnose", self.diagnose.plan)] if self.screen else []
        messages = [
            *_pairs_problems(self),
            *(
                f"{stage}.plan '{name}' is counterfactual, and with 'screen' its pairs would part: name another plan"
                for stage, name in screened
                if self.plans[name].policy == "counterfactual"
            ),
            *base_problems(self.autoencoder, self.train),
        ]
        if messages:
            raise ValueError(messages[0])
        doubled = sorted({"size", "mechanism", "mechanism_settings", "seed"} & set(self.train))
        if doubled:
            raise ValueError(f"train.{doubled[0]} is set elsewhere: use 'size', 'mechanisms' and 'seeds' of the study")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {self.seeds} names a seed twice")
        for name in [*self.mechanisms, *self.plans]:
            if not FOLDER_NAME.match(name):
                raise ValueError(f"'{name}' cannot name a folder: use letters, digits, blank, _ . or -")
        reserved = [name for name in self.mechanisms if name in RESERVED_NAMES]
        if reserved:
            raise ValueError(
                f"mechanisms.{reserved[0]}: the name means something else in result tables; "
                f"write another, such as my-{reserved[0]}: {{mechanism: perturbation}}"
            )
        return self


def _pairs_problems(settings: StudySettings) -> list[str]:
    """Return a message where the plan of the pairs does not exist or is not counterfactual."""
    if settings.pairs is None:
        return []
    name = settings.pairs.plan
    if name not in settings.plans:
        return [f"pairs.plan '{name}' is not among plans ({', '.join(settings.plans)})"]
    policy = settings.plans[name].policy
    return (
        []
        if policy == "counterfactual"
        else [f"pairs.plan '{name}' has the policy {policy}: name a plan with the policy counterfactual"]
    )


def base_problems(autoencoder: str | None, *trainings: Mapping[str, Any]) -> list[str]:
    """Return a message where an autoencoder is set beside a base, which has its own."""
    based = any(values.get("base") is not None for values in trainings)
    return ["autoencoder: a base has its own, leave it out"] if based and autoencoder is not None else []


def resolve_path(folder: Path, name: str) -> str:
    """Return the absolute path of a file or folder named relative to ``folder``, or the name if there is none."""
    path = folder / Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name


def parse_scalars(value: Any) -> Any:
    """Parse the texts in nested mappings and lists as YAML scalars.

    Numbers, truth values and null are parsed; everything else stays text. ``read_yaml`` returns all scalars as text,
    since a cohort's levels are text.
    """
    if isinstance(value, str):
        return _parse_scalar(value)
    if isinstance(value, Mapping):
        return {key: parse_scalars(item) for key, item in value.items()}
    return [parse_scalars(item) for item in value] if isinstance(value, list) else value


def _parse_scalar(text: str) -> Any:
    """Parse a text as a number, a truth value or null; return it unchanged if it is none of these."""
    if _EXPONENT.match(text.strip()):
        return float(text)
    try:
        check_bounds(text)
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # no YAML, or a date that no calendar has: then it is text
        return text
    clock = ":" in text  # YAML 1.1 takes 1:30 for ninety
    scalar = isinstance(value, bool | int | float) or (value is None and text.strip().lower() in {"null", "~"})
    return value if scalar and not clock else text


def parse_override(key: str, text: str) -> Any:
    """Parse the value in ``key=text`` of a command line as YAML; scalars of ``name`` and ``cohort`` stay text.

    Raises InputError when the text is no YAML.
    """
    textual = key == "name" or key.split(".", maxsplit=1)[0] == "cohort"
    try:
        check_bounds(text)
        value = yaml.load(text, Loader=yaml.BaseLoader if textual else yaml.SafeLoader)
    except (yaml.YAMLError, ValueError) as error:
        problem = Problem(f"'{key}={text}' is no YAML", "quote the value, as in --set 'key=\"a: b\"'")
        raise InputError("An override cannot be read.", [problem]) from error
    if textual:
        return None if value in ("null", "~") else value
    return parse_scalars(value)


def check_keys(model: type[BaseModel], values: Mapping[str, Any], source: str, title: str, prefix: str = "") -> Any:
    """Build a settings object. Raises InputError with the file and the key, after ``prefix``, of every problem."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        problems = [_problem(model, dict(detail), source, prefix) for detail in error.errors(include_url=False)]
        raise InputError(title, list(dict.fromkeys(problems))) from error


def _problem(model: type[BaseModel], detail: dict[str, Any], source: str, prefix: str) -> Problem:
    """Return one error of pydantic as a problem with key, message, value and mend."""
    keys = [str(key) for key in detail["loc"] if not re.match(r"^(dict|list)\[|^str$", str(key))]  # arms of a union
    path, message = ".".join([prefix, *keys] if prefix else keys), str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        for key in keys[:-1]:
            field = model.model_fields.get(key)
            model = next(iter(_models(field.annotation if field is not None else model)), model)
        return Problem(f"{path}: unknown key", suggestion(keys[-1], list(model.model_fields)), file=source)
    if detail["type"] == "missing":
        return Problem(f"{path}: the key is missing", f"add '{keys[-1]}'", file=source)
    if detail["type"] == "value_error":
        return Problem(f"{path}: {message}" if path else message, "mend this setting", file=source)
    return Problem(f"{path}: {message}, not {detail['input']!r}", "mend this setting", file=source)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Return the settings classes in a type, such as ``PlanSettings`` in ``dict[str, PlanSettings]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def read_study(path: str | Path, overrides: Mapping[str, Any] | None = None) -> StudySettings:
    """Read study.yaml; ``overrides`` maps dotted keys to values (``train.images`` -> 1000), and is left as it is.

    Raises InputError naming the file and every key that is unknown, missing or of the wrong kind.
    """
    settings = read_values(path, overrides)
    checked: StudySettings = check_keys(StudySettings, settings, str(path), "The study's settings have errors.")
    check_training_keys(checked.train, str(path))
    return checked


def check_training_keys(train: Mapping[str, Any], source: str) -> None:
    """Raise InputError for keys of ``train`` that ``TrainSettings`` has not; their values are checked elsewhere."""
    if set(train) - set(TrainSettings.model_fields):
        check_keys(TrainSettings, dict(train), source, "The training settings have errors.", prefix="train")


def read_values(path: str | Path, overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """Read a settings file and apply overrides, without checking keys."""
    values = read_yaml(path)
    texts = {key: values[key] for key in ("name", "cohort") if key in values}
    settings = {**parse_scalars(values), **texts}
    for key, value in copy.deepcopy(dict(overrides or {})).items():
        set_key(settings, key.split("."), value, str(path))
    return settings


def set_key(values: Any, keys: list[str], value: Any, source: str) -> None:
    """Set a nested key in place, adding missing mappings. Raises InputError where a parent has no keys."""
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
