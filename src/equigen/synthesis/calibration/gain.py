"""Gain of a calibration, measured on real images of other patients and with other seeds than the search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.cohort import Cohort
from equigen.diffusion import Generator
from equigen.latents import Autoencoder
from equigen.progress import progress_bar
from equigen.quality import (
    EncodedImages,
    Encoder,
    EvaluationInputs,
    FamilyResult,
    ImageSet,
    ResamplingSettings,
    count_passes,
    extract_features,
    group_codes,
    interval_row,
    join_notes,
    measure_families,
)
from equigen.seeds import derive_seed
from equigen.statistics import Estimate, two_sided_p_value
from equigen.synthesis.calibration.measurement import reconstructed_images
from equigen.synthesis.generation import generate, plan_hash
from equigen.synthesis.guidance import Choice, Guidance, apply_guidance, group_names
from equigen.synthesis.plans import match_plan

Array = NDArray[np.float64]
SETS: tuple[Choice, ...] = ("default", "common", "group")
COLUMNS = [
    "set",
    "figure",
    "group",
    "n_real",
    "n_generated",
    "estimate",
    "floor",
    "excess",
    "ci_low",
    "ci_high",
    "reference",
    "difference",
    "difference_low",
    "difference_high",
    "p_value",
    "note",
]
PAIRED = "paired bootstrap: the same real patients, prompts and seeds for both; p two-sided, not corrected"
LEANS = "a gap is never negative, so its interval leans upwards"


def measure_gain(
    pipeline: Generator,
    confirm: Cohort,
    guidance: Guidance,
    levels: list[str],
    network: Encoder,
    *,
    images: int,
    settings: ResamplingSettings,
    out: Path,
    batch: int,
    show: bool,
    autoencoder: Autoencoder | None = None,
) -> pd.DataFrame:
    """The gain table (see ``Calibration``): sets of the same prompts and seeds by the three choices of guidance.

    The prompts follow the policy ``match`` over the confirming images, which are also the real images of the metric
    (their reconstructions with an ``autoencoder``). ``levels`` are the groups in order.
    """
    rows = match_plan(confirm, images, derive_seed(settings.seed, "calibrate/confirm"), steps=guidance.steps)
    plans = {name: apply_guidance(rows, guidance, name) for name in SETS}
    # One folder for each plan: choices of the same guidance share their images, and another search has others.
    folders = {name: out / plan_hash(plan)[:16] for name, plan in plans.items()}
    sets = {name: generate(pipeline, plan, folders[name], batch=batch, show=show) for name, plan in plans.items()}
    frames = {"real": confirm.frame} | {name: images.frame for name, images in sets.items()}
    encoded = {}
    for name, frame in frames.items():
        groups = pd.Series(group_names(frame, guidance.attribute), dtype=object)
        table = frame.reset_index(drop=True).assign(**{f"attr.{guidance.attribute}": groups.where(groups != "", None)})
        image_set = reconstructed_images(ImageSet(table), autoencoder if name == "real" else None, pipeline.size)
        features = extract_features(
            image_set, network, pipeline.size, cache_dir=out / "features", title=f"Encoding {name} images", show=show
        )
        codes_by_attribute = {guidance.attribute: group_codes(table, guidance.attribute, levels)}
        encoded[name] = EncodedImages(image_set.patients(name), codes_by_attribute, features, table)
    inputs = EvaluationInputs(encoded["real"], {name: encoded[name] for name in SETS}, ["kd"])
    cells = len(SETS) * (1 + len(levels)) * count_passes(["kd"])
    with progress_bar("Measuring the gain", cells, show=show) as bar:
        families = measure_families(inputs, {guidance.attribute: levels}, settings, bar, intersections=False)
    return gain_table({name: family[0] for name, family in families.items()})


def gain_table(families: dict[str, FamilyResult]) -> pd.DataFrame:
    """Excess KD of each set by quantity, and its paired differences from the preceding sets."""
    estimates = {name: _group_estimates(family) for name, family in families.items()}
    rows: list[dict[str, Any]] = []
    for index, name in enumerate(families):
        rows += [{"set": name, "reference": "", **_with_interval(estimate)} for estimate in estimates[name]]
        for earlier in list(families)[:index]:
            pairs = zip(estimates[name], estimates[earlier], strict=True)
            rows += [{"set": name, "reference": earlier, **_with_difference(*pair)} for pair in pairs]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    counts = dict.fromkeys(("n_real", "n_generated"), "Int64")
    return frame.astype({**counts, **dict.fromkeys(COLUMNS[5:10] + COLUMNS[11:15], "float64"), "note": "str"})


def _group_estimates(family: FamilyResult) -> list[dict[str, Any]]:
    """Estimates overall, of each group, and of mean, worst and gap over groups, with replicates of the excess."""
    values = family.metrics[0].estimates
    estimates: list[dict[str, Any]] = []
    for cell in family.cells:
        head = {
            "figure": "overall" if cell.attribute == "*" else "group",
            "group": cell.group,
            "n_real": len(cell.real),
            "n_generated": len(cell.generated),
            "note": join_notes(cell.reason or "", cell.note),
        }
        estimate = values.get((cell.attribute, cell.group))
        if estimate is None or estimate.floor is None:
            estimates.append({**head, "note": head["note"] or "undefined in this group", "resamples": None})
            continue
        excess = {"estimate": estimate.value, "floor": estimate.floor, "excess": estimate.value - estimate.floor}
        estimates.append(
            {**head, **excess, "resamples": Estimate(excess["excess"], estimate.replicates - estimate.floor)}
        )
    return estimates + _over_groups([estimate for estimate in estimates if estimate["figure"] == "group"])


def _over_groups(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean, worst and gap of the groups' excesses."""
    folds: dict[str, Callable[..., Any]] = {"mean": np.mean, "worst": np.max, "gap": np.ptp}
    large = [estimate for estimate in groups if estimate["resamples"] is not None]
    left_out = [
        f"without {estimate['group']} ({estimate['note']})" for estimate in groups if estimate["resamples"] is None
    ]
    if len(large) < 2:
        note = join_notes("fewer than two groups are large enough to compare", *left_out)
        return [{"figure": name, "group": "*", "note": note, "resamples": None} for name in folds]
    values = np.array([estimate["excess"] for estimate in large])
    draws = np.stack([estimate["resamples"].replicates for estimate in large], axis=1)
    rows = []
    for name, fold in folds.items():
        note = join_notes(*left_out, LEANS if name == "gap" else "")
        rows.append(
            {
                "figure": name,
                "group": "*",
                "note": note,
                "excess": float(fold(values)),
                "resamples": Estimate(float(fold(values)), np.asarray(fold(draws, axis=1), dtype=np.float64)),
            }
        )
    return rows


def _with_interval(estimate: dict[str, Any]) -> dict[str, Any]:
    """An estimate with the interval of its excess."""
    if estimate["resamples"] is None:
        return estimate
    row = interval_row(estimate["resamples"])
    limits = {"ci_low": row["ci_low"], "ci_high": row["ci_high"]}
    return {**estimate, **limits, "note": join_notes(estimate["note"], row["note"])}


def _with_difference(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """An estimate with its difference from another set's; replicates are paired, and the equal floors cancel."""
    row = _with_interval(first)
    if first["resamples"] is None or second["resamples"] is None:
        return {**row, "note": join_notes(row["note"], "one of the sets has no number here")}
    resamples: Estimate = first["resamples"] - second["resamples"]
    difference, draws = interval_row(resamples), resamples.replicates
    p_value = None if difference["ci_low"] is None else two_sided_p_value(draws[np.isfinite(draws)])
    return {
        **row,
        "difference": difference["estimate"],
        "difference_low": difference["ci_low"],
        "difference_high": difference["ci_high"],
        "p_value": p_value,
        "note": join_notes(row["note"], PAIRED),
    }
