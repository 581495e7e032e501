"""Convergence of training in a comparison: the learning curve, and a test of its last part.

Convergence is tested as equivalence (Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15:657, 1987): over
at least the last quarter of the images, the improvement must be shown to be less than a margin. An interval that merely
contains 0 is not enough, since every short or noisy comparison would count as converged.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from equigen.report.comparison.sections import quantity_name
from equigen.report.comparison.view import DERIVED, GAPS, RECONSTRUCTION, unit_name
from equigen.report.figures import curve_figure, run_styles
from equigen.report.layout import Block, Picture, Section, Sentence
from equigen.report.metrics import Metric, difference_text, is_finite, listing, lookup_metric, number

LAST = 0.25  # share of all images, at the end of training, over which the improvement is judged, at least
MARGIN = 0.05  # share of the value before that part; an improvement shown to be smaller counts as none
TITLE = "Has training converged?"
RULE = (
    f" Training counts as having stopped improving where what at least its last {100 * LAST:.0f} % of images brought, "
    f"overall, is shown to be less than {100 * MARGIN:.0f} %: the 95 % interval over seeds and patients stays below."
)
CHANGE_COLUMNS = ["setting", "images_seen", "end", "attribute", "figure", "estimate", "estimate_end", "change",
                  "change_low", "change_high", "seeds"]  # fmt: skip


def curve_section(
    curve: pd.DataFrame | None, change: pd.DataFrame | None, name: str, reconstruction: pd.DataFrame | None = None
) -> Section:
    """Quality over images seen, one line for each training seed, and the change over the last part of training.

    ``reconstruction``: values of the autoencoder alone, drawn as a horizontal line.
    """
    if curve is None or curve.empty:
        return Section("convergence", TITLE, "", [], "No kept generator was measured on the way.")
    metric, pictures, text = lookup_metric(name), [], []
    rows = curve[curve["figure"].isin(DERIVED)]
    for index, (title, subset) in enumerate(rows.assign(title=_titles(rows)).groupby("title", sort=False)):
        lines = {
            f"seed {seed}": frame.assign(value=frame["estimate"] * metric.scale)
            for seed, frame in subset.groupby("seed", sort=True)
        }
        lines |= _reconstruction_line(subset, reconstruction, metric)
        means = subset.groupby("images_seen")["estimate"].mean().dropna()
        last = "one point is no curve."
        if len(means) >= 2:
            (before, first), (after, second) = list(means.items())[-2:]
            last = (
                f"from {number(first, metric)} at {before:,} images seen to {number(second, metric)} at {after:,} "
                "(mean over seeds)."
            )
        alt = f"{title} over images seen, a line for each of {listing(list(lines))}. {last}"
        svg = curve_figure(lines, run_styles(list(lines)), axis=unit_name(metric), alt=alt, slug=f"c{index}")
        pictures.append(Picture(svg, str(title)))
        text.append(f"{title}: {last}")
    if change is not None and not change.empty:
        last_rows = _last_part(change[change["figure"].isin(DERIVED)])
        titled = zip(_titles(last_rows), last_rows.to_dict("records"), strict=True)
        text = [f"{title}: {_change_text(row, metric)}" for title, row in titled if is_finite(row["change"])]
    intro = (
        f"Generators that were kept on the way, measured like the others ({unit_name(metric)}). Where the last points "
        "still fall, more training would change the comparison." + (RULE if change is not None else "")
    )
    return Section("convergence", TITLE, intro, [Block("", text, pictures)], "")


def _reconstruction_line(
    curve: pd.DataFrame, reconstruction: pd.DataFrame | None, metric: Metric
) -> dict[str, pd.DataFrame]:
    """A horizontal line at the autoencoder's value of a curve's quantity, if there is one."""
    if reconstruction is None:
        return {}
    keys = ["figure", *(name for name in ("attribute", "setting") if name in curve)]
    rows = reconstruction[reconstruction["metric"] == metric.name].merge(curve[keys].drop_duplicates(), on=keys)
    if len(rows) != 1 or not is_finite(rows["estimate"].iloc[0]):
        return {}
    ends = [curve["images_seen"].min(), curve["images_seen"].max()]
    value = rows["estimate"].iloc[0] * metric.scale
    return {RECONSTRUCTION: pd.DataFrame({"images_seen": ends, "value": value})}


def convergence_sentences(change: pd.DataFrame | None, name: str) -> list[Sentence]:
    """A sentence for each setting: whether overall quality had stopped improving; none without a table.

    The interval of the improvement is compared with 0 and with ``MARGIN``.
    """
    if change is None:
        return []
    metric = lookup_metric(name)
    rows = _last_part(change[change["figure"] == "overall"]).to_dict("records")
    several = len({str(row["setting"]) for row in rows}) > 1
    sentences = []
    for row in rows:
        topic = f"{TITLE} Setting {row['setting']}" if several else TITLE
        if not is_finite(row["change"]):
            sentences.append(Sentence("Whether training had stopped improving was not measured.", "missing", topic))
            continue
        low, high = row["change_low"], row["change_high"]
        has_interval = is_finite(low) and is_finite(high)
        if has_interval and metric.better != "higher":
            low, high = -high, -low  # above 0 is an improvement
        tone, text = "note", "Whether training had stopped improving cannot be told from these seeds: "
        if row["images_seen"] > (1 - LAST) * row["end"]:
            text = (
                "Whether training had stopped improving cannot be told, since no generator was kept before its "
                "last quarter: "
            )
        elif int(row["seeds"]) < 2 or not has_interval:
            text = "Whether training had stopped improving cannot be told from one seed: "
        elif high < MARGIN * abs(row["estimate"]):
            text = f"Training had stopped improving (less than {100 * MARGIN:.0f} %): "
        elif low > 0:
            tone = "caution"
            text = (
                "Training was still improving when it ended, so mechanisms are compared on the way, and a part of "
                "a difference may be one of speed: "
            )
        sentences.append(Sentence(text + _change_text(row, metric), tone, topic))
    return sentences


def _change_text(row: Any, metric: Metric) -> str:
    """As ``from 80,000 to 112,000 images seen it went from 260 to 255, a change of -5.00 (-12.0 to 2.00), -2 %``."""
    change = difference_text(row["change"], row["change_low"], row["change_high"], metric)
    gap = row["figure"] in GAPS  # of a gap near 0 any change is a large share
    share = f", {100 * row['change'] / row['estimate']:+.0f} %" if row["estimate"] > 0 and not gap else ""
    return (
        f"from {int(row['images_seen']):,} to {int(row['end']):,} images seen it went from "
        f"{number(row['estimate'], metric)} to {number(row['estimate_end'], metric)}, a change of {change}{share}."
    )


def _last_part(change: pd.DataFrame) -> pd.DataFrame:
    """Of each setting, the rows of the latest point that has at least the last quarter behind it; else of the first."""
    frames = []
    for _, rows in change.groupby("setting", sort=False):
        early = rows[rows["images_seen"] <= (1 - LAST) * rows["end"]]
        start = rows["images_seen"].min() if early.empty else early["images_seen"].max()
        frames.append(rows[rows["images_seen"] == start])
    return pd.concat(frames) if frames else change


def _titles(curve: pd.DataFrame) -> list[str]:
    """The title of each row: its quantity, and its setting where there are several."""
    attributes = curve["attribute"].astype(str) if "attribute" in curve else [""] * len(curve)
    settings = curve["setting"].astype(str).tolist() if "setting" in curve else [""] * len(curve)
    several = len(set(settings)) > 1
    return [
        quantity_name(attribute, str(quantity)).removesuffix(" by ") + (f", setting {setting}" if several else "")
        for attribute, quantity, setting in zip(attributes, curve["figure"], settings, strict=True)
    ]
