"""The sections of the page of counterfactual pairs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.report.figures import run_styles
from equigen.report.forest import Mark, forest_plot
from equigen.report.forest_figures import alt_text
from equigen.report.frames import unique_values
from equigen.report.images import pair_table
from equigen.report.layout import Block, Cell, Picture, Row, Section, Table
from equigen.report.metrics import Metric, lookup_metric
from equigen.report.pairs.findings import field_name, merged_prompt, value_text
from equigen.report.rounding import ABSENT, count, interval, is_finite, number

DISTANCES = ["pixel_difference", "feature_distance"]
RATIO = Metric("ratio", "share of another seed's", "Share of what another seed changes", "", "", "", decimals=3)
ALL = "all levels"


def pairs_section(images: NDArray[np.uint8], each: pd.DataFrame, levels: list[str], attribute: str) -> Section:
    """The images, a pair in each row."""
    size = len(levels)
    parts = [each.iloc[start : start + size] for start in range(0, len(each), size)]
    names = [_pair_name(part) for part in parts]
    captions = [[_caption(row, part, attribute) for row in part.to_dict("records")] for part in parts]
    text = f"The first {len(parts)} pairs of the plan, in its order, not chosen."
    blocks = [Block("", images=[pair_table(images, levels, names, captions, text)])] if parts else []
    intro = (
        f"Each row is one pair: the same noise and guidance, and everything asked for the same but {attribute}. Where "
        "only the attribute changes, the images of a row are alike in all that does not depend on it."
    )
    return Section("pairs", "Pairs side by side", intro, blocks, "No pair was given.")


def _pair_name(part: pd.DataFrame) -> str:
    """Number, prompt with the changed words in brackets, and how far the images differ."""
    row = part.iloc[0]
    words = [lookup_metric(name) for name in DISTANCES]
    far = f"pixels differ by {number(row[DISTANCES[0]], words[0])}, features by {number(row[DISTANCES[1]], words[1])}"
    prompt = merged_prompt([None if pd.isna(prompt) else str(prompt) for prompt in part["prompt"]])
    return f"Pair {row['pair']}: {prompt + '; ' if prompt else ''}{far}"


def _caption(row: Mapping[Hashable, Any], part: pd.DataFrame, attribute: str) -> str:
    """What is read in one image, and where that is not as asked or differs within the pair."""
    said = []
    columns = [str(name) for name in part.columns if str(name).startswith("read.")]
    for column in sorted(columns, key=lambda name: name != f"read.attr.{attribute}"):  # the changed one first
        field, shown = column.removeprefix("read."), str(row[column])
        changed = field == f"attr.{attribute}"
        odd = shown != str(row["level"]) if changed else part[column].nunique() > 1
        remark = (", not as asked" if changed else ", differs") if odd else ""
        said.append(f"{field_name(field)}: reads {shown} ({float(row[f'p.{field}']):.2f}){remark}")
    return "; ".join(said)


def changes_section(measured: pd.DataFrame) -> Section:
    """How far the images of a pair are from each other, beside images of other seeds."""
    rows = measured[measured["metric"].isin(DISTANCES)]
    intro = (
        "How far two images of a pair are from each other, beside images of other pairs with the same two levels, "
        "which differ in their noise too. A share of 0: the attribute changes nothing; of 1: it changes everything, as "
        "another seed does."
    )
    if not rows["estimate"].notna().any():
        return Section("changes", "What the attribute changes", intro, [], "No distance was measured.")
    marks = [Mark(_two(row), lookup_metric(str(row["metric"])).short, row["ratio"], row["ratio_low"], row["ratio_high"],
                  remark="no share") for row in rows.to_dict("records")]  # fmt: skip
    names = [lookup_metric(name).short for name in unique_values(rows["metric"])]
    svg = forest_plot(marks, [], axis="share of what another seed changes", scale=1.0, slug="changes", series=names,
                 alt=alt_text(marks, RATIO, "of each two levels"), styles=run_styles(names))  # fmt: skip
    names = unique_values(rows["metric"])
    tables = [_distance_table(rows[rows["metric"] == name], lookup_metric(name)) for name in names]
    block = Block("", pictures=[Picture(svg, "Share of what another seed changes")], tables=tables)
    return Section("changes", "What the attribute changes", intro, [block], "")


def _two(row: Mapping[Hashable, Any]) -> str:
    return "any two levels" if row["group"] == "*" else str(row["group"])


def _distance_table(rows: pd.DataFrame, words: Metric) -> Table:
    """Within pairs, between seeds, and the share."""
    head = ["levels", "pairs", "within pairs", "between seeds", "share"]
    made = []
    for row in rows.to_dict("records"):
        made.append(Row(_two(row), [Cell(count(row["n"])), _cell(row, words), _reference(row, words), _share(row)]))
    return Table(words.title, head, made)


def readings_section(measured: pd.DataFrame) -> Section:
    """How often what was asked for is read, field by field and level by level."""
    rows = measured[measured["metric"] == "read_as_asked"]
    intro = (
        "A classifier reads each image. Beside it stands how often it reads real held-out images rightly: more cannot "
        "be asked of generated ones. The same field is shown for each level of the changed attribute."
    )
    blocks = [_reading_block(rows[rows["field"] == field], field, place)
              for place, field in enumerate(unique_values(rows["field"]))]  # fmt: skip
    return Section("readings", "Is what was asked for read?", intro, blocks, "No classifier read the images.")


def _reading_block(rows: pd.DataFrame, field: str, place: int) -> Block:
    words, own = lookup_metric("read_as_asked"), field_name(field)
    levels = [
        Row(ALL if row["group"] == "*" else str(row["group"]),
            [Cell(count(row["n"])), _cell(row, words), _reference(row, words)])
        for row in rows.to_dict("records")
    ]  # fmt: skip
    table = Table(f"Share read as asked: {own}", ["level", "images", "generated", "real held-out images"], levels)
    marks = []
    for row in rows.to_dict("records"):
        name = ALL if row["group"] == "*" else str(row["group"])
        marks.append(Mark(name, "generated", row["estimate"], row["ci_low"], row["ci_high"], remark="too small"))
        if is_finite(row["reference"]):
            marks.append(Mark(name, "real", row["reference"], row["reference_low"], row["reference_high"]))
    if not any(is_finite(mark.estimate) for mark in marks):
        return Block(own, tables=[table])
    names = ["generated", "real"]
    svg = forest_plot(marks, [], axis="share read as asked, higher is better", scale=1.0, slug=f"reading-{place}",
                 series=names, alt=alt_text(marks, words, f"of {own} by level"), styles=run_styles(names))  # fmt: skip
    return Block(own, pictures=[Picture(svg, f"{own}, by level of the changed attribute")], tables=[table])


def flips_section(measured: pd.DataFrame) -> Section:
    """How often a field that was not changed is read otherwise within a pair."""
    rows, words = measured[measured["metric"] == "flip"], lookup_metric("flip")
    intro = (
        "Fields that all images of a pair were asked to share. A reading that differs within a pair is a flip: either "
        "the generator changed it together with the attribute, or the classifier erred. Between images of other seeds, "
        "asked for the same and with the attribute unchanged, readings differ too; that share is the measure."
    )
    made: list[Row] = []
    for field in unique_values(rows["field"]):
        for row in rows[rows["field"] == field].to_dict("records"):
            name = field_name(field) if row["group"] == "*" else f"{field_name(field)}, {row['group']} against the rest"
            cells = [Cell(count(row["n"])), _cell(row, words), _reference(row, words), _share(row)]
            made.append(Row(name, cells))
    head = ["field", "pairs", "flips within pairs", "between seeds", "share"]
    blocks = [Block("", tables=[Table(words.title, head, made)])] if made else []
    absent = "No classifier read a field that was not changed."
    return Section("flips", "Does anything else change?", intro, blocks, absent)


def terms_section(measured: pd.DataFrame) -> Section:
    """What the numbers mean, what they cannot say, and the notes of the table."""
    used = [lookup_metric(name) for name in unique_values(measured["metric"])]
    limits = [
        "Intervals are 95 %: of shares over pairs, else from resampling pairs; they do not hold the spread between "
        "trained generators.",
        "The same noise need not mean the same patient: a generator has no notion of one. Pairs show what the model "
        "ties to an attribute, not what the attribute causes.",
        "A classifier that has learned a shortcut reads it in generated images too. What it reads rightly in real "
        "images, level by level, is its own bound.",
    ]
    blocks = [Block("What a number cannot support", limits),
              Block("Metrics on this page", terms=[(own.title, own.meaning, own.source) for own in used])]  # fmt: skip
    return Section("reading", "How to read this, and its limits", "", [*blocks, *_notes(measured)], "")


def _notes(rows: pd.DataFrame) -> list[Block]:
    found = [note for note in unique_values(rows["note"]) if note]
    return [Block("Notes of the table", found)] if found else []


def _cell(row: Mapping[Hashable, Any], words: Metric) -> Cell:
    """The value with its interval, or why there is none."""
    if not is_finite(row["estimate"]):
        return Cell(ABSENT, str(row["note"]), "small" if "small" in str(row["note"]) else "missing")
    return Cell(number(row["estimate"], words), interval(row["ci_low"], row["ci_high"], words))


def _reference(row: Mapping[Hashable, Any], words: Metric) -> Cell:
    if not is_finite(row["reference"]):
        return Cell(ABSENT, mark="missing")
    return Cell(number(row["reference"], words), interval(row["reference_low"], row["reference_high"], words))


def _share(row: Mapping[Hashable, Any]) -> Cell:
    return Cell(value_text(row, "ratio", RATIO) if is_finite(row["ratio"]) else ABSENT)
