"""Sentences about conditioning: do generated images show the diagnosis and attribute that were asked for."""

from __future__ import annotations

from typing import Any

import pandas as pd

from equigen.quality import FAILS
from equigen.report.figures import REFERENCES
from equigen.report.findings import (
    against_real,
    corrected,
    gap_text,
    is_group,
    named_attributes,
    one,
    singles,
    worst_group,
)
from equigen.report.frames import in_order
from equigen.report.layout import Sentence
from equigen.report.metrics import Metric, metric
from equigen.report.rounding import known, number, with_interval

EXCUSE = "the judge fails on reconstructions of real images, so this blames no generator"
TOPIC = "Do the images show what was asked for?"
ATTRIBUTES = ["semantic_attribute_auc", "semantic_attribute_probability"]


def semantic_sentences(quality: pd.DataFrame) -> list[Sentence]:
    """What a classifier trained on real images, and for phantoms the oracle, find in each run's images."""
    if quality.empty:
        return []
    rows = singles(quality[~quality["run"].isin(REFERENCES)])
    own = rows[rows["metric"] == "semantic_auc"]
    judged = [_judged(own[own["run"] == run], run, metric("semantic_auc")) for run in in_order(own["run"])]
    attributes = [_attributes(rows[rows["metric"] == name], metric(name)) for name in ATTRIBUTES]
    return [*judged, *filter(None, attributes), *_agreement(rows), *_oracle(singles(quality))]


def _attributes(rows: pd.DataFrame, words: Metric) -> Sentence | None:
    """Attributes in one sentence: each run's value over all beside the ceiling, and its lowest group."""
    parts, below = [], False
    for run in in_order(rows["run"]):
        part = rows[rows["run"] == run]
        whole, worst = one(part, attribute="*", group="*"), worst_group(part[is_group(part)], words)
        said = [_beside(whole, words)] if whole is not None and known(whole["estimate"]) else []
        if worst is not None:
            said.append(f"lowest for {worst['attribute']} {worst['group']}, {_beside(worst, words)}")
        parts += [f"{run}: {'; '.join(said)}"] if said else []
        below = below or any(row is not None and below_ceiling(row, words) for row in (whole, worst))
    text = f"Is the attribute asked for seen ({words.short})?"
    return Sentence(text, "caution" if below else "finding", TOPIC, tuple(parts)) if parts else None


def _judged(rows: pd.DataFrame, run: str, words: Metric) -> Sentence:
    """One run's AUC beside the ceiling; by attribute the lowest group, the gap and ES-AUC."""
    whole = one(rows, attribute="*", group="*")
    text = f"{run}, {words.short}: "
    text += _beside(whole, words) if whole is not None and known(whole["estimate"]) else "not evaluated over all"
    parts = [_attribute(rows[rows["attribute"] == name], name, words) for name in named_attributes(rows)]
    below = [row for row in rows.to_dict("records") if row["group"] not in {"gap", "es"} and below_ceiling(row, words)]
    return Sentence(f"{text}.", "caution" if below else "finding", TOPIC, tuple(parts))


def excused(row: Any) -> bool:
    """Whether the row's judge fails on reconstructions of real images, so that no generator can be blamed for it.

    A probability of a group counts where its own attribute is a failing one, everything else where any of its kind is.
    """
    note = str(row["note"] or "")
    if FAILS not in note:
        return False
    if row["metric"] != "semantic_attribute_probability" or row["attribute"] == "*":
        return True
    told = note.split(FAILS, 1)[1]
    return any(f"attr.{name} " in told for name in str(row["attribute"]).split(" & "))


def below_ceiling(row: Any, words: Metric) -> bool:
    """Whether a row shows the generator to be below the ceiling: never where its judge fails on reconstructions."""
    return not excused(row) and bool(against_real(row, words))


def _beside(row: Any, words: Metric) -> str:
    """``0.800 (0.770 to 0.830), real images reach 0.880: below the ceiling``."""
    value = with_interval(row["estimate"], row["ci_low"], row["ci_high"], words)
    if not known(row["floor"]):
        return f"{value}, no ceiling measured"
    if excused(row):
        return f"{value}, real images reach {number(row['floor'], words)}: {EXCUSE}"
    said = {True: ": below the ceiling", False: ": not shown to be below the ceiling", None: ""}
    return f"{value}, real images reach {number(row['floor'], words)}{said[against_real(row, words)]}"


def _attribute(rows: pd.DataFrame, attribute: str, words: Metric) -> str:
    worst, gap, scaled = worst_group(rows[is_group(rows)], words), one(rows, group="gap"), one(rows, group="es")
    said = [f"lowest for {worst['group']}, {_beside(worst, words)}"] if worst is not None else []
    said += [f"{gap_text(gap, words)}{corrected(gap)}"] if gap is not None else []
    if scaled is not None and known(scaled["estimate"]):
        value = with_interval(scaled["estimate"], scaled["ci_low"], scaled["ci_high"], words)
        chance = f", chance alone from {number(scaled['null_low'], words)}" if known(scaled["null_low"]) else ""
        said.append(f"ES-AUC {value}{chance}")
    return f"by {attribute}: {'; '.join(said) or 'not evaluated'}"


def _agreement(rows: pd.DataFrame) -> list[Sentence]:
    """How far the classifier and the phantom's oracle say the same."""
    words = metric("judge_agreement")
    whole = rows[(rows["metric"] == words.name) & (rows["attribute"] == "*") & rows["estimate"].notna()]
    said = tuple(
        f"{row['run']} {with_interval(row['estimate'], row['ci_low'], row['ci_high'], words)}"
        for row in whole.to_dict("records")
    )
    text = "How often the classifier and the phantom's oracle agree on an image:"
    return [Sentence(text, "finding", TOPIC, said)] if said else []


def _oracle(quality: pd.DataFrame) -> list[Sentence]:
    """What the phantom's oracle says about each run."""
    rows, words, parts = quality[quality["metric"] == "oracle_accuracy"], metric("oracle_accuracy"), []
    for run in in_order(rows["run"]):
        part = rows[rows["run"] == run]
        whole, worst = one(part, attribute="*", group="*"), worst_group(part[is_group(part)], words)
        if whole is None or not known(whole["estimate"]):
            continue
        text = f"{run} {with_interval(whole['estimate'], whole['ci_low'], whole['ci_high'], words)}"
        text += (
            f", lowest for {worst['attribute']} {worst['group']} ({number(worst['estimate'], words)})"
            if worst is not None
            else ""
        )
        parts.append(text)
    lead = "Share of images that show the diagnosis asked for, as the phantom's oracle measures it:"
    return [Sentence(lead, "finding", TOPIC, tuple(parts))] if parts else []
