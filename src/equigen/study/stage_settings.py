"""Settings of the stages of a study, each with its defaults."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from equigen.config import LevelLists, StrictModel
from equigen.synthesis import Policy


class PhantomStage(StrictModel):
    """A phantom cohort, which is written into the run folder and then read like any other."""

    images: int = Field(4000, ge=50)
    seed: int = 0


class PlanRequest(StrictModel):
    """A plan of images to generate, without guidance."""

    policy: Policy
    size: int = Field(1000, ge=1)
    steps: int = Field(20, ge=1)  # of the solver
    seed: int = 0
    attribute: str | None = None  # that pairs of the policy counterfactual differ in
    solver: str | None = None  # None: dpm++
    negative: str | None = None  # prompt to guide away from, of text-to-image generators
    guidance_low: float | None = Field(None, ge=0, lt=1)  # noise levels t / T that are guided: from here ...
    guidance_high: float | None = Field(None, gt=0, le=1)  # ... to here; None: all


class PlanSettings(PlanRequest):
    """One synthetic set of each generator."""

    guidance: float = Field(2.0, ge=0)


# ``none:`` without a value is a mechanism without settings
MechanismSettings = Annotated[dict[str, Any], BeforeValidator(lambda value: {} if value is None else value)]


class EvaluateSettings(StrictModel):
    """Image quality against the held-out test images of the training domain."""

    plan: str = "match"  # name of the synthetic set that is measured
    groups: list[str] | None = None  # attributes; None takes all
    encoder: str = "efficientnet-lite0"
    metrics: list[str] | None = None  # None takes all
    labels: list[str] | None = None  # diagnoses that a judge looks for; None takes all
    intersections: bool = True  # also pairs of attributes, such as sex & age
    matched_n: int | None = Field(None, ge=2)
    replicates: int = Field(500, ge=20)
    limit: int = Field(4000, ge=50)  # images per side in a cell; beyond it whole patients are drawn at random
    only: LevelLists = Field(default_factory=dict)  # label: diagnoses of which images are compared, no others


class DiagnoseSettings(StrictModel):
    """Classifiers trained on real, and on real and synthetic images."""

    plan: str = "balanced"  # name of the synthetic set that is mixed in
    label: str | None = None  # None takes the cohort's first
    ratios: list[Annotated[float, Field(ge=0)]] = Field([0.0, 1.0], min_length=1)  # synthetic images a real one
    images: int = Field(40_000, ge=1)  # images shown to each classifier
    width: int = Field(32, ge=8)  # channels of its first stage
    class_balanced: bool = False


class ScreenSettings(StrictModel):
    """A check of each generated image by a judge; images that it refuses are drawn again with the next seed."""

    fields: list[str] | None = None  # such as label.dx or attr.sex; None takes all
    tries: int = Field(3, ge=0)  # redraws of one image at most; 0 only checks
    threshold: float | None = Field(None, gt=0, le=1)  # None: the asked level is the most probable one
    encoder: str | None = None  # of the judge; None: that of evaluate
    min_patients: int = Field(30, ge=1)  # of a level or group, for the judge and for a number
    replicates: int = Field(500, ge=20)


class PairsSettings(StrictModel):
    """A page for each generator of its counterfactual pairs."""

    plan: str  # name of a plan with the policy counterfactual
    number: int = Field(200, ge=2)  # pairs that are measured at most
    shown: int = Field(24, ge=1)  # pairs whose images are shown
    judge: bool = True  # also read the images by a judge of real ones
    min_patients: int = Field(30, ge=1)  # of a level, for the judge
    min_pairs: int = Field(30, ge=1)  # fewer get no number
    replicates: int = Field(500, ge=20)


class ReportSettings(StrictModel):
    """Images and names of real persons in the report."""

    blind: bool = False  # leave out real images and file names
    names: bool | None = None  # file names; None: unless they could be names of persons


class AuditSettings(StrictModel):
    """Fairness of the predictions."""

    groups: list[str] | None = None
    replicates: int = Field(500, ge=20)
    permutations: int = Field(500, ge=20)
