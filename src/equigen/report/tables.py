"""Counts, values per group and gaps as tables for the page."""

from __future__ import annotations

from typing import Any

import pandas as pd

from equigen.report.findings import is_group, verdict
from equigen.report.frames import DERIVED, unique_values
from equigen.report.layout import Cell, Row, Table
from equigen.report.metrics import (
    ABSENT,
    Metric,
    count,
    difference_text,
    floor_name,
    interval,
    is_finite,
    lookup_metric,
    number,
    p_text,
)

WHOLE_SET = "whole set"
MAX_NOTE = 100  # a note of more characters is not repeated in a cell


def counts_tables(counts: pd.DataFrame) -> list[Table]:
    """One table per label: rows are groups, columns are levels; all splits together."""
    return [_counts_table(counts, label, None) for label in _table_labels(counts)]


def split_tables(counts: pd.DataFrame) -> list[Table]:
    """One table per label with a row for each group and split; empty where there is one split only."""
    splits = unique_values(counts["split"])
    return [_counts_table(counts, label, splits) for label in _table_labels(counts)] if len(splits) > 1 else []


def _table_labels(counts: pd.DataFrame) -> list[str]:
    """The labels with a table of their own: all but ``*`` (all images), which has one only where it is alone."""
    labels = unique_values(counts["label"])
    return [label for label in labels if label != "*"] or labels


def _counts_table(counts: pd.DataFrame, label: str, splits: list[str] | None) -> Table:
    """Images and patients by group and level of one label, after those of all images; with ``splits``, by split too."""
    counts = counts[counts["label"].isin({label, "*"})]
    levels = unique_values(counts["level"])
    row_splits: list[str | None] = [*splits] if splits else [None]
    rows: list[Row] = []
    for attribute in unique_values(counts["attribute"]):
        attribute_rows = counts[counts["attribute"] == attribute]
        rows += [Row(attribute, kind="attribute")] if attribute != "*" else []
        for group in unique_values(attribute_rows["group"]):
            title, members = WHOLE_SET if group == "*" else group, attribute_rows[attribute_rows["group"] == group]
            for split in row_splits:
                split_rows = members if split is None else members[members["split"] == split]
                cells = [_counts_cell(split_rows[split_rows["level"] == level]) for level in levels]
                rows.append(Row(title if split is None else f"{title}, {split}", cells))
    heading = "Images (patients)" if label == "*" else f"Images (patients) by {label}"
    columns = ["all" if level in {"*", ""} else level for level in levels]
    if splits is None:
        return Table(f"{heading}, all splits together", ["group", *columns], rows)
    return Table(f"{heading}, split by split", ["group, split", *columns], rows)


def _counts_cell(rows: pd.DataFrame) -> Cell:
    """Images and patients summed over the splits; small where any split is small, with the names of those splits."""
    if rows.empty or not rows["images"].sum():
        return Cell("0", mark="missing")
    total = rows[rows["split"].isin(["*", "all"])]
    counted = total if not total.empty else rows
    patients = counted["patients"].sum(min_count=len(counted))
    text = count(counted["images"].sum()) + (f" ({count(patients)})" if is_finite(patients) else "")
    small = [split for split in unique_values(rows[rows["small"]]["split"]) if split not in {"", "*", "all"}]
    detail = f"small: {', '.join(small)}" if small else "small" if rows["small"].any() else ""
    return Cell(text, detail, "small" if rows["small"].any() else "")


def value_table(rows: pd.DataFrame, column: str, metric: Metric, caption: str, size: str) -> Table:
    """Values of one metric: rows are groups, columns are the runs or recipes named in ``column``.

    ``size`` is the column of sample sizes shown after the group's name. Gap and equity-scaled rows stand at
    the end of their attribute with their chance band.
    """
    names = unique_values(rows[column])
    floors = "floor" in rows and bool(rows["floor"].notna().any())
    result: list[Row] = []
    for attribute in sorted(unique_values(rows["attribute"]), key=lambda name: name != "*"):
        attribute_rows = rows[rows["attribute"] == attribute]
        result += [Row(attribute, kind="attribute")] if attribute != "*" else []
        for group in sorted(unique_values(attribute_rows["group"]), key=group_rank):
            group_rows = attribute_rows[attribute_rows["group"] == group]
            records = {row[column]: row for row in group_rows.to_dict("records")}
            records = {name: records[name] for name in names if name in records}
            derived, size_text, floor = group in DERIVED, "", ""
            if not derived:
                sizes = [row[size] for row in records.values() if is_finite(row["estimate"])]
                low, high = (min(sizes), max(sizes)) if sizes else (float("nan"), float("nan"))
                size_text = count(low) if low == high or not is_finite(low) else f"{count(low)}–{count(high)}"
            if floors:
                known_floors = [row["floor"] for row in records.values() if is_finite(row["floor"])]
                floor = number(known_floors[0], metric) if known_floors else ""
            cells = [_value_cell(records.get(name), metric) for name in names]
            head = [Cell(size_text), *([Cell(floor)] if floors else [])]
            result.append(Row(group_title(group), head + cells, "derived" if derived else ""))
    heads = ["group", "n", *([floor_name(metric)] if floors else []), *names]
    return Table(caption, heads, result)


