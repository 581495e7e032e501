"""Checks of a calibration's arguments and cohorts before the first image is generated."""

from __future__ import annotations

import math
from itertools import product
from typing import get_args

import pandas as pd

from equigen.cohort import Cohort
from equigen.diffusion import Generator
from equigen.errors import InputError, Problem
from equigen.latents import Autoencoder
from equigen.quality import INTERSECTION_SEPARATOR
from equigen.synthesis.calibration.limits import (
    EVALUATIONS,
    LEAST_IMAGES,
    LEAST_PATIENTS,
    MOST_IMAGES,
    is_guidance_range,
)
from equigen.synthesis.guidance import Objective, attribute_parts, group_names
from equigen.synthesis.policies import Reference


def check_options(
    objective: str,
    gap_weight: float,
    budget: int,
    bounds: tuple[float, float],
    images: int | None,
    steps: int,
    confirm_images: int,
    replicates: int,
    against: str,
) -> None:
    """Raise InputError that names each invalid option."""
    problems = []
    if objective not in get_args(Objective):
        problems.append(Problem(f"objective '{objective}'", f"use one of {', '.join(get_args(Objective))}"))
    if against not in get_args(Reference):
        problems.append(Problem(f"against '{against}'", f"use one of {', '.join(get_args(Reference))}"))
    if not (math.isfinite(gap_weight) and gap_weight >= 0):
        problems.append(Problem(f"gap_weight {gap_weight}", "use 0 or more"))
    if not is_guidance_range(bounds):
        mend = "give the least and the greatest guidance, such as 1 and 4"
        problems.append(Problem(f"bounds {tuple(bounds)}", mend))
    least = {
        "budget": (budget, 1),
        "steps": (steps, 1),
        "confirm_images": (confirm_images, LEAST_IMAGES),
        "replicates": (replicates, 20),
        "images": (LEAST_IMAGES if images is None else images, LEAST_IMAGES),
    }
    problems += [Problem(f"{name} {value}", f"use at least {low}")
                 for name, (value, low) in least.items() if value < low]  # fmt: skip
    if problems:
        raise InputError("This generator cannot be calibrated so.", problems)


def check_cohorts(tune: Cohort, confirm: Cohort | None, attribute: str) -> None:
    """Raise InputError for unusable real images: unknown attributes, training images, shared patients."""
    cohorts = {"tune": tune} if confirm is None else {"tune": tune, "confirm": confirm}
    problems = []
    for name, cohort in cohorts.items():
        if len(cohort) == 0:
            problems.append(Problem(f"{name} holds no image", "mend the split in cohort.yaml"))
        if "train" in set(cohort.frame["split"]):
            mend = "give held-out images: those of the splits val and test"
            problems.append(Problem(f"{name} holds images of the training split", mend))
        available = ", ".join(cohort.attributes) or "none"
        problems += [
            Problem(f"{name} has no attribute '{single}'", f"it has: {available}; write an intersection as 'sex & age'")
            for single in attribute_parts(attribute)
            if single not in cohort.attributes
        ]
    if confirm is not None:
        shared = sorted(set(tune.frame["patient"]) & set(confirm.frame["patient"]))
        if shared:
            message = f"tune and confirm share {len(shared)} patients, '{shared[0]}' for one"
            problems.append(Problem(message, "what was gained shows only on other patients: split by patient"))
    if problems:
        raise InputError("A calibration needs held-out real images.", problems)


def require_autoencoder(pipeline: Generator) -> Autoencoder:
    """The autoencoder of a generator; InputError without one."""
    autoencoder: Autoencoder | None = getattr(pipeline, "autoencoder", None)
    if autoencoder is None:
        problem = Problem("the generator has no autoencoder", "calibrate against images")
        raise InputError("There are no reconstructions.", [problem])
    return autoencoder


def ordered_levels(cohort: Cohort, attribute: str) -> list[str]:
    """Groups of an attribute, or of an intersection, in the order of the levels."""
    levels = [cohort.attributes[name].levels for name in attribute_parts(attribute)]
    return [INTERSECTION_SEPARATOR.join(combination) for combination in product(*levels)]


def eligible_groups(tune: Cohort, attribute: str, min_patients: int) -> tuple[list[str], dict[str, str]]:
    """Names of the groups with enough patients, in order, and the reason for each other group.

    ``LEAST_PATIENTS`` are needed whatever ``min_patients`` is. Raises InputError where fewer than two groups are large
    enough.
    """
    needed = max(LEAST_PATIENTS, min_patients)
    owners = pd.Series(group_names(tune.frame, attribute))
    counts = tune.frame["patient"].groupby(owners.to_numpy()).nunique()
    levels = ordered_levels(tune, attribute)
    patients = {level: int(counts.get(level, 0)) for level in levels}
    names = [level for level, count in patients.items() if count >= needed]
    left_out = {level: f"too small: {count} patients" for level, count in patients.items() if level not in names}
    if len(names) < 2:
        sizes = ", ".join(f"{level}: {count}" for level, count in patients.items())
        problem = Problem(
            f"of '{attribute}' fewer than two groups have {needed} patients ({sizes})",
            "give more images, or another attribute",
            column=f"attr.{attribute}",
        )
        raise InputError("There are no groups to calibrate.", [problem])
    return names, left_out


def images_per_group(images: int | None, budget: int, groups: int, start: int) -> int:
    """Images of a group in one evaluation; None takes as many as allow ``EVALUATIONS`` evaluations of each group.

    Raises InputError where the budget is less than ``start`` evaluations of every group.
    """
    count = min(MOST_IMAGES, budget // (EVALUATIONS * groups)) if images is None else images
    least = start * groups * max(count, LEAST_IMAGES)
    if count < LEAST_IMAGES or budget < least:
        message = f"a budget of {budget} images for {groups} groups"
        needed = least if images is not None else EVALUATIONS * groups * LEAST_IMAGES
        mend = f"give at least {needed}, or fewer images each"
        raise InputError("The budget is too small.", [Problem(message, mend)])
    return count
