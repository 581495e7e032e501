"""Conditioning: a classifier of real images, and for phantoms the oracle, judge what generated images show."""

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
from equigen.report.metrics import Metric, estimate_text, is_finite, listing, lookup_metric, number, sort_metrics
from equigen.report.study.details import family_block, metrics_table
from equigen.report.study.quality import family_rows, intersection_block, plot_block

TOPIC = "Do the images show what was asked for?"
JUDGE_NOTE = "the judge fails on reconstructions of real images, so it cannot be attributed to the generator"
ATTRIBUTE_METRICS = ["semantic_attribute_auc", "semantic_attribute_probability"]
PLOT_METRICS = ["semantic_auc", "semantic_attribute_auc", "semantic_attribute_probability", "oracle_accuracy"]
AGREEMENT_METRICS = ["semantic_auc", "oracle_accuracy", "judge_agreement"]
_CLASSIFIER_NOTE = (
    "A classifier trained on real images judges whether a generated image shows what was asked for. Its score on "
    "held-out real images of the same group (the black tick) is the ceiling: more cannot be asked of generated ones. "
    "The ceiling is taken as known, though few real images of a small group make it uncertain."
)
_ORACLE_NOTE = "The images are phantoms: an oracle measures on each what it shows and compares it with the request."


def semantic_section(quality: pd.DataFrame) -> Section | None:
    """AUC beside its ceiling, ES-AUC, the oracle and their agreement; None without a quality table."""
    if quality.empty:
        return None
    rows = family_rows(quality, ["semantic"])
    names, single = sort_metrics(unique_values(rows["metric"])), without_intersections(rows)
    oracle = [name for name in names if name.startswith("oracle_")]
    intro = [_CLASSIFIER_NOTE] * (len(oracle) < len(names)) + [_ORACLE_NOTE] * bool(oracle)
    blocks = []
    for metric in map(lookup_metric, [name for name in PLOT_METRICS if name in names] or names[:1]):
        for index, encoder in enumerate(unique_values(single["encoder"])):
            metric_rows = single[(single["metric"] == metric.name) & (single["encoder"] == encoder)]
            judge = f", judge {encoder}" if encoder and encoder != "oracle" else ""
            if not metric_rows.empty:
                blocks.append(plot_block(metric_rows, metric, f"{metric.title}{judge}", f"s{index}-{metric.name}"))
    if {"semantic_auc", "oracle_accuracy"} <= set(names) or "judge_agreement" in names:
        compared = [name for name in AGREEMENT_METRICS if name in names]
        judges = single[single["metric"].isin(compared)]
        tables = [metrics_table(judges[judges["run"] == run], compared, run) for run in unique_values(judges["run"])]
        lead = "An AUC and a share are not the same scale: compare which groups are low, not the numbers."
        blocks.append(Block("The classifier and the oracle side by side", [lead], tables=tables))
    if not single.empty:
        shorts = listing([lookup_metric(name).short for name in names])
        blocks.append(family_block(single, f"All numbers on what the images show: {shorts}", []))
    blocks += intersection_block(rows, names, ", what the images show")
    empty_text = "Whether the images show what was asked for was not evaluated."
    return Section("semantic", TOPIC, " ".join(intro), blocks, empty_text)


def semantic_sentences(quality: pd.DataFrame) -> list[Sentence]:
    """Each run by the classifier trained on real images: diagnosis and attributes; for phantoms also by the oracle."""
    if quality.empty:
        return []
    rows = without_intersections(quality[~quality["run"].isin(REFERENCES)])
    diagnosis = rows[rows["metric"] == "semantic_auc"]
    result = [_run_sentence(diagnosis[diagnosis["run"] == run], run) for run in unique_values(diagnosis["run"])]
    for name in ATTRIBUTE_METRICS:
        result += _attributes_sentence(rows[rows["metric"] == name], lookup_metric(name))
    agreement = lookup_metric("judge_agreement")
    overall = rows[(rows["metric"] == agreement.name) & (rows["attribute"] == "*") & rows["estimate"].notna()]
    parts = tuple(
        f"{row['run']} {estimate_text(row['estimate'], row['ci_low'], row['ci_high'], agreement)}"
        for row in overall.to_dict("records")
    )
    lead = "How often the classifier and the phantom's oracle agree on an image:"
    result += [Sentence(lead, "finding", TOPIC, parts)] if parts else []
    return result + _oracle_sentence(without_intersections(quality))


