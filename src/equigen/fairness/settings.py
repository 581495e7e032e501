"""Settings of an audit, each described once: the command's help and the documents are made from them."""

from __future__ import annotations

from pydantic import Field, model_validator

from equigen.config import LevelLists, OptionalColumn, StrictModel

DEFAULT_BASELINE = "real"  # may be absent
MIN_CASES = 10  # patients with, and without, the condition


class FairnessSettings(StrictModel):
    """Settings of the statistics, which `audit` and a study share."""

    groups: list[str] | None = Field(
        None,
        description="attributes whose groups are compared (columns attr.NAME or NAME); by default all attr.*; an empty "
        "list: the overall metrics alone",
    )
    threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="operating point; by default it is chosen on the rows with split val, and 0.5 without such rows",
    )
    target_sensitivity: float | None = Field(
        None,
        gt=0,
        le=1,
        description="choose the threshold for this sensitivity on validation; by default for balanced accuracy",
    )
    standardise: str | None = Field(
        None,
        description="'truth' or a column of traits: weight every group to a common mix of it, which removes "
        "differences in prevalence or case mix",
    )
    min_patients: int = Field(30, ge=0, description="groups with fewer patients get no number")
    min_cases: int | None = Field(
        None,
        ge=0,
        description="metrics that divide by the patients of a class get no number in groups with fewer of it; by "
        f"default {MIN_CASES}, or min_patients if lower",
    )
    replicates: int = Field(500, ge=0, description="bootstrap replicates of patients")
    permutations: int = Field(500, ge=0, description="draws of the null distribution; none without replicates")
    seed: int = Field(0, description="seed of the resampling")

    @model_validator(mode="after")
    def _one_threshold(self) -> FairnessSettings:
        if self.threshold is not None and self.target_sensitivity is not None:
            raise ValueError("threshold and target_sensitivity exclude each other; give one of them")
        return self


class AuditSettings(FairnessSettings):
    """Settings of `audit`: the statistics, and what is read of the table."""

    only: LevelLists = Field(
        {},
        description="keep to rows with these levels of a column, such as dx=nv,mel (in YAML dx: [nv, mel]), to see "
        "whether a gap between groups is one between diagnoses",
    )
    baseline: str | None = Field(
        DEFAULT_BASELINE,
        description="recipe that the others are compared with; without a recipe of this name nothing is compared",
    )
    truth: str = Field("truth", description="column of the truth: 0 and 1, or words of which `positive` is one")
    positive: str | None = Field(
        None, description="the word of the truth that means 1, where it is told in words; all others mean 0"
    )
    score: str = Field("probability", description="column of the probability of 1")
    patient: str = Field("patient", description="column of the patient, the unit of resampling")
    site: OptionalColumn = Field("site", description="column of the site; may be absent. none: no column is the site")
    unknown: list[str] = Field(
        [], description="words that mean 'not known' in a group, besides Unknown, NA, None and the like"
    )
