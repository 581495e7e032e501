"""Forest plots of the tables' rows: the whole set, the groups of one attribute, and their gap."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from equigen.report.figures import run_styles
from equigen.report.findings import attribute_names, is_group
from equigen.report.forest import Mark, forest_plot
from equigen.report.frames import unique_values
from equigen.report.layout import Picture
from equigen.report.metrics import Metric, floor_name
from equigen.report.rounding import estimate_text, is_finite
from equigen.report.tables import WHOLE_SET


def attribute_phrase(attribute: str) -> str:
    """``by sex``."""
    return "of the whole set" if attribute == "*" else f"by {attribute}"


def direction_text(words: Metric) -> str:
    """Which way is better, and how the values are shown."""
    way = {"lower": "Lower is better.", "higher": "Higher is better.", "": ""}[words.better]
    return f"{way} Values are shown x 1000.".strip() if words.scale == 1000 else way


def axis_name(words: Metric) -> str:
    """The metric's short name as an axis shows it."""
    return f"{words.short} x 1000" if words.scale == 1000 else words.short


def plot_attributes(rows: pd.DataFrame) -> list[str]:
    """The attributes to draw: all but the whole set, which stands alone only where there is no other."""
    return attribute_names(rows) or ["*"]


def group_picture(
    rows: pd.DataFrame,
    column: str,
    attribute: str,
    *,
    words: Metric,
    slug: str,
    caption: str,
    limits: tuple[float, float] | None = None,
) -> Picture:
    """A forest plot of one attribute: the whole set, its groups, and its gap; a mark per run in ``column``."""
    whole = rows[(rows["attribute"] == "*") & (rows["group"] == "*")]
    own = rows[rows["attribute"] == attribute]
    shown = [_mark(row, column, WHOLE_SET) for row in whole.to_dict("records")]
    shown += [_mark(row, column, str(row["group"])) for row in own[is_group(own)].to_dict("records")]
    gaps = [_mark(row, column, "gap") for row in own[own["group"] == "gap"].to_dict("records")]
    gaps = [mark for mark in gaps if is_finite(mark.estimate)]
    names = unique_values(rows[column])
    way = {"lower": ", lower is better", "higher": ", higher is better", "": ""}[words.better]
    svg = forest_plot(
        shown,
        gaps,
        axis=axis_name(words) + way,
        scale=words.scale,
        alt=alt_text(shown, words, caption),
        slug=slug,
        series=names,
        styles=run_styles(names),
        limits=limits,
        floor=floor_name(words),
    )
    return Picture(svg, f"{words.short} {caption}")


def group_pictures(rows: pd.DataFrame, words: Metric, slug: str) -> list[Picture]:
    """One forest plot for each attribute of a quality table's rows."""
    return [
        group_picture(rows, "run", attribute, words=words, slug=f"{slug}-{place}", caption=attribute_phrase(attribute))
        for place, attribute in enumerate(plot_attributes(rows))
    ]


def _mark(row: Mapping[Hashable, Any], column: str, label: str) -> Mark:
    def value(name: str) -> float:
        return float(row.get(name, float("nan")))

    note = str(row["note"])
    remark = "too small" if "small" in note else "not evaluated"
    return Mark(
        label,
        str(row[column]),
        value("estimate"),
        value("ci_low"),
        value("ci_high"),
        value("floor"),
        value("null_low"),
        value("null_high"),
        remark,
    )


def alt_text(marks: list[Mark], words: Metric, caption: str) -> str:
    """The figure in words: every estimate with its interval."""
    said = [
        f"{m.series}, {m.row}: {estimate_text(m.estimate, m.low, m.high, words)}"
        for m in marks
        if is_finite(m.estimate)
    ]
    return (
        f"Forest plot of {words.title} {caption}. "
        + "; ".join(said)
        + ". The table below holds the same numbers."
    )
