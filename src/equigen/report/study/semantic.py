"""The section on conditioning: a classifier trained on real images, and for phantoms the oracle, as judges."""

from __future__ import annotations

from typing import Any

import pandas as pd

from equigen.quality import RECONSTRUCTION_FAILURE
from equigen.report.figures import REFERENCES
from equigen.report.findings import (
    attribute_names,
    correction_note,
    first_row,
    gap_text,
    is_group,
    without_intersections,
    worse_than_real,
    worst_group,
)
from equigen.report.frames import unique_values
from equigen.report.layout import Block, Section, Sentence
from equigen.report.metrics import Metric, lookup_metric, sort_metrics
from equigen.report.rounding import estimate_text, is_finite, listing, number
from equigen.report.study.details import family_block, metrics_table
from equigen.report.study.quality import family_rows, intersection_block, plot_block

JUDGE_NOTE = "the judge fails on reconstructions of real images, so this blames no generator"
TOPIC = "Do the images show what was asked for?"
ATTRIBUTE_METRICS = ["semantic_attribute_auc", "semantic_attribute_probability"]
PLOT_METRICS = ["semantic_auc", "semantic_attribute_auc", "semantic_attribute_probability", "oracle_accuracy"]
AGREEMENT_METRICS = ["semantic_auc", "oracle_accuracy", "judge_agreement"]
_CLASSIFIER = (
    "A classifier trained on real images judges whether a generated image shows what was asked for. Its score on "
    "held-out real images of the same group (the black tick) is the ceiling: more cannot be asked of generated ones. "
    "The ceiling is taken as known, though few real images of a small group make it uncertain."
)
_ORACLE = "The images are phantoms: an oracle measures on each what it shows and compares it with the request."


def semantic_section(quality: pd.DataFrame) -> Section | None:
    """AUC beside its ceiling, ES-AUC, the oracle and their agreement; None without a quality table."""
    if quality.empty:
        return None
    rows = family_rows(quality, ["semantic"])
    names, single = sort_metrics(unique_values(rows["metric"])), without_intersections(rows)
    intro = [_CLASSIFIER] if any(not _of_oracle(name) for name in names) else []
    intro += [_ORACLE] if any(map(_of_oracle, names)) else []
    blocks = [
        plot_block(part, lookup_metric(name), f"{lookup_metric(name).title}{_judge(encoder)}", f"s{place}-{name}")
        for name in [name for name in PLOT_METRICS if name in names] or names[:1]
        for place, encoder in enumerate(unique_values(single["encoder"]))
        if not (part := single[(single["metric"] == name) & (single["encoder"] == encoder)]).empty
    ]
    blocks += _judges_beside(single, names)
    if not single.empty:
        shorts = listing([lookup_metric(name).short for name in names])
        blocks.append(family_block(single, f"All numbers on what the images show: {shorts}", []))
    blocks += intersection_block(rows, names, ", what the images show")
    absent = "Whether the images show what was asked for was not evaluated."
    return Section("semantic", "Do the images show what was asked for?", " ".join(intro), blocks, absent)


def _of_oracle(name: str) -> bool:
    return name.startswith("oracle_")


def _judge(encoder: str) -> str:
    return f", judge {encoder}" if encoder and encoder != "oracle" else ""


def _judges_beside(rows: pd.DataFrame, names: list[str]) -> list[Block]:
    """The classifier, the oracle and how far they agree, group by group; only where both judged."""
    if not {"semantic_auc", "oracle_accuracy"} <= set(names) and "judge_agreement" not in names:
        return []
    shown = [name for name in AGREEMENT_METRICS if name in names]
    part = rows[rows["metric"].isin(shown)]
    tables = [metrics_table(part[part["run"] == run], shown, run) for run in unique_values(part["run"])]
    lead = "An AUC and a share are not the same scale: compare which groups are low, not the numbers."
    return [Block("The classifier and the oracle side by side", [lead], tables=tables)]


def semantic_sentences(quality: pd.DataFrame) -> list[Sentence]:
    """What a classifier trained on real images, and for phantoms the oracle, find in each run's images."""
    if quality.empty:
        return []
    rows = without_intersections(quality[~quality["run"].isin(REFERENCES)])
    own = rows[rows["metric"] == "semantic_auc"]
    judged = [_judged(own[own["run"] == run], run, lookup_metric("semantic_auc")) for run in unique_values(own["run"])]
    attributes = [_attributes(rows[rows["metric"] == name], lookup_metric(name)) for name in ATTRIBUTE_METRICS]
    return [*judged, *filter(None, attributes), *_agreement(rows), *_oracle(without_intersections(quality))]


def _attributes(rows: pd.DataFrame, words: Metric) -> Sentence | None:
    """Attributes in one sentence: each run's value over all beside the ceiling, and its lowest group."""
    parts, below = [], False
    for run in unique_values(rows["run"]):
        part = rows[rows["run"] == run]
        whole, worst = first_row(part, attribute="*", group="*"), worst_group(part[is_group(part)], words)
        said = [_beside(whole, words)] if whole is not None and is_finite(whole["estimate"]) else []
        if worst is not None:
            said.append(f"lowest for {worst['attribute']} {worst['group']}, {_beside(worst, words)}")
        parts += [f"{run}: {'; '.join(said)}"] if said else []
        below = below or any(row is not None and is_below_ceiling(row, words) for row in (whole, worst))
    text = f"Is the attribute asked for seen ({words.short})?"
    return Sentence(text, "caution" if below else "finding", TOPIC, tuple(parts)) if parts else None