def group_title(group: str) -> str:
    """A group's name as a row's heading; derived rows are named for what they are."""
    return {"*": WHOLE_SET, "gap": "gap", "es": "equity-scaled", "worst": "worst group"}.get(group, group)


def missing_text(note: str) -> tuple[str, str]:
    """Text and detail of a cell without a number; a long note is replaced by a pointer to the notes' table."""
    small, detail = note.startswith("too small"), note.removeprefix("too small: ")
    long = len(detail) > MAX_NOTE
    return "too small" if small else "not evaluated", "see the notes of the tables" if long else detail


def group_rank(group: str) -> int:
    """Sort key of a group's row: the whole set first, derived rows last."""
    return {"*": 0, "worst": 2, "gap": 3, "es": 4}.get(group, 1)


def _value_cell(row: Any | None, metric: Metric) -> Cell:
    """Estimate with interval and excess; of a derived row with interval, chance band and p-value."""
    if row is None:
        return Cell(ABSENT, mark="missing")
    derived = row["group"] in DERIVED
    if not is_finite(row["estimate"]):
        text, detail = ("not evaluated", row["note"]) if derived else missing_text(row["note"])
        return Cell(text, detail, "missing")
    details = [interval(row["ci_low"], row["ci_high"], metric)]
    if derived:
        band, upper = interval(row["null_low"], row["null_high"], metric), number(row["null_high"], metric)
        details.append(f"chance {band}" if band else f"chance up to {upper}" if is_finite(row["null_high"]) else "")
        details.append(p_text(row["p_value"]))
    elif is_finite(row.get("excess")) and metric.better == "lower":
        details.append(f"excess {number(row['excess'], metric)}")
    exceeds = row["group"] == "gap" and verdict(row, metric).exceeds_chance
    return Cell(number(row["estimate"], metric), "; ".join(filter(None, details)), "beyond" if exceeds else "")


def gap_table(rows: pd.DataFrame, main: list[str], caption: str) -> Table:
    """Recipes against the baseline: overall values, then gaps and equity-scaled values of each attribute.

    The table holds the metrics in ``main`` and DPD and DEOdds, which are gaps themselves and may stand in group
    ``gap`` or ``*``. Differences are to the recipe that ``difference_to`` names.
    """
    overall = (rows["attribute"] == "*") & (rows["group"] == "*") & rows["metric"].isin(main)
    gaps = (rows["attribute"] != "*") & rows["group"].isin(["gap", "es"]) & rows["metric"].isin(main)
    between = (rows["attribute"] != "*") & rows["metric"].isin(["dpd", "deodds"]) & ~is_group(rows)
    rows = rows[overall | gaps | between]
    result: list[Row] = []
    for attribute in sorted(unique_values(rows["attribute"]), key=lambda name: name != "*"):
        attribute_rows = rows[rows["attribute"] == attribute]
        for name, group in dict.fromkeys(zip(attribute_rows["metric"], attribute_rows["group"], strict=True)):
            metric = lookup_metric(name)
            title = f"ES-{metric.short}" if group == "es" else f"gap in {metric.short}"
            if attribute == "*" or name in {"dpd", "deodds"}:
                title = metric.short
            result.append(Row(f"{WHOLE_SET if attribute == '*' else attribute}: {title}", kind="attribute"))
            members = attribute_rows[(attribute_rows["metric"] == name) & (attribute_rows["group"] == group)]
            for row in members.to_dict("records"):
                reading, established = _reading(row, metric)
                texts = [
                    number(row["estimate"], metric),
                    interval(row["ci_low"], row["ci_high"], metric) or ABSENT,
                    interval(row["null_low"], row["null_high"], metric) or ABSENT,
                    p_text(row["p_value"]).removeprefix("p ").removeprefix("= ") or ABSENT,
                    difference_text(row["difference"], row["difference_low"], row["difference_high"], metric),
                ]
                cells = [*map(Cell, texts), Cell(reading, mark="beyond" if established else "")]
                result.append(Row(str(row["recipe"]), cells))
    bases = [name for name in unique_values(rows["difference_to"]) if name]
    difference = f"difference to {bases[0]}" if len(bases) == 1 else "difference"
    columns = ["recipe", "value", "95 % interval", "chance band", "p", difference, "reading"]
    return Table(caption, columns, result)


def _reading(row: Any, metric: Metric) -> tuple[str, bool]:
    """The reading of a row, and whether it is more than chance explains.

    An overall value is read by its paired difference, a gap by ``verdict``; an equity-scaled value is beyond chance
    when it lies outside its null band on the worse side.
    """
    if not is_finite(row["estimate"]):
        return row["note"] or "not evaluated", False
    if row["attribute"] == "*":
        low, high = row["difference_low"], row["difference_high"]
        if not is_finite(low) or not is_finite(high):
            return ABSENT, False
        if low <= 0 <= high:
            return "no difference established", False
        return "better" if (low > 0) == (metric.better == "higher") else "worse", True
    exceeds = verdict(row, metric).exceeds_chance
    if row["group"] == "es":
        banded = is_finite(row["null_low"]) and is_finite(row["null_high"])
        above, below = row["estimate"] > row["null_high"], row["estimate"] < row["null_low"]
        exceeds = bool(above if metric.better == "lower" else below) if banded else None
    if exceeds is None:
        return "not tested against chance", False
    return ("beyond chance", True) if exceeds else ("not beyond chance", False)
