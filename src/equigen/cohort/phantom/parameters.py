"""Settings of a phantom cohort, and the parameters of every image sampled from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from equigen.config import check_keys
from equigen.errors import InputError, Problem
from equigen.seeds import derive_seed, numpy_generator

RATIO_RANGE = (0.25, 0.85)
DISC_RANGE = (0.28, 0.375)


class _Frozen(BaseModel):
    """Base of immutable settings; an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RaceAppearance(_Frozen):
    """Share, prevalence and appearance of one race."""

    share: float = Field(gt=0, le=1, description="fraction of patients; the shares sum to 1")
    prevalence: float = Field(ge=0, le=1, description="fraction of patients whose ratio is drawn as glaucoma")
    pigmentation: float = Field(ge=0, le=1, description="mean pigmentation, 0 (fair) to 1 (dark)")
    pigmentation_sd: float = Field(default=0.07, gt=0, le=0.5, description="standard deviation of it")
    disc_radius: float = Field(default=0.33, ge=0.28, le=0.375, description="mean disc radius in half-widths")
    noise: float = Field(default=0.015, ge=0, le=0.3, description="sensor noise, as a fraction of full scale")


class SexAppearance(_Frozen):
    """Share of one sex, and its effect on disc radius and sensor noise; nothing else depends on the sex."""

    share: float = Field(gt=0, le=1, description="fraction of patients; the shares sum to 1")
    disc_shift: float = Field(default=0.0, ge=-0.05, le=0.05, description="added to the disc radius")
    noise_factor: float = Field(default=1.0, ge=0, le=10, description="multiplies the sensor noise")


class Camera(_Frozen):
    """Camera of one site: colours, light, sharpness; ``ood`` sites are used for testing only."""

    share: float = Field(gt=0, le=1, description="fraction of patients; the shares sum to 1")
    ood: bool = Field(default=False, description="True: an out-of-distribution site, used for testing only")
    gain_red: float = Field(default=1.0, ge=0.3, le=1.5, description="multiplies the red channel")
    gain_green: float = Field(default=1.0, ge=0.3, le=1.5, description="multiplies the green channel")
    gain_blue: float = Field(default=1.0, ge=0.3, le=3.0, description="multiplies the blue channel")
    blur: float = Field(default=0.012, ge=0, le=0.1, description="sigma of the optics, in half-widths")
    vignette: float = Field(default=0.35, ge=0, le=0.9, description="light lost at the field's edge")
    field: float = Field(default=0.98, ge=0.8, le=1.5, description="radius of the field, in half-widths")
    noise_factor: float = Field(default=1.0, ge=0, le=10, description="multiplies the sensor noise")


_RACES = {
    "asian": RaceAppearance(share=0.15, prevalence=0.4, pigmentation=0.5, disc_radius=0.325, noise=0.015),
    "black": RaceAppearance(share=0.2, prevalence=0.52, pigmentation=0.8, disc_radius=0.345, noise=0.020),
    "white": RaceAppearance(share=0.65, prevalence=0.42, pigmentation=0.2, disc_radius=0.33, noise=0.012),
}
_SEXES = {
    "female": SexAppearance(share=0.55, disc_shift=-0.005),
    "male": SexAppearance(share=0.45, disc_shift=0.005, noise_factor=1.1),
}
_SITES = {
    "alpha": Camera(share=0.45),
    "beta": Camera(share=0.35, gain_red=0.9, gain_green=1.06, gain_blue=1.1, blur=0.016, vignette=0.28),
    "gamma": Camera(share=0.20, ood=True, gain_red=0.76, gain_green=0.95, gain_blue=1.6, blur=0.025,
                    vignette=0.5, field=1.1, noise_factor=1.5),
}  # fmt: skip


class PhantomSettings(_Frozen):
    """Settings of a phantom cohort, apart from its number of images and its seed.

    A patient's disease state determines from which normal distribution the cup-to-disc ratio of each eye is drawn
    (truncated by clipping to 0.25..0.85). The two distributions overlap a little, so the label is decided by
    the ratio: *glaucoma* exactly if ``cup_disc_ratio > threshold``. With the defaults about 2 % of the
    healthy and 3 % of the ill draws end on the other side.
    """

    size: int = Field(default=64, ge=32, le=512, description="side of the square images, in pixels")
    races: dict[str, RaceAppearance] = Field(default_factory=_RACES.copy, min_length=2, description="by level")
    sexes: dict[str, SexAppearance] = Field(default_factory=_SEXES.copy, min_length=2, description="by level")
    sites: dict[str, Camera] = Field(default_factory=_SITES.copy, min_length=1, description="by site")
    both_eyes: float = Field(default=0.5, ge=0, le=1, description="chance that two images are of one patient")
    threshold: float = Field(default=0.6, gt=0.25, lt=0.85, description="an eye above it has glaucoma")
    healthy_ratio: float = Field(default=0.42, ge=0.25, le=0.85, description="mean ratio of the healthy")
    healthy_ratio_sd: float = Field(default=0.09, gt=0, le=0.3, description="its standard deviation")
    glaucoma_ratio: float = Field(default=0.73, ge=0.25, le=0.85, description="mean ratio of the ill")
    glaucoma_ratio_sd: float = Field(default=0.07, gt=0, le=0.3, description="its standard deviation")
    disc_radius_sd: float = Field(default=0.012, ge=0, le=0.1, description="spread of the disc radius")
    exposure_sd: float = Field(default=0.05, ge=0, le=0.2, description="spread of the brightness of images")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, members in (("races", self.races), ("sexes", self.sexes), ("sites", self.sites)):
            total = sum(member.share for member in members.values())
            if abs(total - 1) > 1e-6:
                raise ValueError(f"the shares of {name} sum to {total:g}, and must sum to 1")
        if all(camera.ood for camera in self.sites.values()):
            raise ValueError("every site is out of distribution, so that nothing is left to train on")
        if not self.healthy_ratio < self.threshold < self.glaucoma_ratio:
            raise ValueError("threshold must lie between healthy_ratio and glaucoma_ratio")
        return self

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> PhantomSettings:
        """Check settings given as a mapping (of a YAML or JSON file); raises InputError with every problem found."""
        return check_keys(cls, values, None, "The settings of the phantom cannot be used.", prefix="phantom")


