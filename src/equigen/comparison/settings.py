"""Settings of a comparison between mechanisms: one YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from equigen.config import LevelLists, StrictModel, read_values
from equigen.study import (
    RESERVED_NAMES,
    MechanismSettings,
    PlanRequest,
    RunSettings,
    base_problems,
    check_mechanism_names,
    check_settings_file,
    folder_name_problems,
)
from equigen.synthesis import LEAST_IMAGES, Reference, is_guidance_range

PRETRAINED = "pretrained"
SET_ELSEWHERE = {
    "size": "size", "mechanism": "mechanisms", "mechanism_settings": "mechanisms", "seed": "seeds",
}  # fmt: skip
Guidance = Annotated[float, Field(gt=0)]


class EvaluateSettings(StrictModel):
    """Image quality against the held-out test images of the training domain."""

    groups: list[str] | None = Field(None, description="attributes whose groups are measured; by default all")
    encoder: str = Field("efficientnet-lite0", description="encoder of the features: a name of `equigen list encoders`")
    metrics: list[str] = Field(["kd"], min_length=1, description="names of `equigen list metrics`")
    replicates: int = Field(300, ge=20, description="bootstrap replicates of the real patients")
    permutations: int = Field(200, ge=20, description="permutations of group labels, for the gap that chance gives")
    limit: int = Field(4000, ge=50, description="most images on each side of a cell")
    only: LevelLists = Field(
        default_factory=dict, description="compare images of these diagnoses alone, such as {dx: nv}"
    )
    against: Reference = Field(
        "images", description="real images, or the real images as the autoencoder reconstructs them"
    )


class CalibrateStage(StrictModel):
    """Guidance for each group at sampling time, tuned on validation images of the training domain."""

    attribute: str = Field(description="attribute whose groups get a guidance of their own, or two, as in sex & age")
    objective: Literal["worst", "gap"] = Field(
        "worst", description="worst: excess of the worst group; gap: mean of the groups plus the weighted gap"
    )
    gap_weight: float = Field(1.0, ge=0, description="weight of the gap in the objective gap")
    budget: int = Field(4000, ge=1, description="most images that are generated for each generator")
    bounds: tuple[Guidance, Guidance] = Field((1.0, 4.0), description="least and greatest guidance")
    mechanisms: list[str] = Field(["none"], min_length=1, description="mechanisms whose generators are calibrated")
    images: int | None = Field(
        None, ge=LEAST_IMAGES, description="images for each group and evaluation; by default as the budget allows"
    )
    steps: int = Field(20, ge=1, description="steps of the solver")
    against: Reference = Field(
        "images", description="real images, or the real images as the autoencoder reconstructs them"
    )

    @model_validator(mode="after")
    def _bounds(self) -> CalibrateStage:
        if not is_guidance_range(self.bounds):
            raise ValueError(f"bounds {list(self.bounds)}: give the least and the greatest guidance, such as [1, 4]")
        return self


class CurveStage(StrictModel):
    """Quality over images seen, of the kept snapshots: whether training has converged."""

    mechanism: str = Field("none", description="mechanism whose snapshots are measured")
    plan: str = Field(description="name of the plan of the sets")
    guidance: Guidance = Field(2.0, description="scale of classifier-free guidance")
    size: int | None = Field(None, ge=1, description="images in each set; by default those of the plan")


class ComparisonSettings(RunSettings):
    """Settings of a comparison: mechanisms, seeds, training settings, plans and guidance."""

    pretrain: dict[str, Any] | None = Field(
        None,
        description="changes to train for a plain training a seed, from which every mechanism starts; none by default",
    )
    mechanisms: dict[str, MechanismSettings] = Field(
        {"none": {}, "perturbation": {}},
        min_length=1,
        description="settings of each mechanism by name; `mechanism:` within says which one, if the name is another",
    )
    seeds: list[int] = Field([0, 1, 2], min_length=1, description="training seeds of every mechanism")
    settings: dict[str, dict[str, Any]] = Field(
        {"default": {}},
        min_length=1,
        description="named changes of train, and of pretrain under that key; the comparison is made in each",
    )
    plans: dict[str, PlanRequest] = Field(
        {"match": PlanRequest(policy="match")},
        min_length=1,
        description="synthetic sets of every generator, by name; a training seed is added to their seed",
    )
    guidance: list[Guidance] = Field(
        [1.0, 2.0, 3.0],
        min_length=1,
        description="scales of classifier-free guidance; every generator is sampled with each",
    )
    evaluate: EvaluateSettings = Field(EvaluateSettings(), description="measurement of image quality")
    calibrate: CalibrateStage | None = Field(
        None, description="guidance for each group, as one more candidate; by default none"
    )
    curve: CurveStage | None = Field(None, description="quality over images seen, of kept snapshots; by default none")
    jobs: int | None = Field(None, ge=1, description="jobs at once; by default one for each GPU, or cores / threads")
    threads: int = Field(1, ge=1, description="threads of each job")
    engine: Literal["local", "ray", "submitit"] = Field(
        "local", description="where jobs run; ray and submitit are extras"
    )
    engine_settings: dict[str, Any] = Field(default_factory=dict, description="settings of ray or submitit")

    @property
    def curve_plan(self) -> str:
        """Name of the plan of the curve's sets, with ``@size`` if its size differs."""
        if self.curve is None or self.curve.size is None:
            return "" if self.curve is None else self.curve.plan
        return f"{self.curve.plan}@{self.curve.size}"  # no plan of a file can be named so

    @property
    def requests(self) -> dict[str, PlanRequest]:
        """All plans, with that of the curve."""
        if self.curve is None or self.curve.size is None:
            return self.plans
        plan = self.plans[self.curve.plan].model_copy(update={"size": self.curve.size})
        return {**self.plans, self.curve_plan: plan}

    @model_validator(mode="after")
    def _check(self) -> ComparisonSettings:
        """Check keys against each other: names that can be folders, references that exist."""
        trainings = [self.train, self.pretrain or {}, *self.settings.values()]
        lists: dict[str, list[Any]] = {"seeds": self.seeds, "guidance": self.guidance}
        repeated = [
            f"{key} {values} names one twice" for key, values in lists.items() if len(set(values)) < len(values)
        ]
        messages = [
            *self._misplaced_keys(),
            *self._name_problems(),
            *repeated,
            *self.split_pair_problems(),
            *base_problems(self.autoencoder, *trainings),
        ]
        if messages:
            raise ValueError(messages[0])
        return self

    def _misplaced_keys(self) -> list[str]:
        """Return messages on training settings that are set by other keys."""
        mappings = {"train": self.train, "pretrain": self.pretrain or {}}
        for name, changes in self.settings.items():
            inner = changes.get("pretrain")
            if inner is not None and not isinstance(inner, dict):
                return [f"settings.{name}.pretrain is {inner!r}, which has no keys"]
            if inner is not None and self.pretrain is None:
                return [f"settings.{name}.pretrain changes a pretrain that is not there: add 'pretrain'"]
            mappings |= {f"settings.{name}": changes, f"settings.{name}.pretrain": inner or {}}
        messages = [
            f"{path}.{key} is set elsewhere: use '{SET_ELSEWHERE[key]}' of the comparison"
            for path, values in mappings.items()
            for key in values
            if key in SET_ELSEWHERE
        ]
        if self.pretrain is not None:
            messages += [
                f"{path}.start: training goes on from 'pretrain'; give pretrain.start instead"
                for path, values in mappings.items()
                if "start" in values and not path.endswith("pretrain")
            ]
        return messages

    def _name_problems(self) -> list[str]:
        """Return messages on names that a folder or table row cannot have, and on references to nothing."""
        names = [*self.mechanisms, *self.plans, *self.settings]
        messages = folder_name_problems(names)
        messages += [
            f"mechanisms.{name}: the name means something else here; write another, such as "
            f"my-{name}: {{mechanism: perturbation}}"
            for name in self.mechanisms
            if name in (*RESERVED_NAMES, PRETRAINED)
        ]
        references = [("calibrate.mechanisms", name) for name in (self.calibrate.mechanisms if self.calibrate else [])]
        references += [("curve.mechanism", self.curve.mechanism)] if self.curve else []
        messages += [
            f"{key} '{name}' is not among mechanisms ({', '.join(self.mechanisms)})"
            for key, name in references
            if name not in self.mechanisms
        ]
        if self.curve is not None and self.curve.plan not in self.plans:
            messages.append(f"curve.plan '{self.curve.plan}' is not among plans ({', '.join(self.plans)})")
        return messages

    def split_pair_problems(self) -> list[str]:
        """Return messages on plans whose counterfactual pairs would get different guidance by the calibration."""
        if self.calibrate is None:
            return []
        attributes = [name.strip() for name in self.calibrate.attribute.split("&")]
        return [
            f"plans.{name}: its pairs are to differ in {plan.attribute} alone, and calibrate.attribute would give "
            "them guidance of their own; calibrate by another attribute, or leave the plan out"
            for name, plan in self.plans.items()
            if plan.policy == "counterfactual" and plan.attribute in attributes
        ]


def read_comparison(path: str | Path, overrides: Mapping[str, Any] | None = None) -> ComparisonSettings:
    """Read a comparison's YAML; ``overrides`` maps dotted keys to values, and is left as it is.

    Raises InputError naming the file and every key that is unknown, missing or of the wrong kind.
    """
    title = "The comparison's settings have errors."
    checked = check_settings_file(ComparisonSettings, read_values(path, overrides), path, title)
    check_mechanism_names(checked.mechanisms, Path(path).parent, str(path))
    return checked
