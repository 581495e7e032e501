"""Settings of a whole study: one YAML file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from equigen.config import Model, check_keys, read_values
from equigen.diffusion import MINILM
from equigen.equity import is_mechanism_file, mechanism_label, mechanism_reference
from equigen.errors import InputError
from equigen.fairness import FairnessSettings
from equigen.study.mechanisms import check_mechanism_names
from equigen.study.stage_settings import (
    DiagnoseSettings,
    EvaluateStage,
    MechanismSettings,
    PairsSettings,
    PlanSettings,
    ReportSettings,
    RunSettings,
    ScreenSettings,
)
from equigen.training import TrainSettings

FOLDER_NAME = re.compile(r"^\w[\w .\-]*$")  # of generators and plans: they name folders
RESERVED_NAMES = ("real", "reconstruction", "synthetic")  # rows of result tables that are no generator


class StudySettings(RunSettings):
    """Settings of a study: cohort, generators, and measurements. A missing key takes the default written here."""

    mechanisms: dict[str, MechanismSettings] = Field(
        {"none": {}, "perturbation": {}},
        min_length=1,
        description="settings of each mechanism by name; `mechanism:` within says which one, if the name is another",
    )
    seeds: list[int] = Field([0], min_length=1, description="training seeds of every mechanism")
    plans: dict[str, PlanSettings] = Field(
        {"match": PlanSettings(policy="match"), "balanced": PlanSettings(policy="balanced")},
        description="synthetic sets of every generator, by name",
    )
    screen: ScreenSettings | None = Field(
        None, description="check of every generated image by a judge; by default none"
    )
    pairs: PairsSettings | None = Field(
        None, description="page of each generator's counterfactual pairs; by default none"
    )
    evaluate: EvaluateStage = Field(EvaluateStage(), description="measurement of image quality")
    diagnose: DiagnoseSettings = Field(
        DiagnoseSettings(), description="classifiers trained on real, and on real and synthetic images"
    )
    audit: FairnessSettings = Field(FairnessSettings(), description="audit of the classifiers' predictions")
    report: ReportSettings = Field(ReportSettings(), description="privacy of the report")

    @model_validator(mode="after")
    def _check(self) -> StudySettings:
        """Check keys against each other: plans that exist, names that can be folders."""
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
        messages = folder_name_problems([*self.mechanisms, *self.plans])
        if messages:
            raise ValueError(messages[0])
        reserved = [name for name in self.mechanisms if name in RESERVED_NAMES]
        if reserved:
            raise ValueError(
                f"mechanisms.{reserved[0]}: the name means something else in result tables; "
                f"write another, such as my-{reserved[0]}: {{mechanism: perturbation}}"
            )
        return self


def folder_name_problems(names: Iterable[str]) -> list[str]:
    """Return a message for each name that cannot be that of a folder."""
    return [
        f"'{name}' cannot name a folder: "
        + ("write " + mechanism_label(name).lower() + f": {{mechanism: {name}}}" if is_mechanism_file(name)
           else "use letters, digits, blank, _ . or -")
        for name in names
        if not FOLDER_NAME.match(name)
    ]  # fmt: skip


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


def resolve_training_paths(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return training settings with absolute paths, where they name folders and files relative to ``folder``."""
    paths = {key: values[key] for key in ("base", "start", "text_encoder") if values.get(key) is not None}
    resolved = {key: path if path == MINILM else resolve_path(folder, str(path)) for key, path in paths.items()}
    if isinstance(values.get("mechanism"), str):
        resolved["mechanism"] = mechanism_reference(values["mechanism"], folder)
    return {**values, **resolved}


def read_study(path: str | Path, overrides: Mapping[str, Any] | None = None) -> StudySettings:
    """Read study.yaml; ``overrides`` maps dotted keys to values (``train.images`` -> 1000), and is left as it is.

    Raises InputError naming the file and every key that is unknown, missing or of the wrong kind.
    """
    checked = check_settings_file(
        StudySettings, read_values(path, overrides), path, "The study's settings have errors."
    )
    check_mechanism_names(checked.mechanisms, Path(path).parent, str(path))
    return checked


def check_settings_file(model: type[Model], values: Mapping[str, Any], path: str | Path, title: str) -> Model:
    """Build the settings of a study or a comparison, whose ``train`` holds keys of ``TrainSettings``.

    Raises InputError with the problems of both. Values of ``train`` are checked elsewhere, if its keys are right.
    """
    problems, checked, train = [], None, values.get("train")
    try:
        checked = check_keys(model, values, str(path), title)
    except InputError as error:
        problems += error.problems
    if isinstance(train, Mapping) and set(train) - set(TrainSettings.model_fields):
        try:
            check_keys(TrainSettings, dict(train), str(path), title, prefix="train")
        except InputError as error:
            problems += error.problems
    if checked is None or problems:
        raise InputError(title, problems)
    return checked
