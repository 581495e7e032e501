"""Had training stopped improving when a comparison compared it? The curve, and what its last part brought.

No training ever stops for certain, so the question is put as one of equivalence (Schuirmann, Journal of
Pharmacokinetics and Biopharmaceutics 15:657, 1987): over at least the last quarter of the images, is the improvement
shown to be less than a margin? An interval that merely holds 0 would call every short or noisy comparison converged.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from equigen.report.comparison.sections import figure_name
from equigen.report.comparison.view import DERIVED, GAPS, RECONSTRUCTION, unit_name
from equigen.report.curves import curve_figure
from equigen.report.figures import run_styles
from equigen.report.layout import Block, Picture, Section, Sentence
from equigen.report.metrics import Metric, lookup_metric
from equigen.report.rounding import difference_text, is_finite, listing, number

LAST = 0.25    # of all images: the part of a training whose improvement is judged, at least
MARGIN = 0.05  # of the value before that part: an improvement that is shown to be less counts as none
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
    """Quality over images seen, a line a training seed, and in words what the last part brought.

    ``reconstruction``: what the autoencoder alone costs, a line across.
    """
    if curve is None or curve.empty:
        return Section("convergence", TITLE, "", [], "No kept generator was measured on the way.")
    shown = curve[curve["figure"].isin(DERIVED)]
    words, pictures, text = lookup_metric(name), [], []
    for index, (title, own) in enumerate(shown.assign(title=_titles(shown)).groupby("title", sort=False)):
        lines = {f"seed {seed}": part.assign(value=part["estimate"] * words.scale)
                 for seed, part in own.groupby("seed", sort=True)}
        lines |= _level(own, reconstruction, words)
        last = _last_step(own, words)
        alt = f"{title} over images seen, a line for each of {listing(list(lines))}. {last}"
        svg = curve_figure(lines, run_styles(list(lines)), axis=unit_name(words), alt=alt, slug=f"c{index}")
        pictures.append(Picture(svg, str(title)))
        text.append(f"{title}: {last}")
    if change is not None and not change.empty:
        part = _last_part(change[change["figure"].isin(DERIVED)])
        rows = zip(_titles(part), part.to_dict("records"), strict=True)
        text = [f"{title}: {_brought(row, words)}" for title, row in rows if is_finite(row["change"])]
    intro = (
        f"Generators that were kept on the way, measured like the others ({unit_name(words)}). Where the last points "
        "still fall, more training would change the comparison." + (RULE if change is not None else "")
    )
    return Section("convergence", TITLE, intro, [Block("", text, pictures)], "")


def _level(own: pd.DataFrame, reconstruction: pd.DataFrame | None, words: Metric) -> dict[str, pd.DataFrame]:
    """A line across at the autoencoder's own value of a curve's figure, if there is one."""
    if reconstruction is None:
        return {}
    keys = ["figure", *(name for name in ("attribute", "setting") if name in own)]
    here = reconstruction[reconstruction["metric"] == words.name].merge(own[keys].drop_duplicates(), on=keys)
    if len(here) != 1 or not is_finite(here["estimate"].iloc[0]):
        return {}
    ends = [own["images_seen"].min(), own["images_seen"].max()]
    value = here["estimate"].iloc[0] * words.scale
    return {RECONSTRUCTION: pd.DataFrame({"images_seen": ends, "value": value})}


def convergence_sentences(change: pd.DataFrame | None, name: str) -> list[Sentence]:
    """The verdict on the whole set, for each setting; none without a table."""
    if change is None:
        return []
    whole = _last_part(change[change["figure"] == "overall"])
    settings = whole["setting"].astype(str).tolist()
    rows = zip(settings, whole.to_dict("records"), strict=True)
    several = len(set(settings)) > 1
    topics = ((f"{TITLE} Setting {setting}" if several else TITLE, row) for setting, row in rows)
    return [_sentence(row, lookup_metric(name), topic) for topic, row in topics]


def _sentence(row: Any, words: Metric, topic: str) -> Sentence:
    tone, said = _verdict(row, words)
    text = {
        "stopped": f"Training had stopped improving (less than {100 * MARGIN:.0f} %): ",
        "improving": "Training was still improving when it ended, so mechanisms are compared on the way, and a part "
        "of a difference may be one of speed: ",
        "open": "Whether training had stopped improving cannot be told from these seeds: ",
        "alone": "Whether training had stopped improving cannot be told from one seed: ",
        "short": "Whether training had stopped improving cannot be told, since no generator was kept before its last "
        "quarter: ",
        "missing": "Whether training had stopped improving was not measured.",
    }[said]
    return Sentence(text + ("" if said == "missing" else _brought(row, words)), tone, topic)


def _verdict(row: Any, words: Metric) -> tuple[str, str]:
    """Tone and kind, by the interval of the improvement against 0 and the margin."""
    if not is_finite(row["change"]):
        return "missing", "missing"
    low, high = row["change_low"], row["change_high"]
    if row["images_seen"] > (1 - LAST) * row["end"]:
        return "note", "short"
    if int(row["seeds"]) < 2 or not (is_finite(low) and is_finite(high)):
        return "note", "alone"
    if words.better != "higher":
        low, high = -high, -low
    if high < MARGIN * abs(row["estimate"]):
        return "note", "stopped"
    return ("caution", "improving") if low > 0 else ("note", "open")


def _brought(row: Any, words: Metric) -> str:
    """As ``from 80,000 to 112,000 images seen it went from 260 to 255, a change of -5.00 (-12.0 to 2.00), -2 %``."""
    change = difference_text(row["change"], row["change_low"], row["change_high"], words)
    gap = row["figure"] in GAPS  # of a gap near 0 any change is a large share
    share = f", {100 * row['change'] / row['estimate']:+.0f} %" if row["estimate"] > 0 and not gap else ""
    seen = f"from {int(row['images_seen']):,} to {int(row['end']):,} images seen"
    return (f"{seen} it went from {number(row['estimate'], words)} to {number(row['estimate_end'], words)}, a change "
            f"of {change}{share}.")


def _last_part(change: pd.DataFrame) -> pd.DataFrame:
    """Of each setting, the rows of the latest point that has at least the last quarter behind it; else of the first."""
    found = []
    for _, own in change.groupby("setting", sort=False):
        early = own[own["images_seen"] <= (1 - LAST) * own["end"]]
        place = own["images_seen"].min() if early.empty else early["images_seen"].max()
        found.append(own[own["images_seen"] == place])
    return pd.concat(found) if found else change


def _titles(curve: pd.DataFrame) -> list[str]:
    places = curve["attribute"].astype(str) if "attribute" in curve else [""] * len(curve)
    settings = curve["setting"].astype(str).tolist() if "setting" in curve else [""] * len(curve)
    several = len(set(settings)) > 1
    return [figure_name(place, str(figure)).removesuffix(" by ") + (f", setting {setting}" if several else "")
            for place, figure, setting in zip(places, curve["figure"], settings, strict=True)]


def _last_step(own: pd.DataFrame, words: Metric) -> str:
    """The mean over seeds at the last two points, in words."""
    means = own.groupby("images_seen")["estimate"].mean().dropna()
    if len(means) < 2:
        return "one point is no curve."
    (before, first), (after, last) = list(means.items())[-2:]
    ends = number(first, words), number(last, words)
    return f"from {ends[0]} at {before:,} images seen to {ends[1]} at {after:,} (mean over seeds)."
