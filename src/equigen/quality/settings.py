"""Settings of an evaluation, each described once: the command's help and the documents are made from them."""

from __future__ import annotations

from pydantic import Field

from equigen.config import LevelLists, StrictModel

DEFAULT_ENCODER = "efficientnet-lite0"


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
        description="keep to images with these levels of a label on both sides, such as dx: nv. Is a gap between "
        "groups one between diagnoses?",
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
        5, ge=1, description="subsamples of n in which each image is used, at least, and half splits of the floor"
    )
    replicates: int = Field(500, ge=20, description="bootstrap replicates, and permutations")
    min_patients: int = Field(30, ge=2, description="groups with fewer real patients get no number")
    limit: int = Field(
        4000, ge=1, description="images per side in a group; of more, whole patients are drawn at random"
    )
    seed: int = Field(0, description="seed of all resampling")


class EvaluateSettings(QualitySettings):
    """Settings of `evaluate`: the measurement, and how tables and images are read."""

    size: int | None = Field(
        None, ge=1, description="side in pixels to which all images are resized; by default that of the generated ones"
    )
    image: str = Field("file", description="column of the image files in a table; paths are relative to the table")
    patient: str | None = Field(
        "patient", description="column of the patient in tables of real images; none: every image is its own patient"
    )
    kinds: dict[str, str] = Field(
        {}, description="kind of a label: binary, multiclass or multilabel. Kinds of other labels are inferred"
    )
