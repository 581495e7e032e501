"""What a calibration gained, on other real images than those it was tuned on and with fresh seeds."""

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
    EncodedSide,
    Encoder,
    Family,
    ImageSet,
    Inputs,
    Settings,
    codes,
    extract,
    interval,
    join,
    measure_families,
    passes,
)
from equigen.seeds import derive_seed
from equigen.statistics import two_sided_p_value
from equigen.synthesis.calibration.measurement import kept
from equigen.synthesis.generation import generate, plan_hash
from equigen.synthesis.guidance import Guidance, Which, apply_guidance, group_names
from equigen.synthesis.plans import match_plan

Array = NDArray[np.float64]
SETS: tuple[Which, ...] = ("default", "common", "group")
COLUMNS = [
    "set", "figure", "group", "n_real", "n_generated", "estimate", "floor", "excess", "ci_low", "ci_high",
    "reference", "difference", "difference_low", "difference_high", "p_value", "note",
]
PAIRED = "paired bootstrap: the same real patients, prompts and seeds for both; p two-sided, not corrected"
LEANS = "a gap is never negative, so its interval leans upwards"


def measure_gain(
    pipeline: Generator, confirm: Cohort, chosen: Guidance, levels: list[str], network: Encoder, *,
    images: int, settings: Settings, out: Path, batch: int, show: bool, through: Autoencoder | None = None,
) -> pd.DataFrame:
    """The gain table (see ``Calibration``): sets of the same prompts and fresh seeds by the three choices of guidance.

    The prompts are those of the policy ``match`` over the confirming images, which are measured against as ``through``
    keeps them; ``levels`` are the groups in order.
    """
    rows = match_plan(confirm, images, derive_seed(settings.seed, "calibrate/confirm"), steps=chosen.steps)
    plans = {which: apply_guidance(rows, chosen, which) for which in SETS}
    # One folder for each plan: choices of the same guidance share their images, and another search has others.
    places = {which: out / plan_hash(asked)[:16] for which, asked in plans.items()}
    made = {which: generate(pipeline, asked, places[which], batch=batch, show=show) for which, asked in plans.items()}
    size, cache = pipeline.size, out / "features"
    sources = {"real": confirm.frame} | {which: images.frame for which, images in made.items()}
    coders = {"real": through}
    encoded = {
        name: _side(frame, chosen.attribute, levels, network, size, cache, name, show, coders.get(name))
        for name, frame in sources.items()
    }
    inputs = Inputs(encoded["real"], {name: encoded[name] for name in SETS}, ["kd"])
    cells = len(SETS) * (1 + len(levels)) * passes(["kd"])
    with progress_bar("Measuring the gain", cells, show=show) as bar:
        families = measure_families(inputs, {chosen.attribute: levels}, settings, bar, intersections=False)
    return gain_table({name: own[0] for name, own in families.items()}, chosen.attribute)


def _side(
    frame: pd.DataFrame, attribute: str, levels: list[str], network: Encoder, size: int, cache: Path, name: str,
    show: bool, through: Autoencoder | None,
) -> EncodedSide:
    """One side, its groups those of the calibrated attribute, be it an intersection."""
    words = pd.Series(group_names(frame, attribute), dtype=object)
    own = frame.reset_index(drop=True).assign(**{f"attr.{attribute}": words.where(words != "", None)})
    images = kept(ImageSet(own), through, size)
    features = extract(images, network, size, cache_dir=cache, title=f"Encoding {name} images", show=show)
    return EncodedSide(images.patients(name), {attribute: codes(own, attribute, levels)}, features, own)


def gain_table(families: dict[str, Family], attribute: str) -> pd.DataFrame:
    """Excess KD of each set by figure, and its paired difference from the sets before it."""
    figures = {name: _figures(family, attribute) for name, family in families.items()}
    rows: list[dict[str, Any]] = []
    for index, name in enumerate(families):
        rows += [{"set": name, "reference": "", **_own(figure)} for figure in figures[name]]
        for earlier in list(families)[:index]:
            pairs = zip(figures[name], figures[earlier], strict=True)
            rows += [{"set": name, "reference": earlier, **_paired(one, other)} for one, other in pairs]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    counts = dict.fromkeys(("n_real", "n_generated"), "Int64")
    return frame.astype({**counts, **dict.fromkeys(COLUMNS[5:10] + COLUMNS[11:15], "float64"), "note": "str"})


def _figures(family: Family, attribute: str) -> list[dict[str, Any]]:
    """Overall, each group, then mean, worst and gap over the groups, each with the replicates of its excess."""
    found = family.measured[0].estimates
    figures: list[dict[str, Any]] = []
    for cell in family.cells:
        head = {"figure": "overall" if cell.attribute == "*" else "group", "group": cell.group,
                "n_real": len(cell.real), "n_generated": len(cell.generated),
                "note": join(cell.reason or "", cell.note)}
        estimate = found.get((cell.attribute, cell.group))
        if estimate is None or estimate.floor is None:
            figures.append({**head, "note": head["note"] or "undefined in this group", "draws": None})
            continue
        excess = {"estimate": estimate.value, "floor": estimate.floor, "excess": estimate.value - estimate.floor}
        figures.append({**head, **excess, "draws": estimate.replicates - estimate.floor})
    return figures + _over_groups([figure for figure in figures if figure["figure"] == "group"])


def _over_groups(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean, worst and gap of the groups' excesses."""
    folds: dict[str, Callable[..., Any]] = {"mean": np.mean, "worst": np.max, "gap": np.ptp}
    known = [figure for figure in groups if figure["draws"] is not None]
    left_out = [f"without {figure['group']} ({figure['note']})" for figure in groups if figure["draws"] is None]
    if len(known) < 2:
        note = join("fewer than two groups are large enough to compare", *left_out)
        return [{"figure": name, "group": "*", "note": note, "draws": None} for name in folds]
    values = np.array([figure["excess"] for figure in known])
    draws = np.stack([figure["draws"] for figure in known], axis=1)
    rows = []
    for name, fold in folds.items():
        note = join(*left_out, LEANS if name == "gap" else "")
        rows.append({"figure": name, "group": "*", "note": note, "excess": float(fold(values)),
                     "draws": np.asarray(fold(draws, axis=1), dtype=np.float64)})
    return rows


def _own(figure: dict[str, Any]) -> dict[str, Any]:
    """A figure with the interval of its excess."""
    if figure["draws"] is None:
        return figure
    found = interval(figure["excess"], figure["draws"])
    limits = {"ci_low": found["ci_low"], "ci_high": found["ci_high"]}
    return {**figure, **limits, "note": join(figure["note"], found["note"])}


def _paired(figure: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """A figure with its difference from another set's; replicates are paired, floors are the same and cancel."""
    row = _own(figure)
    if figure["draws"] is None or other["draws"] is None:
        return {**row, "note": join(row["note"], "one of the sets has no number here")}
    draws: Array = figure["draws"] - other["draws"]
    found = interval(figure["excess"] - other["excess"], draws)
    p_value = None if found["ci_low"] is None else two_sided_p_value(draws[np.isfinite(draws)])
    return {**row, "difference": found["estimate"], "difference_low": found["ci_low"],
            "difference_high": found["ci_high"], "p_value": p_value, "note": join(row["note"], PAIRED)}
