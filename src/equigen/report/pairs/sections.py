"""The sections of the page of counterfactual pairs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.report.figures import run_styles
from equigen.report.forest import Mark, alt_text, forest_plot
from equigen.report.frames import unique_values
from equigen.report.images import pair_table
from equigen.report.layout import Block, Cell, Picture, Row, Section, Table
from equigen.report.metrics import ABSENT, Metric, count, interval, is_finite, lookup_metric, number
from equigen.report.pairs.findings import field_name, merged_prompt, value_text

DISTANCES = ["pixel_difference", "feature_distance"]
RATIO = Metric("ratio", "share of another seed's", "Share of what another seed changes", "", "", "", decimals=3)
ALL = "all levels"


def pairs_section(images: NDArray[np.uint8], image_table: pd.DataFrame, levels: list[str], attribute: str) -> Section:
    """The images, a pair in each row; ``image_table`` has one row for each of them, in the same order."""
    size = len(levels)
    pairs = [image_table.iloc[start : start + size] for start in range(0, len(image_table), size)]
    pixels, features = (lookup_metric(name) for name in DISTANCES)
    columns = sorted(
        (str(name) for name in image_table.columns if str(name).startswith("read.")),
        key=lambda name: name != f"read.attr.{attribute}",
    )  # the changed attribute first
    names, captions = [], []
    for pair in pairs:
        row = pair.iloc[0]
        prompt = merged_prompt([None if pd.isna(prompt) else str(prompt) for prompt in pair["prompt"]])
        names.append(
            f"Pair {row['pair']}: {prompt + '; ' if prompt else ''}pixels differ by "
            f"{number(row[pixels.name], pixels)}, features by {number(row[features.name], features)}"
        )
        texts: list[list[str]] = []
        for image in pair.to_dict("records"):
            texts.append([])
            for column in columns:
                field, reading = column.removeprefix("read."), str(image[column])
                if field == f"attr.{attribute}":
                    remark = ", not as asked" if reading != str(image["level"]) else ""
                else:
                    remark = ", differs" if pair[column].nunique() > 1 else ""
                texts[-1].append(f"{field_name(field)}: reads {reading} ({float(image[f'p.{field}']):.2f}){remark}")
        captions.append(["; ".join(readings) for readings in texts])
    text = f"The first {len(pairs)} pairs of the plan, in its order, not chosen."
    blocks = [Block("", images=[pair_table(images, levels, names, captions, text)])] if pairs else []
    intro = (
        f"Each row is one pair: the same noise and guidance, and everything asked for the same but {attribute}. Where "
        "only the attribute changes, the images of a row are alike in all that does not depend on it."
    )
    return Section("pairs", "Pairs side by side", intro, blocks, "No pair was given.")


def changes_section(metrics: pd.DataFrame) -> Section:
    """Distances between the images of a pair, beside distances between images of other seeds."""
    rows = metrics[metrics["metric"].isin(DISTANCES)]
    intro = (
        "How far two images of a pair are from each other, beside images of other pairs with the same two levels, "
        "which differ in their noise too. A share of 0: the attribute changes nothing; of 1: it changes everything, as "
        "another seed does."
    )
    if not rows["estimate"].notna().any():
        return Section("changes", "What the attribute changes", intro, [], "No distance was measured.")
    marks = [Mark(_levels_name(row), lookup_metric(str(row["metric"])).short, row["ratio"], row["ratio_low"],
                  row["ratio_high"], remark="no share") for row in rows.to_dict("records")]  # fmt: skip
    definitions = [lookup_metric(name) for name in unique_values(rows["metric"])]
    names = [metric.short for metric in definitions]
    svg = forest_plot(marks, [], axis="share of what another seed changes", scale=1.0, slug="changes", series=names,
                      alt=alt_text(marks, RATIO, "of each two levels"), styles=run_styles(names))  # fmt: skip
    head = ["levels", "pairs", "within pairs", "between seeds", "share"]
    tables = []
    for metric in definitions:
        records = rows[rows["metric"] == metric.name].to_dict("records")
        tables.append(Table(metric.title, head, [Row(_levels_name(row), _pair_cells(row, metric)) for row in records]))
    block = Block("", pictures=[Picture(svg, "Share of what another seed changes")], tables=tables)
    return Section("changes", "What the attribute changes", intro, [block], "")


def _levels_name(row: Mapping[Hashable, Any]) -> str:
    """The two levels that a row compares."""
    return "any two levels" if row["group"] == "*" else str(row["group"])


def readings_section(metrics: pd.DataFrame) -> Section:
    """The share of images in which the classifier reads the requested level, by field and level."""
    subset = metrics[metrics["metric"] == "read_as_asked"]
    intro = (
        "A classifier reads each image. Beside it stands how often it reads real held-out images rightly: more cannot "
        "be asked of generated ones. The same field is shown for each level of the changed attribute."
    )
    metric, series, blocks = lookup_metric("read_as_asked"), ["generated", "real"], []
    for index, field in enumerate(unique_values(subset["field"])):
        name, rows, marks = field_name(field), [], []
        for row in subset[subset["field"] == field].to_dict("records"):
            level = ALL if row["group"] == "*" else str(row["group"])
            rows.append(Row(level, _pair_cells(row, metric)[:3]))
            marks.append(Mark(level, "generated", row["estimate"], row["ci_low"], row["ci_high"], remark="too small"))
            if is_finite(row["reference"]):
                marks.append(Mark(level, "real", row["reference"], row["reference_low"], row["reference_high"]))
        table = Table(f"Share read as asked: {name}", ["level", "images", "generated", "real held-out images"], rows)
        pictures = []
        if any(is_finite(mark.estimate) for mark in marks):
            alt = alt_text(marks, metric, f"of {name} by level")
            svg = forest_plot(marks, [], axis="share read as asked, higher is better", scale=1.0, alt=alt,
                              slug=f"reading-{index}", series=series, styles=run_styles(series))  # fmt: skip
            pictures.append(Picture(svg, f"{name}, by level of the changed attribute"))
        blocks.append(Block(name, pictures=pictures, tables=[table]))
    return Section("readings", "Is the requested level read?", intro, blocks, "No classifier read the images.")


def flips_section(metrics: pd.DataFrame) -> Section:
    """The share of pairs in which the reading of an unchanged field differs."""
    subset, metric = metrics[metrics["metric"] == "flip"], lookup_metric("flip")
    intro = (
        "Fields that all images of a pair were asked to share. A reading that differs within a pair is a flip: either "
        "the generator changed it together with the attribute, or the classifier erred. Between images of other seeds, "
        "asked for the same and with the attribute unchanged, readings differ too; that share is the measure."
    )
    rows: list[Row] = []
    for field in unique_values(subset["field"]):
        for row in subset[subset["field"] == field].to_dict("records"):
            name = field_name(field) if row["group"] == "*" else f"{field_name(field)}, {row['group']} against the rest"
            rows.append(Row(name, _pair_cells(row, metric)))
    head = ["field", "pairs", "flips within pairs", "between seeds", "share"]
    blocks = [Block("", tables=[Table(metric.title, head, rows)])] if rows else []
    absent = "No classifier read a field that was not changed."
    return Section("flips", "Does anything else change?", intro, blocks, absent)


def terms_section(metrics: pd.DataFrame) -> Section:
    """Definitions of the metrics, limits of the numbers, and the notes of the table."""
    definitions = [lookup_metric(name) for name in unique_values(metrics["metric"])]
    limits = [
        "Intervals are 95 %: of shares over pairs, else from resampling pairs; they do not hold the spread between "
        "trained generators.",
        "The same noise need not mean the same patient: a generator has no notion of one. Pairs show what the model "
        "ties to an attribute, not what the attribute causes.",
        "A classifier that has learned a shortcut reads it in generated images too. What it reads rightly in real "
        "images, level by level, is its own bound.",
    ]
    blocks = [Block("What a number cannot support", limits),
              Block("Metrics on this page", terms=[(metric.title, metric.meaning, metric.source)
                                                   for metric in definitions])]  # fmt: skip
    notes = [note for note in unique_values(metrics["note"]) if note]
    if notes:
        blocks.append(Block("Notes of the table", notes))
    return Section("reading", "How to read this, and its limits", "", blocks, "")


def _pair_cells(row: Mapping[Hashable, Any], metric: Metric) -> list[Cell]:
    """Number of pairs or images, estimate or the reason for its absence, reference, and share of the reference."""
    reference, share = Cell(ABSENT, mark="missing"), Cell(ABSENT)
    if is_finite(row["estimate"]):
        estimate = Cell(number(row["estimate"], metric), interval(row["ci_low"], row["ci_high"], metric))
    else:
        note = str(row["note"])
        estimate = Cell(ABSENT, note, "small" if "small" in note else "missing")
    if is_finite(row["reference"]):
        span = interval(row["reference_low"], row["reference_high"], metric)
        reference = Cell(number(row["reference"], metric), span)
    if is_finite(row["ratio"]):
        share = Cell(value_text(row, "ratio", RATIO))
    return [Cell(count(row["n"])), estimate, reference, share]
