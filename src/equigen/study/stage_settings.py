"""Settings of the stages of a study, each with its defaults."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from equigen.config import StrictModel
from equigen.quality import QualitySettings
from equigen.synthesis import Policy


class PhantomStage(StrictModel):
    """A phantom cohort, which is written into the run folder and then read like any other."""

    images: int = Field(4000, ge=50, description="number of phantom images")
    seed: int = Field(0, description="another seed, other patients")


class RunSettings(StrictModel):
    """Settings that a study and a comparison share: the name, the images and their size, and the trainings."""

    name: str = Field(description="name of the run folder and of the report")
    cohort: dict[str, Any] | str | None = Field(None, description="a cohort.yaml, or its content")
    phantom: PhantomStage | None = Field(None, description="in place of a cohort: a phantom that is made on the spot")
    quarantine: bool = Field(False, description="go on without bad rows, which the report lists")
    size: int = Field(
        64,
        ge=16,
        description="side of all images in pixels, a multiple of the autoencoder's factor (8 for the shipped one)",
    )
    autoencoder: str | None = Field(
        None, description="a diffusers autoencoder folder; by default the one of train.base, else the shipped one"
    )
    train: dict[str, Any] = Field(
        default_factory=dict, description="training settings of every generator, but for size, mechanism and seed"
    )

    @model_validator(mode="after")
    def _one_source(self) -> RunSettings:
        if (self.cohort is None) == (self.phantom is None):
            raise ValueError("give either 'cohort' or 'phantom'")
        return self


class PlanRequest(StrictModel):
    """A plan of images to generate, without guidance."""

    policy: Policy = Field(
        description="match: the joint distribution of the training split; balanced: every group equally often, "
        "diagnoses as in the whole; uniform: every diagnosis in every group equally often; complement: what each group "
        "lacks to the largest; counterfactual: pairs that differ in one attribute alone"
    )
    size: int = Field(1000, ge=1, description="number of images")
    steps: int = Field(20, ge=1, description="steps of the solver")
    seed: int = Field(0, description="seed of the requests and of the noise")
    attribute: str | None = Field(None, description="attribute that the pairs of the policy counterfactual differ in")
    solver: str | None = Field(
        None, description="solver: dpm++, ddim, unipc, euler, or own (that of a pipeline); by default dpm++"
    )
    negative: str | None = Field(None, description="prompt to guide away from, of text-to-image generators")
    guidance_low: float | None = Field(
        None, ge=0, lt=1, description="least noise level t/T that is guided; by default all levels are guided"
    )
    guidance_high: float | None = Field(
        None, gt=0, le=1, description="greatest noise level t/T that is guided; by default all levels are guided"
    )


class PlanSettings(PlanRequest):
    """One synthetic set of each generator."""

    guidance: float = Field(2.0, ge=0, description="scale of classifier-free guidance; 1: none")


# ``none:`` without a value is a mechanism without settings
MechanismSettings = Annotated[
    dict[str, Any],
    BeforeValidator(lambda value: {} if value is None else value),
    WithJsonSchema({"type": ["object", "null"]}),
]


class EvaluateStage(QualitySettings):
    """Image quality against the held-out test images of the training domain."""

    plan: str = Field("match", description="name of the plan whose synthetic sets are measured")


class DiagnoseSettings(StrictModel):
    """Classifiers trained on real, and on real and synthetic images."""

    plan: str = Field("balanced", description="name of the plan whose synthetic sets are mixed in")
    label: str | None = Field(None, description="label that the classifiers learn; by default the cohort's first")
    ratios: list[Annotated[float, Field(ge=0)]] = Field(
        [0.0, 1.0], min_length=1, description="synthetic images shown for each real one"
    )
    images: int = Field(40_000, ge=1, description="images shown to each classifier")
    width: int = Field(32, ge=8, description="channels of the classifier's first stage")
    class_balanced: bool = Field(False, description="weight classes by their frequency in the real training split")


class ScreenSettings(StrictModel):
    """A check of each generated image by a judge; images that it refuses are drawn again with the next seed."""

    fields: list[str] | None = Field(
        None, description="labels and attributes that are checked, such as label.dx or attr.sex; by default all"
    )
    tries: int = Field(3, ge=0, description="most redraws of one image; 0 only checks")
    threshold: float | None = Field(
        None,
        gt=0,
        le=1,
        description="least probability of the requested level; by default it has to be the most probable one",
    )
    encoder: str | None = Field(None, description="encoder of the judge; by default that of evaluate")
    min_patients: int = Field(
        30, ge=1, description="least patients of a level or group, for the judge and for a number"
    )
    replicates: int = Field(500, ge=20, description="bootstrap replicates")


class PairsSettings(StrictModel):
    """A page for each generator of its counterfactual pairs."""

    plan: str = Field(description="name of a plan with the policy counterfactual")
    number: int = Field(200, ge=2, description="most pairs that are measured")
    shown: int = Field(24, ge=1, description="pairs whose images are on the page")
    judge: bool = Field(True, description="also read the images by a judge of real ones")
    min_patients: int = Field(30, ge=1, description="least patients of a level, for the judge")
    min_pairs: int = Field(30, ge=1, description="fewer pairs get no number")
    replicates: int = Field(500, ge=20, description="bootstrap replicates")


class ReportSettings(StrictModel):
    """Images and names of real persons in the report."""

    blind: bool = Field(False, description="leave real images and their file names out of the report")
    names: bool | None = Field(
        None, description="file names in the report; by default they are left out where they could be names of persons"
    )
