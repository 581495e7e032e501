"""The page's sections, each made from one table."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from equigen.report.curves import axis_limits, curve_figure
from equigen.report.figures import run_styles
from equigen.report.frames import json_value, unique_values
from equigen.report.images import Grid, image_table
from equigen.report.layout import Block, Cell, Picture, Row, Section, Table
from equigen.report.metrics import LIMITS, QUOTE, TERMS, lookup_metric
from equigen.report.rounding import count, duration, listing, number
from equigen.report.tables import counts_tables, split_tables

MANY = 12  # more kinds of notes than this are folded away
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
EARLY = 0.1  # share of training whose values do not set the losses' axis
FOLD = 3  # more generators than this and the figures per group are folded away


def counts_section(counts: pd.DataFrame) -> Section:
    """Who is in the data."""
    blocks = []
    if not counts.empty:
        small = int(counts["small"].sum())
        text = [
            f"{small} of {len(counts)} cells (split by split) are small: numbers about them are uncertain."
        ]
        blocks = [Block("", text if small else [], tables=counts_tables(counts))]
        if split := split_tables(counts):
            blocks.append(Block("The same, split by split", tables=split, folded=True))
    return Section(
        "data",
        "Who is in the data",
        "Images, and in brackets patients, for each group and diagnosis.",
        blocks,
        "The counts were not given.",
    )


def images_section(grids: list[Grid]) -> Section:
    """Real and generated images on the same rows."""
    blocks = [Block("", images=[image_table(grid)]) for grid in grids]
    intro = "Every row is one group; real images and those of each generator stand side by side."
    return Section("images", "Images", intro, blocks, "No images were given.")


def training_section(history: Mapping[str, pd.DataFrame]) -> Section:
    """Losses and mechanism values over images seen."""
    blocks = [_loss_block(history), *_group_blocks(history)]
    intro = (
        "The denoising loss on a fixed probe (the same images, noise and noise levels each time), in images "
        "seen. Lower is better, but groups may differ in how hard their images are."
    )
    return Section(
        "training",
        "Training",
        intro,
        [block for block in blocks if block.pictures],
        "No training history was given.",
    )


def _part(frame: pd.DataFrame, kind: str, attribute: str) -> pd.DataFrame:
    return frame[(frame["kind"] == kind) & (frame["attribute"] == attribute) & frame["value"].notna()]


def _loss_block(history: Mapping[str, pd.DataFrame]) -> Block:
    """The whole set's loss of every generator."""
    pictures = []
    for kind, title in (
        ("probe_heldout", "held-out probe"),
        ("probe_train", "training probe"),
        ("train", "training batches"),
    ):
        lines = {name: part for name, frame in history.items() if not (part := _part(frame, kind, "*")).empty}
        if lines:
            alt = f"Loss on the {title} over images seen for {listing(list(lines))}. " + _ends(lines)
            svg = curve_figure(lines, run_styles(list(history)), axis="loss", alt=alt, slug=f"loss-{kind}")
            pictures.append(
                Picture(svg, f"Loss on the {title}, all images. Long runs are averaged to 200 points.")
            )
    return Block("All images together", pictures=pictures)


def _ends(lines: Mapping[str, pd.DataFrame]) -> str:
    words = lookup_metric("loss")
    last = {name: frame.sort_values("images_seen")["value"].iloc[-1] for name, frame in lines.items()}
    return (
        "Last values: "
        + listing([f"{name} {number(float(value), words)}" for name, value in last.items()])
        + "."
    )


def _group_blocks(history: Mapping[str, pd.DataFrame]) -> list[Block]:
    """Losses per group on the best probe there is, and what the mechanism decides: sigma or weights."""
    kinds = {kind for frame in history.values() for kind in frame.loc[frame["attribute"] != "*", "kind"]}
    titles = {"probe_heldout": "held-out probe", "probe_train": "training probe", "train": "training batches"}
    kind = next((kind for kind in titles if kind in kinds), None)
    blocks = [_per_group(history, kind, f"Loss per group, {titles[kind]}", "loss")] if kind else []
    decided = {"sigma": "Sigma of the mechanism", "weight": "Weight of each group"}
    return blocks + [_per_group(history, name, title, name) for name, title in decided.items() if name in kinds]


def _attributes(history: Mapping[str, pd.DataFrame], kind: str) -> list[str]:
    names = [
        name for frame in history.values() for name in unique_values(frame.loc[frame["kind"] == kind, "attribute"])
    ]
    return [name for name in dict.fromkeys(names) if name != "*"]


