"""The fundus phantom: a procedural cohort with known truth, and an oracle that reads images."""

from equigen.cohort.phantom.oracle import Oracle
from equigen.cohort.phantom.parameters import (
    Camera,
    PhantomSettings,
    RaceAppearance,
    SexAppearance,
    sample_parameters,
)
from equigen.cohort.phantom.render import render
from equigen.cohort.phantom.write import write_phantom

__all__ = [
    "Camera",
    "Oracle",
    "PhantomSettings",
    "RaceAppearance",
    "SexAppearance",
    "render",
    "sample_parameters",
    "write_phantom",
]
