"""The plane of a comparison: overall distance across, gap upwards, a line over guidance for each mechanism."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from equigen.report.comparison.view import RECONSTRUCTION, View, at, bounds
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

_WORDS = {"common": "common", "calibrated": "calibrated", RECONSTRUCTION: ""}  # beside open marks


@dataclass(frozen=True)
class Point:
    """One mechanism at one guidance; ``across`` and ``up`` are (value, low, high), unscaled; ends may be NaN."""

    mechanism: str
    guidance: str
    across: tuple[float, float, float]
    up: tuple[float, float, float]


def plane_picture(view: View, attribute: str) -> Picture | None:
    """The plane of one attribute; None where no mechanism has both numbers."""
    points = [point for name in view.mechanisms for guidance in view.guidances
              if (point := _point(view, attribute, name, guidance)) is not None]
    if not points:
        return None
    alone = _of_rows(RECONSTRUCTION, RECONSTRUCTION, view.alone("*", "overall"), view.alone(attribute, "gap"))
    points += [alone] if alone is not None else []
    slug = f"plane-{view.slug}-{view.attributes.index(attribute)}"
    svg = plane(points, run_styles([*view.mechanisms, RECONSTRUCTION]), scale=view.words.scale,
                alt=_alt(points, view, attribute), slug=slug,
                axes=(f"overall {view.unit}", f"gap by {attribute}, {view.unit}"))
    return Picture(svg, f"Overall {view.unit} and its gap by {attribute}")


def _point(view: View, attribute: str, mechanism: str, guidance: str) -> Point | None:
    rows = view.row(mechanism, guidance, "*", "overall"), view.row(mechanism, guidance, attribute, "gap")
    return _of_rows(mechanism, guidance, *rows)


def _of_rows(mechanism: str, guidance: str, *rows: Any | None) -> Point | None:
    """The point of an overall row and one of a gap; None where one has no number."""
    first, second = ((row["estimate"], *bounds(row)) if row is not None else (float("nan"),) * 3 for row in rows)
    return Point(mechanism, guidance, first, second) if is_finite(first[0]) and is_finite(second[0]) else None


def plane(
    points: list[Point], styles: dict[str, LineStyle], *, axes: tuple[str, str], scale: float, alt: str, slug: str
) -> str:
    """Points with their intervals as inline SVG; those at numbers are joined in the order given.

    The guidance stands beside each point. Values are multiplied by ``scale``.
    """
    names = list(dict.fromkeys(point.mechanism for point in points))
    top = legend_height(names)
    total = top + 3.3
    with page_figure(total) as figure:
        entries = [(name, {"color": look.color, "marker": look.marker,
                           "markerfacecolor": look.color if look.filled else "white"})
                   for name, look in styles.items() if name in names]  # fmt: skip
        add_legend(figure, entries, total)
        area = figure.add_axes((0.8 / WIDTH, 0.5 / total, 1 - 1.03 / WIDTH, 2.7 / total))
        for name in names:
            _line(area, [point for point in points if point.mechanism == name], styles[name], scale)
        area.axhline(0.0, color=INK, linewidth=0.8, zorder=1)
        area.grid(color=RULE, linewidth=0.7)
        area.set_xlabel(axes[0])
        area.set_ylabel(axes[1])
        area.tick_params(labelsize=8)
        return svg_text(figure, alt, slug)


def _line(area: Any, points: list[Point], look: LineStyle, scale: float) -> None:
    joined = [point for point in points if point.guidance not in _WORDS]
    area.plot([p.across[0] * scale for p in joined], [p.up[0] * scale for p in joined], color=look.color,
              linestyle=look.dash, linewidth=1.2, zorder=3)  # fmt: skip
    for point in points:
        x, y = point.across[0] * scale, point.up[0] * scale
        area.plot([x], [y], linestyle="none", marker=look.marker, markersize=5, color=look.color, zorder=4,
                  markerfacecolor="white" if point.guidance in _WORDS else look.color)  # fmt: skip
        area.annotate(_WORDS.get(point.guidance, point.guidance), (x, y), xytext=(4, 3), fontsize=7,
                      textcoords="offset points", color=look.color)  # fmt: skip
        if all(map(is_finite, point.across)):
            area.hlines(y, point.across[1] * scale, point.across[2] * scale, color=look.color, linewidth=0.8,
                        alpha=0.45, zorder=2)  # fmt: skip
        if all(map(is_finite, point.up)):
            area.vlines(x, point.up[1] * scale, point.up[2] * scale, color=look.color, linewidth=0.8, alpha=0.45,
                        zorder=2)  # fmt: skip


def _alt(points: list[Point], view: View, attribute: str) -> str:
    names = [p.mechanism if p.mechanism == RECONSTRUCTION else f"{p.mechanism} {at(p.guidance)}" for p in points]
    told = [f"{name}: overall {estimate_text(*p.across, view.words)}, gap {estimate_text(*p.up, view.words)}"
            for name, p in zip(names, points, strict=True)]
    return f"Overall {view.unit} across, gap by {attribute} upwards. {'; '.join(told)}. The table holds the same."
