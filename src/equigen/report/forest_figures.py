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
    """``by sex``, or ``of the whole set`` for ``*``."""
    return "of the whole set" if attribute == "*" else f"by {attribute}"


def direction_text(metric: Metric) -> str:
    """Sentences on which direction of a metric is better and on the scale of the numbers shown."""
    way = {"lower": "Lower is better.", "higher": "Higher is better.", "": ""}[metric.better]
    return f"{way} Values are shown x 1000.".strip() if metric.scale == 1000 else way


def axis_name(metric: Metric) -> str:
    """The metric's short name as an axis shows it."""
    return f"{metric.short} x 1000" if metric.scale == 1000 else metric.short


def plot_attributes(rows: pd.DataFrame) -> list[str]:
    """The attributes to draw: all but ``*``, which is drawn alone only where there is no other."""
    return attribute_names(rows) or ["*"]


def group_picture(
    rows: pd.DataFrame,
    column: str,
    attribute: str,
    *,
    metric: Metric,
    slug: str,
    caption: str,
    limits: tuple[float, float] | None = None,
) -> Picture:
    """A forest plot of one attribute: the whole set, its groups, and its gap; a mark per run in ``column``."""
    overall = rows[(rows["attribute"] == "*") & (rows["group"] == "*")]
    groups = rows[rows["attribute"] == attribute]
    marks = [_mark(row, column, WHOLE_SET) for row in overall.to_dict("records")]
    marks += [_mark(row, column, str(row["group"])) for row in groups[is_group(groups)].to_dict("records")]
    gaps = [_mark(row, column, "gap") for row in groups[groups["group"] == "gap"].to_dict("records")]
    names = unique_values(rows[column])
    way = {"lower": ", lower is better", "higher": ", higher is better", "": ""}[metric.better]
    svg = forest_plot(
        marks,
        [mark for mark in gaps if is_finite(mark.estimate)],
        axis=axis_name(metric) + way,
        scale=metric.scale,
        alt=alt_text(marks, metric, caption),
        slug=slug,
        series=names,
        styles=run_styles(names),
        limits=limits,
        floor=floor_name(metric),
    )
    return Picture(svg, f"{metric.short} {caption}")


def group_pictures(rows: pd.DataFrame, metric: Metric, slug: str) -> list[Picture]:
    """One forest plot for each attribute of a quality table's rows."""
    return [
        group_picture(
            rows, "run", attribute, metric=metric, slug=f"{slug}-{index}", caption=attribute_phrase(attribute)
        )
        for index, attribute in enumerate(plot_attributes(rows))
    ]


def _mark(row: Mapping[Hashable, Any], column: str, label: str) -> Mark:
    """A row of a quality or fairness table as a mark; columns that it lacks become NaN."""
    columns = ("estimate", "ci_low", "ci_high", "floor", "null_low", "null_high")
    estimate, low, high, floor, null_low, null_high = (float(row.get(name, float("nan"))) for name in columns)
    remark = "too small" if "small" in str(row["note"]) else "not evaluated"
    return Mark(label, str(row[column]), estimate, low, high, floor, null_low, null_high, remark)


def alt_text(marks: list[Mark], metric: Metric, caption: str) -> str:
    """The text alternative of a figure: every estimate with its interval."""
    texts = [
        f"{mark.series}, {mark.row}: {estimate_text(mark.estimate, mark.low, mark.high, metric)}"
        for mark in marks
        if is_finite(mark.estimate)
    ]
    return f"Forest plot of {metric.title} {caption}. {'; '.join(texts)}. The table below holds the same numbers."
