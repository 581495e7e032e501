"""Forest plots: estimates with intervals for groups and runs; below, the gap and its chance band."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from equigen.report.figures import (
    BAND,
    INK,
    MUTED,
    RULE,
    WIDTH,
    LineStyle,
    add_legend,
    legend_height,
    page_figure,
    run_styles,
    svg_text,
    wrap_text,
)
from equigen.report.findings import attribute_names, is_group
from equigen.report.frames import unique_values
from equigen.report.layout import Picture
from equigen.report.metrics import Metric, estimate_text, floor_name, is_finite
from equigen.report.tables import WHOLE_SET

_LABEL = 1.55  # inches for the groups' names
_LINE = 0.155  # inches for one run of one group


@dataclass(frozen=True)
class Mark:
    """One estimate of one run; all numbers may be NaN, and ``remark`` is shown in place of a missing estimate."""

    row: str
    series: str
    estimate: float
    low: float
    high: float
    floor: float = float("nan")
    null_low: float = float("nan")
    null_high: float = float("nan")
    remark: str = ""


def forest_plot(
    groups: list[Mark],
    gaps: list[Mark],
    *,
    axis: str,
    scale: float,
    alt: str,
    slug: str,
    series: list[str] | None = None,
    styles: dict[str, LineStyle] | None = None,
    floor: str = "floor (real against real)",
    limits: tuple[float, float] | None = None,
    zero: str = "",
) -> str:
    """A forest plot as inline SVG.

    ``groups`` are drawn in the order of their first appearance, ``gaps`` in an axis of their own below with
    the chance band in grey; all values are multiplied by ``scale``. ``series`` gives the order of the runs
    and ``styles`` their styles, so that a run keeps its colour over a whole page; ``floor`` is the label of the
    floor's tick, and ``limits`` are the ends of the groups' axis, before scaling. ``zero`` is the label of a line
    at 0; without it there is none.
    """
    marks = groups + gaps
    names = series or list(dict.fromkeys(mark.series for mark in marks))
    names = [name for name in names if any(mark.series == name for mark in marks)]
    style = styles or run_styles(names)
    rows = list(dict.fromkeys(mark.row for mark in groups))
    entries = [(name, _marker_style(style[name])) for name in names]
    if any(is_finite(mark.floor) for mark in groups):
        entries.append((floor, {"marker": "|", "color": INK, "markersize": 8}))
    if any(is_finite(mark.null_high) for mark in gaps):
        entries.append(("chance band of the gap", {"marker": "s", "color": BAND, "markersize": 8}))
    entries += [(zero, {"marker": "|", "color": INK, "markersize": 11})] if zero else []
    sizes = _Sizes(
        len(rows),
        max((wrap_text(row, 22).count("\n") + 1 for row in rows), default=1),
        len(names),
        len({g.series for g in gaps}),
        legend_height([label for label, _ in entries]),
    )
    with page_figure(sizes.total) as figure:
        add_legend(figure, entries, sizes.total)
        upper = figure.add_axes(sizes.upper())
        shift = {name: (i - (len(names) - 1) / 2) * 0.8 / max(len(names), 2) for i, name in enumerate(names)}
        estimated = {mark.row for mark in groups if is_finite(mark.estimate)}
        heights = [rows.index(mark.row) + (shift[mark.series] if mark.row in estimated else 0.0) for mark in groups]
        _draw_points(upper, groups, heights, style=style, scale=scale)
        upper.hlines([edge - 0.5 for edge in range(1, len(rows))], 0, 1, transform=upper.get_yaxis_transform(),
                     color=RULE, linewidth=0.7, zorder=0)  # fmt: skip
        _format_axes(upper, rows)
        upper.set_xlabel(axis)
        if zero:
            upper.axvline(0.0, color=INK, linewidth=1.0, zorder=1)
        if limits is not None:
            upper.set_xlim(limits[0] * scale, limits[1] * scale)
        if gaps:
            lower = figure.add_axes(sizes.lower())
            _draw_gaps(lower, gaps, names, style, scale)
            lower.set_xlabel(f"gap between groups: {axis.split(',', maxsplit=1)[0]}")
        return svg_text(figure, alt, slug)


@dataclass(frozen=True)
class _Sizes:
    """Layout of a forest plot: heights in inches, boxes of the axes in figure fractions."""

    rows: int
    lines: int
    names: int
    gaps: int
    legend: float

    @property
    def groups(self) -> float:
        return self.rows * max(self.names * _LINE + 0.1, self.lines * 0.15 + 0.08)

    @property
    def gap(self) -> float:
        return self.gaps * 0.2 + 0.1 if self.gaps else 0.0

    @property
    def total(self) -> float:
        return self.legend + 0.05 + self.groups + 0.46 + (self.gap + 0.5 if self.gaps else 0.0)

    def upper(self) -> tuple[float, float, float, float]:
        bottom = self.total - self.legend - 0.05 - self.groups
        return _LABEL / WIDTH, bottom / self.total, 1 - (_LABEL + 0.12) / WIDTH, self.groups / self.total

    def lower(self) -> tuple[float, float, float, float]:
        return _LABEL / WIDTH, 0.46 / self.total, 1 - (_LABEL + 0.12) / WIDTH, self.gap / self.total


def _marker_style(style: LineStyle) -> dict[str, Any]:
    """Matplotlib's keywords for the marker of a style."""
    face = style.color if style.filled else "white"
    return {"marker": style.marker, "color": style.color, "markerfacecolor": face}


