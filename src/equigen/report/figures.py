"""Matplotlib to inline SVG, the same bytes for the same numbers; curves over training time."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from io import StringIO
from textwrap import wrap
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

WIDTH = 5.6  # inches; two figures stand beside each other on a wide screen
INK, MUTED, RULE, BAND = "#1c2330", "#5b6472", "#dfe3e8", "#d5d9df"
# Okabe and Ito's colours without yellow, which vanishes on white, and a violet: distinct in colour blindness. The
# lengths of these lists share no factor, so that no two of the first 616 names get the same style.
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7A5195", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h"]
DASHES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))]
REFERENCES = ["real", "reconstruction"]
_STYLE = {
    "svg.hashsalt": "equigen",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.formatter.useoffset": False,
    "text.usetex": False,
    "text.parse_math": False,
}


@dataclass(frozen=True)
class LineStyle:
    """Colour, marker and dash of one run, recipe or group; the marker is open where ``filled`` is False."""

    color: str
    marker: str
    dash: Any
    filled: bool = True


def run_styles(names: list[str]) -> dict[str, LineStyle]:
    """Name -> style: references in grey with open markers, all others in the order of the palette."""
    result, index = {}, 0
    for name in names:
        if name in REFERENCES:
            result[name] = LineStyle("#4a4f57", "s" if name == "real" else "D", ":", filled=False)
        else:
            result[name] = LineStyle(PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)],
                                     DASHES[index % len(DASHES)])  # fmt: skip
            index += 1
    return result


def display_width(text: str) -> int:
    """Columns that text takes on a line: two for each wide character (East Asian Width W or F), else one.

    >>> display_width("男 men")
    6
    """
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def wrap_text(text: str, width: int) -> str:
    """Text broken into lines of at most ``width`` columns, long words included."""
    letters = max(1, width * len(text) // max(display_width(text), 1))
    return "\n".join(wrap(text, min(width, letters), break_long_words=True)) or text


@contextmanager
def page_figure(height: float) -> Iterator[Figure]:
    """A context with a figure of the page's width (``height`` in inches) in the page's style.

    Text stays text in the page's SVG, where the browser chooses a font that has the letters. Matplotlib only measures
    it, so its warnings that its own font lacks a letter are filtered.
    """
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font", category=UserWarning)
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support .* natively")
        figure = Figure(figsize=(WIDTH, height))
        FigureCanvasSVG(figure)
        yield figure


def add_legend(figure: Figure, entries: list[tuple[str, dict[str, Any]]], height: float) -> None:
    """Draw a legend across the top of the figure, in as many columns as the longest name allows."""
    labels = [wrap_text(label, 34) for label, _ in entries]
    handles = [Line2D([], [], **{"linestyle": "none", "markersize": 5, **style}) for _, style in entries]
    figure.legend(
        handles,
        labels,
        loc="upper left",
        bbox_to_anchor=(0.005, 1.0),
        ncols=legend_columns(labels),
        frameon=False,
        borderaxespad=0.2,
        handletextpad=0.5,
        columnspacing=1.2,
        fontsize=8.5,
    )


def legend_columns(labels: list[str]) -> int:
    """The number of legend entries that fit on one line."""
    longest = max((max(map(display_width, label.split("\n"))) for label in labels), default=1)
    return max(1, min(4, int(WIDTH * 14.5) // (longest + 6)))


def legend_height(names: list[str]) -> float:
    """The height in inches of the legend of these names."""
    labels = [wrap_text(name, 34) for name in names]
    columns = np.array_split(np.array([label.count("\n") + 1 for label in labels]), legend_columns(labels))
    return 0.1 + 0.175 * max(int(lines.sum()) for lines in columns)


def svg_text(figure: Figure, alt: str, slug: str) -> str:
    """The figure as an ``<svg>`` element with ``alt`` as its name.

    Identifiers get the prefix ``slug`` so that many figures may share a page; the XML header, the metadata
    and the namespaces' addresses go, which inline SVG in HTML does not need.
    """
    buffer = StringIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"\s+xmlns(:\w+)?=\"[^\"]*\"", "", text)
    text = text.replace("xlink:href", "href")
    text = re.sub(r'\bid="', f'id="{slug}-', text)
    text = re.sub(r'href="#', f'href="#{slug}-', text)
    text = re.sub(r"url\(#", f"url(#{slug}-", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(alt, quote=True)}"', 1)


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