def _per_group(history: Mapping[str, pd.DataFrame], kind: str, title: str, axis: str) -> Block:
    """A figure for each attribute and generator; the generators of one attribute share their axis."""
    pictures = []
    for attribute in _attributes(history, kind):
        parts = {
            name: own for name, frame in history.items() if not (own := _part(frame, kind, attribute)).empty
        }
        groups = list(dict.fromkeys(group for part in parts.values() for group in unique_values(part["group"])))
        limits, styles = axis_limits(list(parts.values()), EARLY), run_styles(groups)
        for place, (name, part) in enumerate(parts.items()):
            lines = {group: own for group in groups if not (own := part[part["group"] == group]).empty}
            alt = f"{title} of {name} over images seen, by {attribute}. " + _ends(lines)
            slug = f"{kind}-{_slug(attribute)}-{place}"
            svg = curve_figure(lines, styles, axis=axis, alt=alt, slug=slug, limits=limits)
            pictures.append(Picture(svg, f"{name}, by {attribute}"))
    text = [] if kind in {"sigma", "weight"} else ["The first tenth of training may lie above the axis."]
    return Block(title, text, pictures, folded=len(history) > FOLD)


def _slug(text: str) -> str:
    return "".join(sign if sign.isascii() and sign.isalnum() else f"_{ord(sign):x}" for sign in text)


def reading_section(quality: pd.DataFrame, fairness: pd.DataFrame, differences: pd.DataFrame) -> Section:
    """Which number to quote, definitions, what a number cannot support, and every note of the tables once."""
    tables = {"quality": quality, "comparison": differences, "fairness": fairness}
    names = [name for frame in tables.values() for name in unique_values(frame["metric"])]
    used = [lookup_metric(name) for name in dict.fromkeys(names)]
    ways = {"lower": "Lower is better.", "higher": "Higher is better.", "": ""}
    terms = [(m.title, f"{m.meaning} {ways[m.better]}".strip(), m.source) for m in used]
    blocks = [
        Block("Which number to quote", QUOTE if not quality.empty else []),
        Block("What a number cannot support", [*LIMITS, *_tests(list(tables.values()))]),
        Block("Words", terms=[*TERMS]),
        Block("Metrics on this page", terms=terms),
    ]
    notes = [row for name, frame in tables.items() for row in _notes(frame, name)]
    if notes:
        table = Table("What the tables note", ["note", "table", "rows", "metrics"], notes)
        lead = "Each note once; the files hold them row by row."
        blocks.append(Block("Notes of the tables", [lead], tables=[table], folded=len(notes) > MANY))
    return Section(
        "reading",
        "How to read this, and its limits",
        "",
        [b for b in blocks if b.text or b.terms or b.tables],
        "",
    )


def _tests(frames: list[pd.DataFrame]) -> list[str]:
    total = sum(int(frame["p_value"].notna().sum()) for frame in frames)
    if total < 2:
        return []
    chance = max(1, round(total * 0.05))
    return [
        f"This report holds {total} p-values. If nothing differed, about {chance} of them would still be "
        "0.05 or less, fewer where they were corrected for their number."
    ]


def _notes(frame: pd.DataFrame, table: str) -> list[Row]:
    """Each kind of note once, with its number of rows; notes that differ in numbers only are one kind."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for cell, name in zip(frame["note"], frame["metric"], strict=True):
        for note in filter(None, cell.split("; ")):
            kinds.setdefault(_NUMBER.sub("#", note), []).append((note, lookup_metric(name).short))
    return [_note_row(found, table) for found in kinds.values()]


def _note_row(found: list[tuple[str, str]], table: str) -> Row:
    differ = "numbers differ" if len({note for note, _ in found}) > 1 else ""
    metrics = listing(list(dict.fromkeys(short for _, short in found)))
    return Row(found[0][0], [Cell(table), Cell(count(len(found)), differ), Cell(metrics)])


def pages_section(pages: Mapping[str, str]) -> Section | None:
    """Pages that belong to the report; None where there are none."""
    if not pages:
        return None
    intro = "Each lies in the report's own folder, and goes where that goes."
    return Section("pages", "Pages beside this one", intro, [Block("", links=list(pages.items()))], "")


def settings_section(
    settings: Mapping[str, Any], versions: Mapping[str, str], timings: Mapping[str, float]
) -> Section:
    """Settings, versions and times."""
    blocks = []
    if settings:
        blocks.append(Block("Settings", code=json.dumps(json_value(settings), indent=2, ensure_ascii=False)))
    if versions:
        rows = [Row(name, [Cell(str(value))]) for name, value in versions.items()]
        blocks.append(Block("Versions", tables=[Table("Software", ["software", "version"], rows)]))
    if timings:
        rows = [Row(name, [Cell(duration(float(value)))]) for name, value in timings.items()]
        blocks.append(Block("Time", tables=[Table("Stages", ["stage", "time"], rows)]))
    return Section("settings", "Settings", "", blocks, "No settings were given.")
