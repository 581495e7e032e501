"""Figures of a calibration: excess KD over guidance for each group, and the front between mean and gap."""

from __future__ import annotations

from typing import Any

import pandas as pd

from equigen.report.figures import (
    INK,
    MUTED,
    PALETTE,
    RULE,
    WIDTH,
    add_legend,
    legend_height,
    page_figure,
    run_styles,
    svg_text,
)
from equigen.report.frames import unique_values
from equigen.report.layout import Picture
from equigen.report.metrics import lookup_metric, number

KD = lookup_metric("kd")
MARKS = {"default": ("s", PALETTE[5], "default guidance"), "common": ("D", PALETTE[1], "common guidance"),
         "group": ("o", PALETTE[0], "guidance by group")}  # fmt: skip


def curves_picture(table: pd.DataFrame) -> Picture:
    """Excess KD over guidance: measured points, the curve of each group with its band, and the chosen guidance."""
    curves, points = (table[table["kind"] == kind] for kind in ("curve", "evaluated"))
    choices = table[(table["kind"] == "chosen") & (table["name"] == "group")]
    optima = {row["group"]: row for row in choices.to_dict("records")}
    names = unique_values(curves["group"])
    styles, top = run_styles(names), legend_height([*names, "chosen"])
    with page_figure(top + 2.9) as figure:
        entries: list[tuple[str, dict[str, Any]]] = [
            (name, {"color": styles[name].color, "marker": styles[name].marker, "linestyle": styles[name].dash})
            for name in names
        ]
        star = {"color": INK, "marker": "*", "markersize": 10, "markerfacecolor": "none"}
        add_legend(figure, [*entries, ("chosen", star)], top + 2.9)
        axes = _axes(figure, top)
        for name in names:
            style = styles[name]
            curve, measured = (frame[frame["group"] == name] for frame in (curves, points))
            x = curve["guidance"]
            axes.fill_between(x, curve["low"] * KD.scale, curve["high"] * KD.scale, color=style.color, alpha=0.13, lw=0)
            axes.plot(x, curve["excess"] * KD.scale, color=style.color, linestyle=style.dash, linewidth=1.4)
            axes.plot(measured["guidance"], measured["excess"] * KD.scale, linestyle="none", marker=style.marker,
                      markersize=4, color=style.color)  # fmt: skip
            optimum = optima[name]
            axes.plot([optimum["guidance"]], [optimum["excess"] * KD.scale], marker="*", markersize=12, color=INK,
                      markerfacecolor="none")  # fmt: skip
        axes.set_xlabel("guidance")
        axes.set_ylabel("excess KD x 1000, lower is better")
        texts = [f"{name} at {optima[name]['guidance']:g} with {number(optima[name]['excess'], KD)}" for name in names]
        svg = svg_text(figure, f"Excess KD x 1000 over guidance for each group. Chosen: {'; '.join(texts)}.", "curves")
    return Picture(svg, "Excess KD over guidance. Points were measured; bands are two standard deviations.")


def front_picture(table: pd.DataFrame) -> Picture:
    """Mean of the groups on x, gap on y: the front, all groups at one guidance, and the three choices."""
    front, shared = (_choices(table, kind) for kind in ("front", "shared"))
    choices = _choices(table, "chosen").dropna(subset=["mean"])
    labels = ["front", "one guidance for all", *(MARKS[name][2] for name in choices["name"])]
    top = legend_height(labels)
    with page_figure(top + 2.9) as figure:
        lines: list[tuple[str, dict[str, Any]]] = [
            ("front", {"color": INK, "linestyle": "-", "linewidth": 1.6}),
            ("one guidance for all", {"color": MUTED, "linestyle": "--", "linewidth": 1.3}),
        ]
        entries = lines + [(MARKS[name][2], {"color": MARKS[name][1], "marker": MARKS[name][0]})
                           for name in choices["name"]]  # fmt: skip
        add_legend(figure, entries, top + 2.9)
        axes = _axes(figure, top)
        for frame, (_, style) in zip((front, shared), lines, strict=True):
            axes.plot(frame["mean"] * KD.scale, frame["gap"] * KD.scale, **style)
        axes.plot(front["mean"] * KD.scale, front["gap"] * KD.scale, ".", color=INK, markersize=3)
        for end in (0, -1):
            point = shared.iloc[end]
            axes.annotate(f"{point['guidance']:g}", (point["mean"] * KD.scale, point["gap"] * KD.scale), fontsize=7,
                          color=MUTED, xytext=(3, 3), textcoords="offset points")  # fmt: skip
        for row in choices.to_dict("records"):
            marker, color, _ = MARKS[row["name"]]
            axes.plot([row["mean"] * KD.scale], [row["gap"] * KD.scale], marker=marker, color=color, markersize=7)
        axes.set_xlabel("mean excess KD of the groups x 1000")
        axes.set_ylabel("gap x 1000")
        texts = [f"{MARKS[row['name']][2]}: mean {number(row['mean'], KD)}, gap {number(row['gap'], KD)}"
                 for row in choices.to_dict("records")]  # fmt: skip
        svg = svg_text(figure, f"Mean excess KD across, gap upwards. {'; '.join(texts)}.", "front")
    return Picture(svg, "Left is better, lower is more equal. No choice of guidances lies left of and below the front.")


def _axes(figure: Any, top: float) -> Any:
    """The axes of a figure below a legend of height ``top`` (inches)."""
    total = top + 2.9
    axes = figure.add_axes((0.68 / WIDTH, 0.5 / total, 1 - 0.82 / WIDTH, 2.3 / total))
    axes.grid(color=RULE, linewidth=0.7)
    axes.tick_params(labelsize=8)
    return axes


def _choices(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    """One row for each choice of guidances of a kind: their values over all groups."""
    return table[table["kind"] == kind].drop_duplicates("name", ignore_index=True)
