"""The plane of a comparison: overall quality on x, gap on y, and for each mechanism a line over guidance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from equigen.report.comparison.view import RECONSTRUCTION, View, guidance_phrase, interval_bounds
from equigen.report.figures import (
    INK,
    RULE,
    WIDTH,
    LineStyle,
    add_legend,
    legend_height,
    page_figure,
    run_styles,
    svg_text,
)
from equigen.report.layout import Picture
from equigen.report.rounding import estimate_text, is_finite

_MARK_LABELS = {"common": "common", "calibrated": "calibrated", RECONSTRUCTION: ""}  # their marks are open


@dataclass(frozen=True)
class Point:
    """One mechanism at one guidance; ``overall`` and ``gap`` are (value, low, high), unscaled; ends may be NaN."""

    mechanism: str
    guidance: str
    overall: tuple[float, float, float]
    gap: tuple[float, float, float]


def plane_picture(view: View, attribute: str) -> Picture | None:
    """The plane of one attribute; None where no mechanism has both numbers."""
    keys = [(name, guidance) for name in view.mechanisms for guidance in view.guidances]
    points = [_row_point(*key, view.row(*key, "*", "overall"), view.row(*key, attribute, "gap")) for key in keys]
    if not any(points):
        return None
    points.append(
        _row_point(
            RECONSTRUCTION,
            RECONSTRUCTION,
            view.reconstruction_row("*", "overall"),
            view.reconstruction_row(attribute, "gap"),
        )
    )
    marks = [point for point in points if point is not None]
    texts = []
    for point in marks:
        name = (
            point.mechanism
            if point.mechanism == RECONSTRUCTION
            else f"{point.mechanism} {guidance_phrase(point.guidance)}"
        )
        overall, gap = (estimate_text(*values, view.metric) for values in (point.overall, point.gap))
        texts.append(f"{name}: overall {overall}, gap {gap}")
    alt = f"Overall {view.unit} across, gap by {attribute} upwards. {'; '.join(texts)}. The table holds the same."
    svg = plane(
        marks,
        run_styles([*view.mechanisms, RECONSTRUCTION]),
        scale=view.metric.scale,
        alt=alt,
        slug=f"plane-{view.slug}-{view.attributes.index(attribute)}",
        axes=(f"overall {view.unit}", f"gap by {attribute}, {view.unit}"),
    )
    return Picture(svg, f"Overall {view.unit} and its gap by {attribute}")


def _row_point(mechanism: str, guidance: str, *rows: Any | None) -> Point | None:
    """The point of an overall row and a gap row; None where one has no number."""
    overall, gap = (
        (row["estimate"], *interval_bounds(row)) if row is not None else (float("nan"),) * 3 for row in rows
    )
    return Point(mechanism, guidance, overall, gap) if is_finite(overall[0]) and is_finite(gap[0]) else None


def plane(
    points: list[Point], styles: dict[str, LineStyle], *, axes: tuple[str, str], scale: float, alt: str, slug: str
) -> str:
    """Points with their intervals as inline SVG; points of numeric guidance are joined in their order.

    The guidance stands beside each point. Values are multiplied by ``scale``.
    """
    names = list(dict.fromkeys(point.mechanism for point in points))
    top = legend_height(names)
    total = top + 3.3
    with page_figure(total) as figure:
        entries = [(name, {"color": style.color, "marker": style.marker,
                           "markerfacecolor": style.color if style.filled else "white"})
                   for name, style in styles.items() if name in names]  # fmt: skip
        add_legend(figure, entries, total)
        area = figure.add_axes((0.8 / WIDTH, 0.5 / total, 1 - 1.03 / WIDTH, 2.7 / total))
        for name in names:
            style, curve = styles[name], [point for point in points if point.mechanism == name]
            line = [point for point in curve if point.guidance not in _MARK_LABELS]
            area.plot([p.overall[0] * scale for p in line], [p.gap[0] * scale for p in line], color=style.color,
                      linestyle=style.dash, linewidth=1.2, zorder=3)  # fmt: skip
            for point in curve:
                x, y = point.overall[0] * scale, point.gap[0] * scale
                area.plot([x], [y], linestyle="none", marker=style.marker, markersize=5, color=style.color, zorder=4,
                          markerfacecolor="white" if point.guidance in _MARK_LABELS else style.color)  # fmt: skip
                area.annotate(_MARK_LABELS.get(point.guidance, point.guidance), (x, y), xytext=(4, 3), fontsize=7,
                              textcoords="offset points", color=style.color)  # fmt: skip
                interval_style: dict[str, Any] = {"color": style.color, "linewidth": 0.8, "alpha": 0.45, "zorder": 2}
                if all(map(is_finite, point.overall)):
                    area.hlines(y, point.overall[1] * scale, point.overall[2] * scale, **interval_style)
                if all(map(is_finite, point.gap)):
                    area.vlines(x, point.gap[1] * scale, point.gap[2] * scale, **interval_style)
        area.axhline(0.0, color=INK, linewidth=0.8, zorder=1)
        area.grid(color=RULE, linewidth=0.7)
        area.set_xlabel(axes[0])
        area.set_ylabel(axes[1])
        area.tick_params(labelsize=8)
        return svg_text(figure, alt, slug)
