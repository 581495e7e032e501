"""Counts, values per group and gaps as tables for the page."""

from __future__ import annotations

from typing import Any

import pandas as pd

from equigen.report.findings import Verdict, is_group, verdict
from equigen.report.frames import DERIVED, unique_values
from equigen.report.layout import Cell, Row, Table
from equigen.report.metrics import Metric, floor_name, lookup_metric
from equigen.report.rounding import ABSENT, count, difference_text, interval, is_finite, number, p_text

WHOLE_SET = "whole set"
MAX_NOTE = 100  # a note of more characters is not repeated in a cell


def counts_tables(counts: pd.DataFrame) -> list[Table]:
    """One table per label: rows are groups, columns are levels; all splits together."""
    return [_counts(part, label) for label, part in _by_label(counts)]


def _by_label(counts: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Each label with its rows; those of all images (label ``*``) come first in each."""
    labels = unique_values(counts["label"])
    own = [label for label in labels if label != "*"] or labels
    return [(label, counts[counts["label"].isin({label, "*"})]) for label in own]


def _counts(part: pd.DataFrame, label: str) -> Table:
    levels = unique_values(part["level"])
    rows: list[Row] = []
    for attribute in unique_values(part["attribute"]):
        own = part[part["attribute"] == attribute]
        rows += [Row(attribute, kind="attribute")] if attribute != "*" else []
        for group in unique_values(own["group"]):
            cells = [_cell(own[(own["group"] == group) & (own["level"] == level)]) for level in levels]
            rows.append(Row(WHOLE_SET if group == "*" else group, cells))
    title = "Images (patients)" if label == "*" else f"Images (patients) by {label}"
    return Table(f"{title}, all splits together", ["group", *map(_every, levels)], rows)


def _every(level: str) -> str:
    return "all" if level in {"*", ""} else level


def _cell(part: pd.DataFrame) -> Cell:
    """Images and patients over the splits; small where any split is small, with the split's name."""
    if part.empty or not part["images"].sum():
        return Cell("0", mark="missing")
    total = part[part["split"].isin(["*", "all"])]
    own = total if not total.empty else part
    patients = own["patients"].sum(min_count=len(own))
    text = count(own["images"].sum()) + (f" ({count(patients)})" if is_finite(patients) else "")
    where = [split for split in unique_values(part[part["small"]]["split"]) if split not in {"", "*", "all"}]
    under = f"small: {', '.join(where)}" if where else "small" if part["small"].any() else ""
    return Cell(text, under, "small" if part["small"].any() else "")


def split_tables(counts: pd.DataFrame) -> list[Table]:
    """One table per label: a row for each group and split; nothing where there is one split."""
    splits = unique_values(counts["split"])
    return [_by_split(part, label, splits) for label, part in _by_label(counts)] if len(splits) > 1 else []


def _by_split(part: pd.DataFrame, label: str, splits: list[str]) -> Table:
    levels = unique_values(part["level"])
    names = {"*": WHOLE_SET} | {group: group for group in unique_values(part["group"]) if group != "*"}
    rows: list[Row] = []
    for attribute in unique_values(part["attribute"]):
        own = part[part["attribute"] == attribute]
        rows += [Row(attribute, kind="attribute")] if attribute != "*" else []
        for group in unique_values(own["group"]):
            here = own[own["group"] == group]
            for split in splits:
                there = here[here["split"] == split]
                cells = [_cell(there[there["level"] == level]) for level in levels]
                rows.append(Row(f"{names[group]}, {split}", cells))
    title = "Images (patients)" if label == "*" else f"Images (patients) by {label}"
    return Table(f"{title}, split by split", ["group, split", *map(_every, levels)], rows)


def value_table(rows: pd.DataFrame, column: str, words: Metric, caption: str, size: str) -> Table:
    """Values of one metric: rows are groups, columns are the runs or recipes named in ``column``.

    ``size`` is the column of sample sizes shown after the group's name. Gap and equity-scaled rows stand at
    the end of their attribute with their chance band.
    """
    names = unique_values(rows[column])
    floors = "floor" in rows and bool(rows["floor"].notna().any())
    result: list[Row] = []
    for attribute in sorted(unique_values(rows["attribute"]), key=lambda name: name != "*"):
        own = rows[rows["attribute"] == attribute]
        result += [Row(attribute, kind="attribute")] if attribute != "*" else []
        for group in sorted(unique_values(own["group"]), key=group_rank):
            found = {row[column]: row for row in own[own["group"] == group].to_dict("records")}
            ordered = [found.get(name) for name in names]
            result.append(_value_row(group, ordered, words=words, size=size, floors=floors))
    head = ["group", "n", *([floor_name(words)] if floors else []), *names]
    return Table(caption, head, result)


def group_title(group: str) -> str:
    """A group's name as a row's heading; derived rows are named for what they are."""
    return {"*": WHOLE_SET, "gap": "gap", "es": "equity-scaled", "worst": "worst group"}.get(group, group)


def missing_text(note: str) -> tuple[str, str]:
    """What a cell without a number says: its text and the smaller line below it; long notes stand below once."""
    small, under = note.startswith("too small"), note.removeprefix("too small: ")
    long = len(under) > MAX_NOTE
    return "too small" if small else "not evaluated", "see the notes of the tables" if long else under


def group_rank(group: str) -> int:
    """Where a group's row stands: the whole set first, derived rows last."""
    return {"*": 0, "worst": 2, "gap": 3, "es": 4}.get(group, 1)


def _value_row(group: str, rows: list[Any], *, words: Metric, size: str, floors: bool) -> Row:
    """One group's row; ``rows`` holds a table row for each run, None where a run has none."""
    derived = group in DERIVED
    there = [row for row in rows if row is not None]
    cells = [Cell("" if derived else _sizes([row[size] for row in there if is_finite(row["estimate"])]))]
    if floors:
        values = [row["floor"] for row in there if is_finite(row["floor"])]
        cells.append(Cell(number(values[0], words) if values else ""))
    shown = _derived if derived else _value
    cells += [Cell(ABSENT, mark="missing") if row is None else shown(row, words) for row in rows]
    return Row(group_title(group), cells, "derived" if derived else "")


def _sizes(values: list[float]) -> str:
    """One size, or the range over the runs; a dash where no run has a number."""
    if not values:
        return ABSENT
    low, high = min(values), max(values)
    return count(low) if low == high or not is_finite(low) else f"{count(low)}–{count(high)}"


def _value(row: Any, words: Metric) -> Cell:
    if not is_finite(row["estimate"]):
        text, under = missing_text(row["note"])
        return Cell(text, under, "missing")
    under = interval(row["ci_low"], row["ci_high"], words)
    excess = row.get("excess", float("nan"))
    under += f"; excess {number(excess, words)}" if is_finite(excess) and words.better == "lower" else ""
    return Cell(number(row["estimate"], words), under.removeprefix("; "))


def _derived(row: Any, words: Metric) -> Cell:
    if not is_finite(row["estimate"]):
        return Cell("not evaluated", row["note"], "missing")
    span = interval(row["null_low"], row["null_high"], words)
    chance = (
        f"chance {span}"
        if span
        else f"chance up to {number(row['null_high'], words)}"
        if is_finite(row["null_high"])
        else ""
    )
    own = interval(row["ci_low"], row["ci_high"], words)
    under = "; ".join(part for part in (own, chance, p_text(row["p_value"])) if part)
    beyond = row["group"] == "gap" and verdict(row, words).exceeds_chance
    return Cell(number(row["estimate"], words), under, "beyond" if beyond else "")


def gap_table(rows: pd.DataFrame, main: list[str], caption: str) -> Table:
    """Recipes against the baseline: overall values, then gaps and equity-scaled values of each attribute.

    Shown are the metrics in ``main`` and DPD and DEOdds, which are gaps themselves and may stand in group
    ``gap`` or ``*``. Differences are to the recipe that ``difference_to`` names.
    """
    whole = (rows["attribute"] == "*") & (rows["group"] == "*") & rows["metric"].isin(main)
    gaps = (rows["attribute"] != "*") & rows["group"].isin(["gap", "es"]) & rows["metric"].isin(main)
    between = (rows["attribute"] != "*") & rows["metric"].isin(["dpd", "deodds"]) & ~is_group(rows)
    wanted = rows[whole | gaps | between]
    attributes = sorted(unique_values(wanted["attribute"]), key=lambda name: name != "*")
    result: list[Row] = []
    for attribute in attributes:
        own = wanted[wanted["attribute"] == attribute]
        for name, group in dict.fromkeys(zip(own["metric"], own["group"], strict=True)):
            part = own[(own["metric"] == name) & (own["group"] == group)]
            title = _gap_name(attribute, lookup_metric(name), group)
            result.append(Row(title, kind="attribute"))
            result += [_gap_row(row, lookup_metric(name)) for row in part.to_dict("records")]
    base = [name for name in unique_values(wanted["difference_to"]) if name]
    difference = f"difference to {base[0]}" if len(base) == 1 else "difference"
    return Table(
        caption, ["recipe", "value", "95 % interval", "chance band", "p", difference, "reading"], result
    )


def _gap_name(attribute: str, words: Metric, group: str) -> str:
    if attribute == "*":
        return f"{WHOLE_SET}: {words.short}"
    if words.name in {"dpd", "deodds"}:
        return f"{attribute}: {words.short}"
    return f"{attribute}: " + (f"ES-{words.short}" if group == "es" else f"gap in {words.short}")


def _gap_row(row: Any, words: Metric) -> Row:
    reading, beyond = _reading(row, words)
    difference = difference_text(row["difference"], row["difference_low"], row["difference_high"], words)
    texts = [
        number(row["estimate"], words),
        interval(row["ci_low"], row["ci_high"], words) or ABSENT,
        interval(row["null_low"], row["null_high"], words) or ABSENT,
        p_text(row["p_value"]).removeprefix("p ").removeprefix("= ") or ABSENT,
        difference,
    ]
    return Row(row["recipe"], [*map(Cell, texts), Cell(reading, mark="beyond" if beyond else "")])


def _reading(row: Any, words: Metric) -> tuple[str, bool]:
    """What the row says, and whether that is more than chance."""
    if not is_finite(row["estimate"]):
        return row["note"] or "not evaluated", False
    if row["attribute"] == "*":
        low, high = row["difference_low"], row["difference_high"]
        if not is_finite(low) or not is_finite(high):
            return ABSENT, False
        better = (low > 0) == (words.better == "higher")
        return (
            ("no difference established", False)
            if low <= 0 <= high
            else ("better" if better else "worse", True)
        )
    seen = verdict(row, words) if row["group"] != "es" else _scaled(row, words)
    if seen.exceeds_chance is None:
        return "not tested against chance", False
    return ("beyond chance", True) if seen.exceeds_chance else ("not beyond chance", False)


def _scaled(row: Any, words: Metric) -> Verdict:
    """An equity-scaled value is beyond chance when it lies outside the band on its worse side."""
    if not is_finite(row["estimate"]) or not is_finite(row["null_low"]) or not is_finite(row["null_high"]):
        return Verdict(None, "")
    worse = (
        row["estimate"] > row["null_high"] if words.better == "lower" else row["estimate"] < row["null_low"]
    )
    return Verdict(bool(worse), "")
