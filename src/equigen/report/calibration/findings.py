"""Sentences of a calibration: the guidance chosen, groups made worse by it, and its gain on other patients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from equigen.report.findings import LEVEL
from equigen.report.layout import Sentence
from equigen.report.metrics import interval, is_finite, listing, lookup_metric, number, p_text, signed_number

KD = lookup_metric("kd")
SETS = {"default": "default guidance", "common": "common guidance", "group": "guidance by group"}
QUANTITIES = {
    "overall": "all images", "mean": "mean of the groups", "worst": "worst group", "gap": "gap between groups",
}  # fmt: skip
CHOICE, GAIN = "What was chosen", "What it gained on other images"


def calibration_sentences(
    choice: pd.DataFrame, gain: pd.DataFrame | None, settings: Mapping[str, Any]
) -> list[Sentence]:
    """Sentences on the guidance chosen, on groups that it makes worse, and on its gain on other patients."""
    groups = settings["groups"]
    text = (
        f"Guidance by {settings['attribute']}, to minimise {objective_text(settings)}: "
        f"{listing([f'{group} {value:g}' for group, value in groups.items()])}. One guidance for "
        f"all would be {settings['common']:g}; without calibration it is {settings['default']:g}."
    )
    sentences = [Sentence(text, "note", CHOICE)]
    edge = [group for group, value in groups.items() if value in settings["bounds"]]
    if edge:
        low, high = settings["bounds"]
        text = f"{listing(edge)}: at an end of the range searched ({low:g} to {high:g}); a wider one may do better."
        sentences.append(Sentence(text, "caution", CHOICE))
    if settings["left_out"]:
        small = listing([f"{group} ({reason})" for group, reason in settings["left_out"].items()])
        sentences.append(Sentence(f"{small}: the common guidance is used there.", "caution", CHOICE))
    return [*sentences, *levelling_sentences(choice), *_gain_sentences(gain)]


def objective_text(settings: Mapping[str, Any]) -> str:
    """The objective that the calibration minimised."""
    reconstructed = settings.get("against") == "reconstructions"
    target = ", against real images as the autoencoder keeps them" if reconstructed else ""
    if settings["objective"] == "worst":
        return f"the excess KD of the worst group{target}"
    return f"the mean excess KD of the groups plus {settings['gap_weight']:g} times the gap between them{target}"


def levelling_sentences(choice: pd.DataFrame) -> list[Sentence]:
    """Cautions that name the groups made worse against the default or the common guidance (levelling down)."""
    sentences = []
    for name in ("default", "common"):
        worse = [row for row in choice.to_dict("records") if is_visible_increase(row[f"change_{name}"])]
        if not worse:
            continue
        parts = tuple(
            f"{row['group']}: {number(row[f'excess_{name}'], KD)} with {row[name]:g}, "
            f"{number(row['excess_calibrated'], KD)} with {row['calibrated']:g}" for row in worse
        )  # fmt: skip
        groups = listing([str(row["group"]) for row in worse])
        text = (
            f"Against {SETS[name]}, {groups} {'gets' if len(worse) == 1 else 'get'} worse by this choice (excess KD x "
            "1000 on the images tuned on). A gap that narrows for that reason alone helps nobody (levelling down)."
        )
        sentences.append(Sentence(text, "caution", CHOICE, parts))
    return sentences


def is_visible_increase(change: Any) -> bool:
    """Whether a change of the excess is above 0 by more than the page's rounding hides."""
    return is_finite(change) and bool(change * KD.scale >= 0.005)


def _gain_sentences(gain: pd.DataFrame | None) -> list[Sentence]:
    """Differences of guidance by group on other patients, and groups established to be worse there."""
    if gain is None or gain.empty:
        text = (
            "It was not measured on other patients what the choice gains. The numbers on this page are those that "
            "were searched for their minimum, so they flatter it."
        )
        return [Sentence(text, "missing", GAIN)]
    differences = gain[(gain["set"] == "group") & (gain["reference"] != "")]
    sentences = []
    for quantity in ("worst", "gap", "overall"):
        for row in differences[differences["figure"] == quantity].to_dict("records"):
            title = f"{QUANTITIES[quantity]}, guidance by group against {SETS[str(row['reference'])]}"
            title = title[0].upper() + title[1:]
            if not is_finite(row["difference"]):
                sentences.append(Sentence(f"{title}: no number ({row['note']}).", "missing", GAIN))
                continue
            details = [f"95 % interval {interval(row['difference_low'], row['difference_high'], KD)}",
                       p_text(row["p_value"])]  # fmt: skip
            text = (
                f"{title}: excess KD x 1000 from {number(row['excess'] - row['difference'], KD)} to "
                f"{number(row['excess'], KD)}, a difference of {signed_number(row['difference'], KD)} "
                f"({', '.join(filter(None, details))})"
            )
            if not is_established(row):
                sentences.append(Sentence(f"{text}, which chance can explain.", "chance", GAIN))
            elif row["difference"] < 0:
                sentences.append(Sentence(f"{text}: better.", "finding", GAIN))
            else:
                sentences.append(Sentence(f"{text}: worse.", "caution", GAIN))
    rows = differences[(differences["figure"] == "group") & (differences["difference"] > 0)].to_dict("records")
    worse = [f"{row['group']} against {SETS[str(row['reference'])]} ({signed_number(row['difference'], KD)})"
             for row in rows if is_established(row)]  # fmt: skip
    if worse:
        sentences.append(Sentence(f"On other patients too, these are worse off: {listing(worse)}.", "caution", GAIN))
    return sentences


def is_established(row: Any) -> bool:
    """Whether the interval of a difference leaves 0 out and its p-value is at most 0.05."""
    ends = row["difference_low"], row["difference_high"]
    if not all(map(is_finite, ends)) or not is_finite(row["p_value"]):
        return False
    return bool((ends[0] > 0 or ends[1] < 0) and row["p_value"] <= LEVEL)
