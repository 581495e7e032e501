"""What a calibration says in plain words, and never more than its tables say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from equigen.report.findings import LEVEL
from equigen.report.layout import Sentence
from equigen.report.metrics import lookup_metric
from equigen.report.rounding import interval, is_finite, listing, number, p_text, signed_number

KD = lookup_metric("kd")
SETS = {"default": "default guidance", "common": "common guidance", "group": "guidance by group"}
FIGURES = {"overall": "all images", "mean": "mean of the groups", "worst": "worst group", "gap": "gap between groups"}
CHOICE, GAIN = "What was chosen", "What it gained on other images"


def calibration_sentences(
    choice: pd.DataFrame, gain: pd.DataFrame | None, settings: Mapping[str, Any]
) -> list[Sentence]:
    """Findings in words: the choice, whom it makes worse, and what it gained on other patients."""
    return [*_chosen(choice, settings), *levelling(choice), *_gained(gain, settings)]


def goal_words(settings: Mapping[str, Any]) -> str:
    """What was minimised."""
    kept = ", against real images as the autoencoder keeps them" if settings.get("against") == "reconstructions" else ""
    if settings["objective"] == "worst":
        return f"the excess KD of the worst group{kept}"
    return f"the mean excess KD of the groups plus {settings['gap_weight']:g} times the gap between them{kept}"


def _chosen(choice: pd.DataFrame, settings: Mapping[str, Any]) -> list[Sentence]:
    own = [f"{group} {value:g}" for group, value in settings["groups"].items()]
    text = (
        f"Guidance by {settings['attribute']}, to minimise {goal_words(settings)}: {listing(own)}. One guidance for "
        f"all would be {settings['common']:g}; without calibration it is {settings['default']:g}."
    )
    found = [Sentence(text, "note", CHOICE)]
    edge = [group for group, value in settings["groups"].items() if value in settings["bounds"]]
    if edge:
        low, high = settings["bounds"]
        text = f"{listing(edge)}: at an end of the range searched ({low:g} to {high:g}); a wider one may do better."
        found.append(Sentence(text, "caution", CHOICE))
    if settings["left_out"]:
        small = listing([f"{group} ({reason})" for group, reason in settings["left_out"].items()])
        found.append(Sentence(f"{small}: the common guidance is used there.", "caution", CHOICE))
    return found


def levelling(choice: pd.DataFrame) -> list[Sentence]:
    """Which groups the choice makes worse than another choice would: a gap can be closed by that alone."""
    found = []
    for word in ("default", "common"):
        worse = [row for row in choice.to_dict("records") if visible(row[f"change_{word}"])]
        if not worse:
            continue
        parts = tuple(
            f"{row['group']}: {number(row[f'excess_{word}'], KD)} with {row[word]:g}, "
            f"{number(row['excess_calibrated'], KD)} with {row['calibrated']:g}" for row in worse
        )  # fmt: skip
        names = listing([str(row["group"]) for row in worse])
        text = (
            f"Against {SETS[word]}, {names} {'gets' if len(worse) == 1 else 'get'} worse by this choice (excess KD x "
            "1000 on the images tuned on). A gap that narrows for that reason alone helps nobody (levelling down)."
        )
        found.append(Sentence(text, "caution", CHOICE, parts))
    return found


def visible(change: Any) -> bool:
    """Whether a group gets worse by more than the page's rounding hides."""
    return is_finite(change) and bool(change * KD.scale >= 0.005)


def _gained(gain: pd.DataFrame | None, settings: Mapping[str, Any]) -> list[Sentence]:
    """The differences of the calibrated set on other patients, or that they were not measured."""
    if gain is None or gain.empty:
        text = (
            "It was not measured on other patients what the choice gains. The numbers on this page are those that "
            "were searched for their minimum, so they flatter it."
        )
        return [Sentence(text, "missing", GAIN)]
    own = gain[(gain["set"] == "group") & (gain["reference"] != "")]
    found = []
    for figure in ("worst", "gap", "overall"):
        for row in own[own["figure"] == figure].to_dict("records"):
            found.append(_difference(row))
    worse = _groups_worse(own)
    return found + worse


def _difference(row: Any) -> Sentence:
    what = f"{FIGURES[str(row['figure'])]}, guidance by group against {SETS[str(row['reference'])]}"
    if not is_finite(row["difference"]):
        return Sentence(f"{what[0].upper()}{what[1:]}: no number ({row['note']}).", "missing", GAIN)
    values = f"{number(row['excess'] - row['difference'], KD)} to {number(row['excess'], KD)}"
    span = ", ".join(filter(None, [
        f"95 % interval {interval(row['difference_low'], row['difference_high'], KD)}", p_text(row["p_value"]),
    ]))  # fmt: skip
    change = signed_number(row["difference"], KD)
    head = f"{what[0].upper()}{what[1:]}: excess KD x 1000 from {values}, a difference of {change}"
    if not established(row):
        return Sentence(f"{head} ({span}), which chance can explain.", "chance", GAIN)
    way = "better" if row["difference"] < 0 else "worse"
    return Sentence(f"{head} ({span}): {way}.", "finding" if way == "better" else "caution", GAIN)


def established(row: Any) -> bool:
    """Whether the interval of a difference leaves 0 out and its p-value is at most 0.05."""
    ends = row["difference_low"], row["difference_high"]
    if not all(map(is_finite, ends)) or not is_finite(row["p_value"]):
        return False
    return bool((ends[0] > 0 or ends[1] < 0) and row["p_value"] <= LEVEL)


def _groups_worse(own: pd.DataFrame) -> list[Sentence]:
    """Groups that are established to be worse off on other patients too."""
    rows = own[(own["figure"] == "group") & (own["difference"] > 0)].to_dict("records")
    told = [f"{row['group']} against {SETS[str(row['reference'])]} ({signed_number(row['difference'], KD)})"
            for row in rows if established(row)]
    if not told:
        return []
    return [Sentence(f"On other patients too, these are worse off: {listing(told)}.", "caution", GAIN)]
