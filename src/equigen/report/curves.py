"""Curves over training time: losses and mechanism values per group, counted in images seen."""

from __future__ import annotations

import numpy as np
import pandas as pd

from equigen.report.figures import RULE, WIDTH, LineStyle, add_legend, legend_height, page_figure, svg_text

MAX_POINTS = 200


def average_points(x: np.ndarray, y: np.ndarray, limit: int = MAX_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most ``limit`` points: means of x and y over runs of neighbouring points of equal length."""
    if len(x) <= limit:
        return x, y
    chunks = np.array_split(np.arange(len(x)), limit)
    return np.array([x[chunk].mean() for chunk in chunks]), np.array([y[chunk].mean() for chunk in chunks])


def curve_figure(
    lines: dict[str, pd.DataFrame],
    styles: dict[str, LineStyle],
    *,
    axis: str,
    alt: str,
    slug: str,
    limits: tuple[float, float] | None = None,
) -> str:
    """Lines over images seen as inline SVG.

    ``lines`` maps a name to a frame with ``images_seen`` and ``value`` (unknown values are left out);
    ``limits`` are the ends of the vertical axis, shared between figures that are to be compared.
    """
    top = legend_height(list(lines))
    total = top + 2.35
    with page_figure(total) as figure:
        entries = [
            (name, {"color": styles[name].color, "linestyle": styles[name].dash, "linewidth": 1.6}) for name in lines
        ]
        add_legend(figure, entries, total)
        axes = figure.add_axes((0.8 / WIDTH, 0.5 / total, 1 - 0.98 / WIDTH, 1.75 / total))
        for name, frame in lines.items():
            ordered = frame.dropna(subset=["value"]).sort_values("images_seen", kind="stable")
            x, y = average_points(ordered["images_seen"].to_numpy(float), ordered["value"].to_numpy(float))
            marker = styles[name].marker if len(x) < 12 else None
            axes.plot(
                x,
                y,
                color=styles[name].color,
                linestyle=styles[name].dash,
                linewidth=1.4,
                marker=marker,
                markersize=3.5,
            )
        if limits is not None:
            axes.set_ylim(*limits)
        axes.grid(color=RULE, linewidth=0.7)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:,.4g}k" if value else "0")
        axes.set_xlabel("images seen")
        axes.set_ylabel(axis)
        axes.tick_params(labelsize=8)
        return svg_text(figure, alt, slug)


def axis_limits(frames: list[pd.DataFrame], early: float = 0.0) -> tuple[float, float] | None:
    """Ends of an axis for the finite values after the first ``early`` share of training; None without any."""
    frames = [frame[frame["images_seen"] >= early * frame["images_seen"].max()] for frame in frames]
    values = np.concatenate([frame["value"].to_numpy(float) for frame in frames]) if frames else np.array([])
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.05
    return low - margin, high + margin
