"""Sentences of counterfactual pairs: the effect of the attribute, whether it shows, and what changes with it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from equigen.report.frames import unique_values
from equigen.report.layout import Sentence
from equigen.report.metrics import Metric, estimate_text, is_finite, listing, lookup_metric

CHANGES, SHOWS, FLIPS = "What the attribute changes", "Does the attribute show?", "Does anything else change?"
SHARE = Metric("share", "share", "share", "", "", "", decimals=3)
MetricRow = Mapping[Hashable, Any]


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
    tokens = [str(prompt).split(" ") for prompt in prompts]
    if all(sequence == tokens[0] for sequence in tokens):
        return " ".join(tokens[0])
    start, shortest = 0, min(map(len, tokens))
    while start < shortest and len({sequence[start] for sequence in tokens}) == 1:
        start += 1
    end = 0
    while end < shortest - start and len({sequence[len(sequence) - 1 - end] for sequence in tokens}) == 1:
        end += 1
    middle = " / ".join(" ".join(sequence[start : len(sequence) - end]) for sequence in tokens)
    return " ".join([*tokens[0][:start], f"[{middle}]", *tokens[0][len(tokens[0]) - end :]])


def value_text(row: MetricRow, column: str, metric: Metric) -> str:
    """``0.93 (0.90 to 0.95)`` of the column ``estimate``, ``reference`` or ``ratio``."""
    prefix = "ci" if column == "estimate" else column
    return estimate_text(row[column], row[f"{prefix}_low"], row[f"{prefix}_high"], metric)


def pairs_sentences(metrics: pd.DataFrame, attribute: str) -> list[Sentence]:
    """Sentences on the effect of the attribute, on whether it shows, and on flips of each other field."""
    records = metrics.to_dict("records")
    flips = [row for row in records if row["metric"] == "flip" and row["group"] == "*"]
    first = {row["field"]: row for row in reversed(flips)}
    fields = unique_values(pd.Series([row["field"] for row in flips], dtype=object))
    sentences = [_flip_sentence(first[field], field_name(field), attribute) for field in fields]
    missing = Sentence("Whether other fields are read otherwise was not measured.", "missing", FLIPS)
    return [_change_sentence(records, attribute), _recognition_sentence(records, attribute), *(sentences or [missing])]


def _change_sentence(records: list[dict[Hashable, Any]], attribute: str) -> Sentence:
    """The share of the effect of another seed, in features and in pixels."""
    rows = {name: next((row for row in records if row["metric"] == name), None)
            for name in ("feature_distance", "pixel_difference")}  # fmt: skip
    parts = []
    for name, row in rows.items():
        if row is not None and is_finite(row["ratio"]):
            metric = lookup_metric(name)
            parts.append(
                f"{metric.short}: {value_text(row, 'ratio', SHARE)}, {value_text(row, 'estimate', metric)} "
                f"within pairs, {value_text(row, 'reference', metric)} between seeds"
            )
    if not parts:
        reason = next((row["note"] for row in rows.values() if row is not None and row["note"]), "nothing to compare")
        return Sentence(f"How much {attribute} changes was not measured: {reason}.", "missing", CHANGES)
    text = (f"Changing {attribute} alone, with the same noise, changes a part of what another seed changes "
            "(0: nothing, 1: everything):")  # fmt: skip
    return Sentence(text, "finding", CHANGES, tuple(parts))


def _recognition_sentence(records: list[dict[Hashable, Any]], attribute: str) -> Sentence:
    """The share of images in which the changed attribute is read as requested, by level, beside real images."""
    rows = [row for row in records if row["metric"] == "read_as_asked" and row["field"] == f"attr.{attribute}"
            and row["group"] != "*"]  # fmt: skip
    finite = [row for row in rows if is_finite(row["estimate"])]
    if not finite:
        reason = next((row["note"] for row in rows if row["note"]), "no classifier read it")
        return Sentence(f"Whether {attribute} shows as asked was not measured: {reason}.", "missing", SHOWS)
    parts, low = [], []
    for row in finite:
        real = f"; of real images {value_text(row, 'reference', SHARE)}" if is_finite(row["reference"]) else ""
        parts.append(f"{row['group']}: {value_text(row, 'estimate', SHARE)}{real}")
        if real and row["ci_high"] < row["reference_low"]:
            low.append(str(row["group"]))
    text = f"Share of images in which {attribute} is read as asked:"
    if low:
        text = f"{attribute} is read as asked less often than in real images for {listing(low)}:"
    return Sentence(text, "caution" if low else "finding", SHOWS, tuple(parts))


def _flip_sentence(row: MetricRow, name: str, attribute: str) -> Sentence:
    """The share of pairs in which one field flips, compared with the share between seeds."""
    if not is_finite(row["estimate"]):
        return Sentence(f"Flips of {name} were not measured: {row['note']}.", "missing", FLIPS)
    text = f"Changing {attribute} changes what is read as {name} in {value_text(row, 'estimate', SHARE)} of pairs"
    if not is_finite(row["reference"]):
        return Sentence(f"{text}; there is no reference to compare it with.", "finding", FLIPS)
    text = f"{text}; another seed with the same request does in {value_text(row, 'reference', SHARE)}"
    if row["ci_low"] > row["reference_high"]:
        return Sentence(f"{text}. That is more than noise and the classifier's errors explain.", "caution", FLIPS)
    if row["ci_high"] < row["reference_low"]:
        return Sentence(f"{text}. Changing the attribute changes less than changing the seed.", "finding", FLIPS)
    return Sentence(f"{text}. The two cannot be told apart.", "chance", FLIPS)