def _draw_points(
    axes: Any, marks: list[Mark], heights: list[float], *, style: dict[str, LineStyle], scale: float
) -> None:
    """Draw estimates and intervals run by run, floors, and one remark at each height without an estimate."""
    points = [(mark, y) for mark, y in zip(marks, heights, strict=True) if is_finite(mark.estimate)]
    for name in dict.fromkeys(mark.series for mark, _ in points):
        series = [(mark, y) for mark, y in points if mark.series == name]
        bars = [(mark, y) for mark, y in series if is_finite(mark.low) and is_finite(mark.high)]
        lows, highs = [mark.low * scale for mark, _ in bars], [mark.high * scale for mark, _ in bars]
        axes.hlines([y for _, y in bars], lows, highs, color=style[name].color, linewidth=1.6, zorder=3)
        axes.plot([mark.estimate * scale for mark, _ in series], [y for _, y in series], linestyle="none",
                  markersize=5, zorder=4, **_marker_style(style[name]))  # fmt: skip
    floors = [(mark.floor * scale, y) for mark, y in points if is_finite(mark.floor)]
    axes.plot([x for x, _ in floors], [y for _, y in floors], "|", color=INK, markersize=8,
              markeredgewidth=1.3, zorder=2)  # fmt: skip
    remarks = {y: mark.remark for mark, y in zip(marks, heights, strict=True) if not is_finite(mark.estimate)}
    for y, remark in remarks.items():
        axes.text(0.01, y, remark, transform=axes.get_yaxis_transform(), color=MUTED, fontsize=7.5,
                  style="italic", verticalalignment="center")  # fmt: skip


def _draw_gaps(axes: Any, marks: list[Mark], names: list[str], style: dict[str, LineStyle], scale: float) -> None:
    """Draw the gap of each run over its null band."""
    present = [name for name in names if any(mark.series == name for mark in marks)]
    heights = [float(present.index(mark.series)) for mark in marks]
    bands = [(mark, y) for mark, y in zip(marks, heights, strict=True) if is_finite(mark.null_high)]
    lows = [mark.null_low if is_finite(mark.null_low) else 0.0 for mark, _ in bands]
    widths = [(mark.null_high - low) * scale for (mark, _), low in zip(bands, lows, strict=True)]
    axes.barh([y for _, y in bands], widths, left=[low * scale for low in lows], height=0.8, color=BAND, zorder=1)
    _draw_points(axes, marks, heights, style=style, scale=scale)
    axes.set_xlim(left=0)
    _format_axes(axes, present, lines=1)


def _format_axes(axes: Any, labels: list[str], lines: int | None = None) -> None:
    """Label the rows from top to bottom (with at most ``lines`` lines each) and draw the vertical grid."""
    texts = ["\n".join(wrap_text(label, 22).split("\n")[:lines]) for label in labels]
    axes.set_yticks(range(len(labels)), texts, multialignment="right")
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.margins(x=0.04)


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