def _sample_level(shares: Iterable[tuple[str, Any]], rng: np.random.Generator) -> str:
    """Sample a level name with the probability of its share."""
    names, members = zip(*shares, strict=True)
    edges = np.cumsum([member.share for member in members])
    return str(names[min(int(np.searchsorted(edges, rng.random(), side="right")), len(names) - 1)])


def _eye_parameters(index: int, seed: int, settings: PhantomSettings, race: str, sex: str, ill: bool) -> dict[str, Any]:
    """Sample the parameters of one eye: ratio and geometry of the disc, and the seeds of its textures."""
    rng = numpy_generator(seed, "phantom/eye", index)
    appearance, shift = settings.races[race], settings.sexes[sex].disc_shift
    mean, spread = (
        (settings.glaucoma_ratio, settings.glaucoma_ratio_sd)
        if ill
        else (settings.healthy_ratio, settings.healthy_ratio_sd)
    )
    ratio = float(np.clip(rng.normal(mean, spread), *RATIO_RANGE))
    radius = rng.normal(appearance.disc_radius + shift, settings.disc_radius_sd)
    return {
        "glaucoma": "glaucoma" if ratio > settings.threshold else "healthy",
        "cup_disc_ratio": ratio,
        "disc_radius": float(np.clip(radius, *DISC_RANGE)),
        "disc_offset": float(rng.uniform(0.26, 0.38)),
        "disc_y": float(rng.uniform(-0.08, 0.08)),
        "disc_aspect": float(rng.uniform(1.0, 1.12)),
        "cup_shift": float(rng.uniform(0.0, 0.25)),
        "exposure": float(np.clip(rng.normal(1.0, settings.exposure_sd), 0.7, 1.15)),
        "vessel_seed": derive_seed(seed, "phantom/vessels", index),
        "texture_seed": derive_seed(seed, "phantom/texture", index),
        "noise_seed": derive_seed(seed, "phantom/noise", index),
    }


def _image_parameters(index: int, seed: int, settings: PhantomSettings) -> dict[str, Any]:
    """Sample all parameters of image ``index``."""
    # images 2j and 2j+1 are both eyes of patient 2j with probability ``both_eyes``, else of two patients
    same_patient = numpy_generator(seed, "phantom/pair", index // 2).random() < settings.both_eyes
    number = index - index % 2 if same_patient else index
    rng = numpy_generator(seed, "phantom/patient", number)
    race = _sample_level(settings.races.items(), rng)
    sex = _sample_level(settings.sexes.items(), rng)
    site = _sample_level(settings.sites.items(), rng)
    appearance, camera = settings.races[race], settings.sites[site]
    ill = bool(rng.random() < appearance.prevalence)
    pigmentation = float(np.clip(rng.normal(appearance.pigmentation, appearance.pigmentation_sd), 0, 1))
    eyes = ("left", "right") if rng.random() < 0.5 else ("right", "left")
    noise = appearance.noise * settings.sexes[sex].noise_factor
    return {
        "index": index,
        "eye": eyes[0] if index == number else eyes[1],
        "patient": f"p{number:06d}",
        "race": race,
        "sex": sex,
        "site": site,
        "pigmentation": pigmentation,
        **_eye_parameters(index, seed, settings, race, sex, ill),
        **camera.model_dump(exclude={"share", "ood", "noise_factor"}),
        "noise": noise * camera.noise_factor,
    }


def sample_parameters(n: int, seed: int = 0, settings: PhantomSettings | None = None, start: int = 0) -> pd.DataFrame:
    """Sample the parameters of images ``start`` to ``start + n - 1``: one row each.

    Row k depends on (seed, settings, k) alone, so a longer cohort begins with the shorter one.

    Columns: index, eye (left|right), patient, race, sex, site, pigmentation (0..1), glaucoma
    (healthy|glaucoma), cup_disc_ratio; lengths in half-widths of the image: disc_radius, disc_offset (towards
    the nose), disc_y, blur, field; fractions: disc_aspect (height to width), cup_shift (of the free rim,
    towards the temple), exposure, gain_red, gain_green, gain_blue, vignette, noise (standard deviation, of
    full scale); three seeds.

    Raises InputError if ``n`` or ``start`` is negative.
    """
    if n < 0 or start < 0:
        problem = Problem(f"images {start} to {start + n - 1} were asked for", "give numbers of zero or more")
        raise InputError("A phantom cannot have a negative number of images.", [problem])
    settings = settings or PhantomSettings()
    empty = list(_image_parameters(0, seed, settings))
    return pd.DataFrame([_image_parameters(index, seed, settings) for index in range(start, start + n)], columns=empty)
