"""What a table of counterfactual pairs says, in plain words."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from equigen.report.frames import unique_values
from equigen.report.layout import Sentence
from equigen.report.metrics import Metric, lookup_metric
from equigen.report.rounding import estimate_text, is_finite, listing

CHANGES, SHOWS, ELSE = "What the attribute changes", "Does the attribute show?", "Does anything else change?"
SHARE = Metric("share", "share", "share", "", "", "", decimals=3)
Line = Mapping[Hashable, Any]


def field_name(field: str) -> str:
    """``dx`` for ``label.dx``, ``sex`` for ``attr.sex``."""
    return field.removeprefix("label.").removeprefix("attr.")


def merged_prompt(prompts: list[str | None]) -> str:
    """One text for the prompts of a pair, the words that differ in brackets; "" where there is none.

    >>> merged_prompt(["An eye of a young woman", "An eye of a young man"])
    'An eye of a young [woman / man]'
    """
    if any(prompt is None for prompt in prompts):
        return ""
    parts = [str(prompt).split(" ") for prompt in prompts]
    if all(part == parts[0] for part in parts):
        return " ".join(parts[0])
    start, most = 0, min(map(len, parts))
    while start < most and len({part[start] for part in parts}) == 1:
        start += 1
    end = 0
    while end < most - start and len({part[len(part) - 1 - end] for part in parts}) == 1:
        end += 1
    middle = " / ".join(" ".join(part[start : len(part) - end]) for part in parts)
    return " ".join([*parts[0][:start], f"[{middle}]", *parts[0][len(parts[0]) - end :]])


def value_text(row: Line, name: str, words: Metric) -> str:
    """``0.93 (0.90 to 0.95)`` of ``estimate``, ``reference`` or ``ratio``."""
    prefix = "ci" if name == "estimate" else name
    return estimate_text(row[name], row[f"{prefix}_low"], row[f"{prefix}_high"], words)


def pairs_sentences(measured: pd.DataFrame, attribute: str) -> list[Sentence]:
    """What changes, whether the attribute shows, and what else is read otherwise."""
    return [*_changes(measured, attribute), *_shows(measured, attribute), *_flips(measured, attribute)]


def _lines(measured: pd.DataFrame, metric_name: str) -> list[dict[Hashable, Any]]:
    return measured[measured["metric"] == metric_name].to_dict("records")


def _changes(measured: pd.DataFrame, attribute: str) -> list[Sentence]:
    """The share of what another seed changes, in features and in pixels."""
    rows = {name: next(iter(_lines(measured, name)), None) for name in ("feature_distance", "pixel_difference")}
    told = {name: row for name, row in rows.items() if row is not None and is_finite(row["ratio"])}
    if not told:
        why = next((str(row["note"]) for row in rows.values() if row is not None and row["note"]), "nothing to compare")
        return [Sentence(f"How much {attribute} changes was not measured: {why}.", "missing", CHANGES)]
    parts = tuple(f"{lookup_metric(name).short}: {value_text(row, 'ratio', SHARE)}, {_within(row, name)}"
                  for name, row in told.items())  # fmt: skip
    text = (f"Changing {attribute} alone, with the same noise, changes a part of what another seed changes "
            "(0: nothing, 1: everything):")  # fmt: skip
    return [Sentence(text, "finding", CHANGES, parts)]


def _within(row: Line, name: str) -> str:
    words = lookup_metric(name)
    return f"{value_text(row, 'estimate', words)} within pairs, {value_text(row, 'reference', words)} between seeds"


def _shows(measured: pd.DataFrame, attribute: str) -> list[Sentence]:
    """How often each level of the changed attribute is read as asked, beside real images."""
    rows = [row for row in _lines(measured, "read_as_asked")
            if row["field"] == f"attr.{attribute}" and row["group"] != "*"]  # fmt: skip
    told = [row for row in rows if is_finite(row["estimate"])]
    if not told:
        why = next((str(row["note"]) for row in rows if row["note"]), "no classifier read it")
        return [Sentence(f"Whether {attribute} shows as asked was not measured: {why}.", "missing", SHOWS)]
    parts = tuple(_level(row) for row in told)
    low = [str(row["group"]) for row in told if is_finite(row["reference"]) and row["ci_high"] < row["reference_low"]]
    text = f"Share of images in which {attribute} is read as asked:"
    if low:
        text = f"{attribute} is read as asked less often than in real images for {listing(low)}:"
    return [Sentence(text, "caution" if low else "finding", SHOWS, parts)]


def _level(row: Line) -> str:
    real = f"; of real images {value_text(row, 'reference', SHARE)}" if is_finite(row["reference"]) else ""
    return f"{row['group']}: {value_text(row, 'estimate', SHARE)}{real}"


def _flips(measured: pd.DataFrame, attribute: str) -> list[Sentence]:
    """How often each other field flips, and whether that is more or less than among other seeds."""
    rows = [row for row in _lines(measured, "flip") if row["group"] == "*"]
    if not rows:
        return [Sentence("Whether other fields are read otherwise was not measured.", "missing", ELSE)]
    said = []
    for field in unique_values(pd.Series([row["field"] for row in rows])):
        row = next(own for own in rows if own["field"] == field)
        said.append(_flip(row, field_name(field), attribute))
    return said


def _flip(row: Line, name: str, attribute: str) -> Sentence:
    if not is_finite(row["estimate"]):
        return Sentence(f"Flips of {name} were not measured: {row['note']}.", "missing", ELSE)
    text = f"Changing {attribute} changes what is read as {name} in {value_text(row, 'estimate', SHARE)} of pairs"
    if not is_finite(row["reference"]):
        return Sentence(f"{text}; there is nothing to hold it against.", "finding", ELSE)
    text = f"{text}; another seed with the same request does in {value_text(row, 'reference', SHARE)}"
    if row["ci_low"] > row["reference_high"]:
        return Sentence(f"{text}. That is more than noise and the classifier's errors explain.", "caution", ELSE)
    if row["ci_high"] < row["reference_low"]:
        return Sentence(f"{text}. The attribute does less than the noise.", "finding", ELSE)
    return Sentence(f"{text}. The two cannot be told apart.", "chance", ELSE)
