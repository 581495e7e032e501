"""Least and default numbers of a calibration, for settings too: importing them loads no heavy library."""

from __future__ import annotations

import math

LEAST_PATIENTS = 4  # of a group: its floor compares two halves of two or more patients
LEAST_IMAGES = 8  # of a group in one evaluation
MOST_IMAGES = 250  # of a group in one evaluation by default
EVALUATIONS = 8  # of each group by default: they decide the number of images


def is_guidance_range(bounds: tuple[float, ...]) -> bool:
    """Whether ``bounds`` are a finite least and a greater greatest guidance, 0 or more."""
    return len(bounds) == 2 and all(map(math.isfinite, bounds)) and 0 <= bounds[0] < bounds[1]
