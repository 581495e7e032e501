"""Settings of an evaluation, each described once: the command's help and the documents are made from them."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from equigen.config import LevelLists, OptionalColumn, OptionalTexts, StrictModel
from equigen.errors import suggestion
from equigen.quality.encoder_forms import ENCODER_FORMS

DEFAULT_ENCODER = "efficientnet-lite0"
FIDELITY = ["fd", "fd_inf", "kd", "is", "precision", "recall", "density", "coverage"]
MEMORISATION = ["mifid", "nn_ratio", "authenticity", "near_copies"]
SEMANTIC = ["semantic_auc", "semantic_attribute_auc", "semantic_attribute_probability", "judge_agreement"]
METRICS = [*FIDELITY, *MEMORISATION, *SEMANTIC]


class QualitySettings(StrictModel):
    """Settings of the measurement, which `evaluate` and a study share."""

    groups: list[str] | None = Field(
        None, description="attributes whose groups are compared; by default those that all sets have; of a table none"
    )
    labels: list[str] | None = Field(
        None,
        description="diagnoses that a judge looks for: do the images show what was asked for? By default those that "
        "all sets have; an empty list: none",
    )
    only: LevelLists = Field(
        {},
        description="keep to images with these levels of a label on both sides, such as dx=nv,mel (in YAML dx: [nv, "
        "mel]), to see whether a gap between groups is one between diagnoses",
    )
    encoder: str = Field(
        DEFAULT_ENCODER,
        description="encoder of images: efficientnet-lite0 (no download), efficientnet-lite0@224, or with weights of "
        "your own inception:FILE, dinov2:FOLDER, clip:FOLDER, radimagenet:FILE, onnx:FILE",
    )
    metrics: list[str] | None = Field(None, description="metrics; by default all that the inputs allow")
    intersections: bool = Field(True, description="also measure pairs of attributes, such as sex & age")
    matched_n: int | None = Field(
        None, ge=2, description="images per side in every group; by default the most that all allow, at most 400"
    )
    repeats: int = Field(
        5,
        ge=1,
        description="subsamples of n in which each image is used, at least; also the random half splits of the floor",
    )
    replicates: int = Field(500, ge=20, description="bootstrap replicates, and permutations")
    min_patients: int = Field(30, ge=2, description="groups with fewer real patients get no number")
    limit: int = Field(
        4000, ge=1, description="images per side in a group; of more, whole patients are drawn at random"
    )
    seed: int = Field(0, description="seed of all resampling")

    @field_validator("metrics")
    @classmethod
    def _known(cls, metrics: list[str] | None) -> list[str] | None:
        for name in metrics or []:
            if name not in METRICS:
                raise ValueError(f"no metric '{name}'; {suggestion(name, METRICS)}")
        return metrics

    @field_validator("encoder")
    @classmethod
    def _form(cls, encoder: str) -> str:
        kind = re.split("[:@]", encoder, maxsplit=1)[0]
        if kind not in ENCODER_FORMS:
            raise ValueError(f"no encoder '{encoder}'; {suggestion(kind, ENCODER_FORMS)}")
        return encoder


class EvaluateSettings(QualitySettings):
    """Settings of `evaluate`: the measurement, and how tables and images are read."""

    size: int | None = Field(
        None, ge=1, description="side in pixels to which all images are resized; by default that of the generated ones"
    )
    image: str = Field("file", description="column of the image files in a table; paths are relative to the table")
    patient: OptionalColumn = Field(
        "patient", description="column of the patient in tables of real images; none: every image is its own patient"
    )
    kinds: OptionalTexts = Field(
        {}, description="kind of a label: binary, multiclass or multilabel. Kinds of other labels are inferred"
    )