def _judged(rows: pd.DataFrame, run: str, words: Metric) -> Sentence:
    """One run's AUC beside the ceiling; by attribute the lowest group, the gap and ES-AUC."""
    whole = first_row(rows, attribute="*", group="*")
    text = f"{run}, {words.short}: "
    text += _beside(whole, words) if whole is not None and is_finite(whole["estimate"]) else "not evaluated over all"
    parts = [_attribute(rows[rows["attribute"] == name], name, words) for name in attribute_names(rows)]
    levels = rows[~rows["group"].isin(["gap", "es"])].to_dict("records")
    below = any(is_below_ceiling(row, words) for row in levels)
    return Sentence(f"{text}.", "caution" if below else "finding", TOPIC, tuple(parts))


def is_judge_unfit(row: Any) -> bool:
    """Whether the row's judge fails on reconstructions of real images, so that no generator can be blamed for it.

    A probability of a group counts where its own attribute is a failing one, everything else where any of its kind is.
    """
    note = str(row["note"] or "")
    if RECONSTRUCTION_FAILURE not in note:
        return False
    if row["metric"] != "semantic_attribute_probability" or row["attribute"] == "*":
        return True
    told = note.split(RECONSTRUCTION_FAILURE, 1)[1]
    return any(f"attr.{name} " in told for name in str(row["attribute"]).split(" & "))


def is_below_ceiling(row: Any, words: Metric) -> bool:
    """Whether a row shows the generator to be below the ceiling: never where its judge fails on reconstructions."""
    return not is_judge_unfit(row) and bool(worse_than_real(row, words))


def _beside(row: Any, words: Metric) -> str:
    """``0.800 (0.770 to 0.830), real images reach 0.880: below the ceiling``."""
    value = estimate_text(row["estimate"], row["ci_low"], row["ci_high"], words)
    if not is_finite(row["floor"]):
        return f"{value}, no ceiling measured"
    if is_judge_unfit(row):
        return f"{value}, real images reach {number(row['floor'], words)}: {JUDGE_NOTE}"
    said = {True: ": below the ceiling", False: ": not shown to be below the ceiling", None: ""}
    return f"{value}, real images reach {number(row['floor'], words)}{said[worse_than_real(row, words)]}"


def _attribute(rows: pd.DataFrame, attribute: str, words: Metric) -> str:
    worst = worst_group(rows[is_group(rows)], words)
    gap, scaled = first_row(rows, group="gap"), first_row(rows, group="es")
    said = [f"lowest for {worst['group']}, {_beside(worst, words)}"] if worst is not None else []
    said += [f"{gap_text(gap, words)}{correction_note(gap)}"] if gap is not None else []
    if scaled is not None and is_finite(scaled["estimate"]):
        value = estimate_text(scaled["estimate"], scaled["ci_low"], scaled["ci_high"], words)
        chance = f", chance alone from {number(scaled['null_low'], words)}" if is_finite(scaled["null_low"]) else ""
        said.append(f"ES-AUC {value}{chance}")
    return f"by {attribute}: {'; '.join(said) or 'not evaluated'}"


def _agreement(rows: pd.DataFrame) -> list[Sentence]:
    """How far the classifier and the phantom's oracle say the same."""
    words = lookup_metric("judge_agreement")
    whole = rows[(rows["metric"] == words.name) & (rows["attribute"] == "*") & rows["estimate"].notna()]
    said = tuple(
        f"{row['run']} {estimate_text(row['estimate'], row['ci_low'], row['ci_high'], words)}"
        for row in whole.to_dict("records")
    )
    text = "How often the classifier and the phantom's oracle agree on an image:"
    return [Sentence(text, "finding", TOPIC, said)] if said else []


def _oracle(quality: pd.DataFrame) -> list[Sentence]:
    """What the phantom's oracle says about each run."""
    rows, words, parts = quality[quality["metric"] == "oracle_accuracy"], lookup_metric("oracle_accuracy"), []
    for run in unique_values(rows["run"]):
        part = rows[rows["run"] == run]
        whole, worst = first_row(part, attribute="*", group="*"), worst_group(part[is_group(part)], words)
        if whole is None or not is_finite(whole["estimate"]):
            continue
        text = f"{run} {estimate_text(whole['estimate'], whole['ci_low'], whole['ci_high'], words)}"
        text += (
            f", lowest for {worst['attribute']} {worst['group']} ({number(worst['estimate'], words)})"
            if worst is not None
            else ""
        )
        parts.append(text)
    lead = "Share of images that show the diagnosis asked for, as the phantom's oracle measures it:"
    return [Sentence(lead, "finding", TOPIC, tuple(parts))] if parts else []
