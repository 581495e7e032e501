"""The section on memorisation: near copies, distances and authenticity per group, and the closest pairs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from equigen.report.findings import singles
from equigen.report.frames import in_order
from equigen.report.images import ClosePairs, pair_strip
from equigen.report.layout import Block, Cell, Row, Section, Table
from equigen.report.metrics import metric, ordered
from equigen.report.rounding import ABSENT, count, known, listing, number
from equigen.report.study.details import family_block
from equigen.report.study.memorisation_findings import JUDGED, share
from equigen.report.study.quality import figure_block, intersection_block, of_families

_INTRO = (
    "Does a generator repeat its training images, and some groups' more than others'? Each generated image is "
    "compared with the training images in an encoder's features and, for near copies, as aligned thumbnails; real "
    "images that the generator never saw (the black tick) show how close new images come without any copying. "
    "Closeness is a hint, to be looked at: it is no proof of copying, and its absence is no proof of privacy."
)


def memorisation_section(
    quality: pd.DataFrame, copies: list[ClosePairs], table: pd.DataFrame, power: pd.DataFrame | None = None
) -> Section | None:
    """Forest plots and tables of the memorisation metrics, then the closest pairs; None without a quality table.

    ``power``: the copy check's power, as ``power_frame`` completes it.
    """
    rows = of_families(quality, ["memorisation"])
    if quality.empty and not copies and table.empty:
        return None
    blocks = [
        block
        for place, encoder in enumerate(in_order(rows["encoder"]))
        for block in _encoder_blocks(rows[rows["encoder"] == encoder], encoder, place)
    ]
    blocks += _power_block(power) + _pair_blocks(copies) + _copies_tables(table)
    absent = "Memorisation was not evaluated: nothing here says whether training images are repeated."
    return Section("memorisation", "Memorisation", _INTRO, blocks, absent)


def _encoder_blocks(rows: pd.DataFrame, encoder: str, place: int) -> list[Block]:
    by, single, names = f", encoder {encoder}" if encoder else "", singles(rows), ordered(in_order(rows["metric"]))
    blocks = [
        figure_block(part, metric(name), f"{metric(name).title}{by}", f"m{place}-{name}")
        for name in JUDGED
        if not (part := single[single["metric"] == name]).empty
    ]
    shorts = listing([metric(name).short for name in names])
    if not single.empty:
        blocks.append(family_block(single, f"All numbers on memorisation: {shorts}{by}", []))
    return blocks + intersection_block(rows, names, f", memorisation{by}")


def _power_block(power: pd.DataFrame | None) -> list[Block]:
    """The share of planted copies found, a row for each kind of change and a column for each group."""
    if power is None or power.empty:
        return []
    groups = list(dict.fromkeys(zip(power["attribute"], power["group"], strict=True)))
    head = ["change", *("all" if attribute == "*" else f"{attribute} {group}" for attribute, group in groups)]
    rows = []
    for change in in_order(power["change"]):
        own = {(row["attribute"], row["group"]): row for row in power[power["change"] == change].to_dict("records")}
        rows.append(Row(change, [_power_cell(own.get(group)) for group in groups]))
    alarms = [Cell(share(own["false_alarm"])) for group in groups
              for own in [power[(power["attribute"] == group[0]) & (power["group"] == group[1])].iloc[0]]]
    rows.append(Row("held-out images, not changed (false alarms)", alarms, "derived"))
    lead = (
        "To test the copy check, held-out images were put among the training images, and changed copies of them were "
        "searched for. The table gives the share of copies that the comparison of thumbnails found, with 95 % "
        "intervals; a copy counts as found when it is matched to an image of the right patient, within limits set by "
        "other patients. The last row gives the share of unchanged held-out images that the check wrongly calls near "
        "copies, by features or thumbnails."
    )
    notes = [f"{row['change']}: {row['note']}." for row in power.to_dict("records")
             if row["note"] and row["attribute"] == "*"]
    return [Block("What the copy check would have found", [lead, *notes],
                  tables=[Table("Share of planted copies found", head, rows)])]


def _power_cell(row: Mapping[Hashable, Any] | None) -> Cell:
    if row is None or not known(row["share"]):
        return Cell(ABSENT, mark="missing")
    return Cell(share(row["share"]), f"{share(row['ci_low'])} to {share(row['ci_high'])}, n {count(row['n'])}")


def _pair_blocks(copies: list[ClosePairs]) -> list[Block]:
    lead = (
        "The pairs most like copies, near copies first: generated on the left, its nearest training image, which is a "
        "real patient's, on the right. Look whether they show the same image or merely two of one kind."
    )
    strips = [pair_strip(pairs) for pairs in copies]
    return [Block("The closest pairs", [lead], pairs=strips)] if strips else []


def _copies_tables(table: pd.DataFrame) -> list[Block]:
    """The closest pairs as a folded table for each run."""
    if table.empty:
        return []
    attributes = [str(name) for name in table.columns if str(name).startswith("attr.")]
    head = ["rank", "generated", "training", "distance", "ratio", "near copy", "view"]
    head += [name.removeprefix("attr.") for name in attributes]
    tables = [
        Table(f"Closest pairs of {run}", head, [_pair_row(row, attributes) for row in own.to_dict("records")])
        for run in in_order(table["run"])
        for own in [table[table["run"] == run]]
    ]
    return [Block("The closest pairs, as a table", tables=tables, folded=True)]


def _pair_row(row: Mapping[Hashable, Any], attributes: list[str]) -> Row:
    texts = [str(row["generated"]), str(row["training"])]
    texts += [number(row["distance"], metric("distance")), number(row["ratio"], metric("nn_ratio"))]
    texts += [str(row[name]) or ABSENT for name in ("near_copy", "view", *attributes)]
    marks = ["", "", "", "", "beyond" if row["near_copy"] == "yes" else "", "", *("" for _ in attributes)]
    return Row(count(row["rank"]), [Cell(text, mark=mark) for text, mark in zip(texts, marks, strict=True)])
