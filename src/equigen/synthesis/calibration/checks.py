"""What can be wrong with a calibration, found before the first image is made."""

from __future__ import annotations

import math
from itertools import product
from typing import get_args

import pandas as pd

from equigen.cohort import Cohort
from equigen.errors import InputError, Problem
from equigen.quality import BETWEEN
from equigen.synthesis.guidance import Against, Objective, attribute_parts, group_names

LEAST = 4  # patients of a group
LEAST_IMAGES = 8   # of a group in one evaluation: fewer say nothing
USUAL = 8          # evaluations of each group where the number of images is not given
MOST_IMAGES = 250  # then, at most


def are_bounds(bounds: tuple[float, ...]) -> bool:
    """Whether these are a least and a greatest guidance."""
    return len(bounds) == 2 and all(map(math.isfinite, bounds)) and 0 <= bounds[0] < bounds[1]


def check_options(
    objective: str, gap_weight: float, budget: int, bounds: tuple[float, float], images: int | None, steps: int,
    confirm_images: int, replicates: int, against: str,
) -> None:
    """Raise InputError for each option that makes no sense."""
    problems = []
    if objective not in get_args(Objective):
        problems.append(Problem(f"objective '{objective}'", f"use one of {', '.join(get_args(Objective))}"))
    if against not in get_args(Against):
        problems.append(Problem(f"against '{against}'", f"use one of {', '.join(get_args(Against))}"))
    if not (math.isfinite(gap_weight) and gap_weight >= 0):
        problems.append(Problem(f"gap_weight {gap_weight}", "use 0 or more"))
    if not are_bounds(bounds):
        mend = "give the least and the greatest guidance, such as 1 and 4"
        problems.append(Problem(f"bounds {tuple(bounds)}", mend))
    least = {"budget": (budget, 1), "steps": (steps, 1), "confirm_images": (confirm_images, LEAST_IMAGES),
             "replicates": (replicates, 20), "images": (LEAST_IMAGES if images is None else images, LEAST_IMAGES)}
    few = {name: pair for name, pair in least.items() if pair[0] < pair[1]}
    problems += [Problem(f"{name} {value}", f"use at least {low}") for name, (value, low) in few.items()]
    if problems:
        raise InputError("This generator cannot be calibrated so.", problems)


def check_sides(tune: Cohort, confirm: Cohort | None, attribute: str) -> None:
    """Raise InputError where the real images cannot be used: unknown attributes, training images, shared patients."""
    sides = {"tune": tune} if confirm is None else {"tune": tune, "confirm": confirm}
    problems = []
    for name, side in sides.items():
        if len(side) == 0:
            problems.append(Problem(f"{name} holds no image", "mend the split in cohort.yaml"))
        if "train" in set(side.frame["split"]):
            mend = "give held-out images: those of the splits val and test"
            problems.append(Problem(f"{name} holds images of the training split", mend))
        known = ", ".join(side.attributes) or "none"
        problems += [
            Problem(f"{name} has no attribute '{part}'", f"it has: {known}; write an intersection as 'sex & age'")
            for part in attribute_parts(attribute) if part not in side.attributes
        ]
    if confirm is not None:
        shared = sorted(set(tune.frame["patient"]) & set(confirm.frame["patient"]))
        if shared:
            message = f"tune and confirm share {len(shared)} patients, '{shared[0]}' for one"
            problems.append(Problem(message, "what was gained shows only on other patients: split by patient"))
    if problems:
        raise InputError("A calibration needs held-out real images.", problems)


def ordered_levels(cohort: Cohort, attribute: str) -> list[str]:
    """Groups of an attribute, or of an intersection, in the order of the levels."""
    levels = [cohort.attributes[part].levels for part in attribute_parts(attribute)]
    return [BETWEEN.join(words) for words in product(*levels)]


def eligible_groups(tune: Cohort, attribute: str, min_patients: int) -> tuple[list[str], dict[str, str]]:
    """Groups with enough patients, in order, and the others with the reason.

    Never fewer than LEAST, since a group's floor compares two halves of its patients, each with two or more. Raises
    InputError where fewer than two groups are large enough.
    """
    needed = max(LEAST, min_patients)
    owners = pd.Series(group_names(tune.frame, attribute))
    counts = tune.frame["patient"].groupby(owners.to_numpy()).nunique()
    levels = ordered_levels(tune, attribute)
    found = {level: int(counts.get(level, 0)) for level in levels}
    names = [level for level, count in found.items() if count >= needed]
    left_out = {level: f"too small: {count} patients" for level, count in found.items() if level not in names}
    if len(names) < 2:
        sizes = ", ".join(f"{level}: {count}" for level, count in found.items())
        problem = Problem(f"of '{attribute}' fewer than two groups have {needed} patients ({sizes})",
                          "give more images, or another attribute", column=f"attr.{attribute}")
        raise InputError("There are no groups to calibrate.", [problem])
    return names, left_out


def images_each(images: int | None, budget: int, groups: int, start: int) -> int:
    """Images of a group in one evaluation; None takes what lets each group be evaluated ``USUAL`` times.

    Raises InputError where the budget does not reach for ``start`` evaluations of every group.
    """
    each = min(MOST_IMAGES, budget // (USUAL * groups)) if images is None else images
    least = start * groups * max(each, LEAST_IMAGES)
    if each < LEAST_IMAGES or budget < least:
        message = f"a budget of {budget} images for {groups} groups"
        mend = f"give at least {least if images is not None else USUAL * groups * LEAST_IMAGES}, or fewer images each"
        raise InputError("The budget is too small.", [Problem(message, mend)])
    return each
