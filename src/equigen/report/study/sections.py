"""The sections on data, images, training, other pages, notes and settings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from equigen.report.figures import axis_limits, curve_figure, run_styles
from equigen.report.frames import json_value, unique_values
from equigen.report.images import Grid, image_table
from equigen.report.layout import Block, Cell, Picture, Row, Section, Table
from equigen.report.metrics import LIMITS, QUOTE, TERMS, count, duration, listing, lookup_metric, number
from equigen.report.tables import counts_tables, split_tables

MAX_NOTES = 12  # more kinds of notes than this are folded away
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
EARLY_SHARE = 0.1  # share of training whose values do not set the losses' axis
MAX_GENERATORS = 3  # more generators than this and the figures per group are folded away


def counts_section(counts: pd.DataFrame) -> Section:
    """The section on the data: images and patients of each group, label and split."""
    blocks = []
    if not counts.empty:
        small = int(counts["small"].sum())
        text = [f"{small} of {len(counts)} cells (split by split) are small: numbers about them are uncertain."]
        blocks = [Block("", text if small else [], tables=counts_tables(counts))]
        if tables := split_tables(counts):
            blocks.append(Block("The same, split by split", tables=tables, folded=True))
    return Section(
        "data",
        "Who is in the data",
        "Images, and in brackets patients, for each group and diagnosis.",
        blocks,
        "The counts were not given.",
    )


def images_section(grids: list[Grid]) -> Section:
    """The section with real and generated images on the same rows."""
    blocks = [Block("", images=[image_table(grid)]) for grid in grids]
    intro = "Every row is one group; real images and those of each generator stand side by side."
    return Section("images", "Images", intro, blocks, "No images were given.")


def training_section(history: Mapping[str, pd.DataFrame]) -> Section:
    """The section on training: losses of all images, losses per group, and sigma or weights of the mechanism.

    Losses per group are those of the first of held-out probe, training probe and training batches that is given.
    """
    titles = {"probe_heldout": "held-out probe", "probe_train": "training probe", "train": "training batches"}
    pictures = []
    for kind, title in titles.items():
        lines = _history_lines(history, kind, "*")
        if lines:
            alt = f"Loss on the {title} over images seen for {listing(list(lines))}. {_last_values(lines)}"
            svg = curve_figure(lines, run_styles(list(history)), axis="loss", alt=alt, slug=f"loss-{kind}")
            caption = f"Loss on the {title}, all images. Long runs are averaged to 200 points."
            pictures.append(Picture(svg, caption))
    blocks = [Block("All images together", pictures=pictures)]
    kinds = {kind for frame in history.values() for kind in frame.loc[frame["attribute"] != "*", "kind"]}
    probe = next((kind for kind in titles if kind in kinds), None)
    if probe:
        blocks.append(_group_block(history, probe, f"Loss per group, {titles[probe]}", "loss"))
    for kind, title in {"sigma": "Sigma of the mechanism", "weight": "Weight of each group"}.items():
        blocks += [_group_block(history, kind, title, kind)] if kind in kinds else []
    intro = (
        "The denoising loss on a fixed probe (the same images, noise and noise levels each time), in images "
        "seen. Lower is better, but groups may differ in how hard their images are."
    )
    blocks = [block for block in blocks if block.pictures]
    return Section("training", "Training", intro, blocks, "No training history was given.")


def _history_lines(history: Mapping[str, pd.DataFrame], kind: str, attribute: str) -> dict[str, pd.DataFrame]:
    """Generator -> its rows of one kind and attribute with a value; generators without any are left out."""
    lines = {
        name: frame[(frame["kind"] == kind) & (frame["attribute"] == attribute) & frame["value"].notna()]
        for name, frame in history.items()
    }
    return {name: frame for name, frame in lines.items() if not frame.empty}


def _last_values(lines: Mapping[str, pd.DataFrame]) -> str:
    """A sentence with the last value of each line, for the text alternative of a figure."""
    metric = lookup_metric("loss")
    last = {name: frame.sort_values("images_seen")["value"].iloc[-1] for name, frame in lines.items()}
    return f"Last values: {listing([f'{name} {number(float(value), metric)}' for name, value in last.items()])}."


def _group_block(history: Mapping[str, pd.DataFrame], kind: str, title: str, axis: str) -> Block:
    """A figure for each attribute and generator; the generators of one attribute share their axis."""
    pictures = []
    kind_frames = [frame.loc[frame["kind"] == kind, "attribute"] for frame in history.values()]
    for attribute in dict.fromkeys(name for column in kind_frames for name in unique_values(column) if name != "*"):
        frames = _history_lines(history, kind, attribute)
        groups = list(dict.fromkeys(group for frame in frames.values() for group in unique_values(frame["group"])))
        limits, styles = axis_limits(list(frames.values()), EARLY_SHARE), run_styles(groups)
        attribute_slug = "".join(char if char.isascii() and char.isalnum() else f"_{ord(char):x}" for char in attribute)
        for index, (name, frame) in enumerate(frames.items()):
            lines = {group: frame[frame["group"] == group] for group in groups if (frame["group"] == group).any()}
            alt = f"{title} of {name} over images seen, by {attribute}. {_last_values(lines)}"
            slug = f"{kind}-{attribute_slug}-{index}"
            svg = curve_figure(lines, styles, axis=axis, alt=alt, slug=slug, limits=limits)
            pictures.append(Picture(svg, f"{name}, by {attribute}"))
    text = [] if kind in {"sigma", "weight"} else ["The first tenth of training may lie above the axis."]
    return Block(title, text, pictures, folded=len(history) > MAX_GENERATORS)


def reading_section(quality: pd.DataFrame, fairness: pd.DataFrame, differences: pd.DataFrame) -> Section:
    """The section on reading the numbers: which to quote, limits, definitions, and every note of the tables once.

    Notes that differ in numbers only are one kind, with its number of rows.
    """
    tables = {"quality": quality, "comparison": differences, "fairness": fairness}
    names = dict.fromkeys(name for frame in tables.values() for name in unique_values(frame["metric"]))
    ways = {"lower": "Lower is better.", "higher": "Higher is better.", "": ""}
    terms = [
        (metric.title, f"{metric.meaning} {ways[metric.better]}".strip(), metric.source)
        for metric in map(lookup_metric, names)
    ]
    limits, total = [*LIMITS], sum(int(frame["p_value"].notna().sum()) for frame in tables.values())
    if total >= 2:
        chance = max(1, round(total * 0.05))
        limits.append(
            f"This report holds {total} p-values. If nothing differed, about {chance} of them would still be "
            "0.05 or less, fewer where they were corrected for their number."
        )
    blocks = [
        Block("Which number to quote", QUOTE if not quality.empty else []),
        Block("What a number cannot support", limits),
        Block("Words", terms=[*TERMS]),
        Block("Metrics on this page", terms=terms),
    ]
    kinds: dict[tuple[str, str], list[tuple[str, str]]] = {}  # table and note without its numbers: notes, metrics
    for title, frame in tables.items():
        for cell, name in zip(frame["note"], frame["metric"], strict=True):
            for note in filter(None, cell.split("; ")):
                kinds.setdefault((title, _NUMBER.sub("#", note)), []).append((note, lookup_metric(name).short))
    notes = []
    for (title, _), entries in kinds.items():
        detail = "numbers differ" if len({note for note, _ in entries}) > 1 else ""
        metrics = listing(list(dict.fromkeys(short for _, short in entries)))
        notes.append(Row(entries[0][0], [Cell(title), Cell(count(len(entries)), detail), Cell(metrics)]))
    if notes:
        table = Table("What the tables note", ["note", "table", "rows", "metrics"], notes)
        lead = "Each note once; the files hold them row by row."
        blocks.append(Block("Notes of the tables", [lead], tables=[table], folded=len(notes) > MAX_NOTES))
    blocks = [block for block in blocks if block.text or block.terms or block.tables]
    return Section("reading", "How to read this, and its limits", "", blocks, "")


def pages_section(pages: Mapping[str, str]) -> Section | None:
    """Links to the other pages of the report; None where there are none."""
    if not pages:
        return None
    intro = "These pages lie in the report's folder; pass the whole folder on, not this page alone."
    return Section("pages", "Other pages of this report", intro, [Block("", links=list(pages.items()))], "")


def settings_section(settings: Mapping[str, Any], versions: Mapping[str, str], timings: Mapping[str, float]) -> Section:
    """The section with settings, software versions and the times of the stages."""
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