def _attributes_sentence(rows: pd.DataFrame, metric: Metric) -> list[Sentence]:
    """All attributes in one sentence: each run's value over all beside the ceiling, and its lowest group."""
    parts, low = [], False
    for run in unique_values(rows["run"]):
        run_rows = rows[rows["run"] == run]
        overall = first_row(run_rows, attribute="*", group="*")
        worst = worst_group(run_rows[is_group(run_rows)], metric)
        clauses = []
        if overall is not None and is_finite(overall["estimate"]):
            clauses.append(_ceiling_text(overall, metric))
        if worst is not None:
            clauses.append(f"lowest for {worst['attribute']} {worst['group']}, {_ceiling_text(worst, metric)}")
        parts += [f"{run}: {'; '.join(clauses)}"] if clauses else []
        low = low or any(row is not None and is_below_ceiling(row, metric) for row in (overall, worst))
    text = f"Is the attribute asked for seen ({metric.short})?"
    return [Sentence(text, "caution" if low else "finding", TOPIC, tuple(parts))] if parts else []


def _run_sentence(rows: pd.DataFrame, run: str) -> Sentence:
    """One run's diagnosis AUC beside the ceiling; by attribute the lowest group, the gap and ES-AUC."""
    metric, overall = lookup_metric("semantic_auc"), first_row(rows, attribute="*", group="*")
    text = f"{run}, {metric.short}: not evaluated for the whole set."
    if overall is not None and is_finite(overall["estimate"]):
        text = f"{run}, {metric.short}: {_ceiling_text(overall, metric)}."
    parts = []
    for attribute in attribute_names(rows):
        members = rows[rows["attribute"] == attribute]
        worst = worst_group(members[is_group(members)], metric)
        gap, scaled = first_row(members, group="gap"), first_row(members, group="es")
        clauses = [f"lowest for {worst['group']}, {_ceiling_text(worst, metric)}"] if worst is not None else []
        clauses += [f"{gap_text(gap, metric)}{correction_note(gap)}"] if gap is not None else []
        if scaled is not None and is_finite(scaled["estimate"]):
            value = estimate_text(scaled["estimate"], scaled["ci_low"], scaled["ci_high"], metric)
            if is_finite(scaled["null_low"]):
                value += f", chance alone from {number(scaled['null_low'], metric)}"
            clauses.append(f"ES-AUC {value}")
        parts.append(f"by {attribute}: {'; '.join(clauses) or 'not evaluated'}")
    levels = rows[~rows["group"].isin(["gap", "es"])].to_dict("records")
    low = any(is_below_ceiling(row, metric) for row in levels)
    return Sentence(text, "caution" if low else "finding", TOPIC, tuple(parts))


def is_judge_unfit(row: Any) -> bool:
    """Whether the row's judge fails on reconstructions of real images, so that the result says nothing of a generator.

    A probability of a group counts where its own attribute is a failing one, everything else where any of its kind is.
    """
    note = str(row["note"] or "")
    if RECONSTRUCTION_FAILURE not in note:
        return False
    if row["metric"] != "semantic_attribute_probability" or row["attribute"] == "*":
        return True
    failures = note.split(RECONSTRUCTION_FAILURE, 1)[1]
    return any(f"attr.{name} " in failures for name in str(row["attribute"]).split(" & "))


def is_below_ceiling(row: Any, metric: Metric) -> bool:
    """Whether a row shows the generator to be below the ceiling: never where its judge fails on reconstructions."""
    return not is_judge_unfit(row) and bool(worse_than_real(row, metric))


def _ceiling_text(row: Any, metric: Metric) -> str:
    """``0.800 (0.770 to 0.830), real images reach 0.880: below the ceiling``."""
    value = estimate_text(row["estimate"], row["ci_low"], row["ci_high"], metric)
    if not is_finite(row["floor"]):
        return f"{value}, no ceiling measured"
    if is_judge_unfit(row):
        return f"{value}, real images reach {number(row['floor'], metric)}: {JUDGE_NOTE}"
    readings = {True: ": below the ceiling", False: ": not shown to be below the ceiling", None: ""}
    return f"{value}, real images reach {number(row['floor'], metric)}{readings[worse_than_real(row, metric)]}"


def _oracle_sentence(quality: pd.DataFrame) -> list[Sentence]:
    """The share of images that show the diagnosis asked for by the oracle, run by run; empty without one."""
    metric, parts = lookup_metric("oracle_accuracy"), []
    rows = quality[quality["metric"] == metric.name]
    for run in unique_values(rows["run"]):
        run_rows = rows[rows["run"] == run]
        overall = first_row(run_rows, attribute="*", group="*")
        if overall is None or not is_finite(overall["estimate"]):
            continue
        text = f"{run} {estimate_text(overall['estimate'], overall['ci_low'], overall['ci_high'], metric)}"
        worst = worst_group(run_rows[is_group(run_rows)], metric)
        if worst is not None:
            text += f", lowest for {worst['attribute']} {worst['group']} ({number(worst['estimate'], metric)})"
        parts.append(text)
    lead = "Share of images that show the diagnosis asked for, as the phantom's oracle measures it:"
    return [Sentence(lead, "finding", TOPIC, tuple(parts))] if parts else []
