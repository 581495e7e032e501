"""The sections of a contest's page: planes, differences, tables, each seed, convergence."""

from __future__ import annotations

from typing import Any

import pandas as pd

from equigen.report.contest_plane import plane_picture
from equigen.report.contest_view import DERIVED, GAPS, MEANS, UNSAID, View, at, bounds, judged, unit_name
from equigen.report.curves import curves
from equigen.report.figures import looks
from equigen.report.forest import Mark, forest
from equigen.report.layout import Block, Cell, Picture, Row, Section, Table
from equigen.report.metrics import Metric, metric
from equigen.report.pictures import alt_text
from equigen.report.rounding import ABSENT, interval, known, listing, number, p_text

OPEN = 2  # parts of a page that are shown without a click


def plane_section(parts: list[View]) -> Section:
    """Overall quality against the gap, attribute by attribute."""
    blocks = []
    for place, view in enumerate(parts):
        pictures = [picture for name in view.attributes if (picture := plane_picture(view, name)) is not None]
        if pictures:
            blocks.append(Block(view.title, pictures=pictures, folded=place >= OPEN))
    intro = (
        "Each mark is one mechanism at one guidance (the number beside it), a mean over training seeds. Lower left is "
        "best: close to real images overall, and equally close in all groups. Guidance alone moves a generator over "
        "this plane, so compare curves, not points. Bars are 95 % intervals over seeds and patients; open marks are "
        "guidance found by calibration."
    )
    return Section("plane", "Quality and equity at once", intro, blocks, "No gap was measured.")


def difference_section(parts: list[View], reference: str) -> Section:
    """Forests of paired differences: overall, then worst group and both gaps of each attribute."""
    blocks = []
    for place, view in enumerate(parts):
        asked = [("*", "overall"), *((name, figure) for name in view.attributes for figure in ("worst", *GAPS))]
        pictures = [picture for index, (attribute, figure) in enumerate(asked)
                    if (picture := _forest(view, attribute, figure, index)) is not None]
        if pictures:
            blocks.append(Block(view.title, pictures=pictures, folded=place >= OPEN))
    intro = (
        f"Each mechanism less {reference}, seed by seed, against the same real images and with the same guidance; "
        f"calibrated generators less {reference} at its common guidance. An interval that holds 0 is no evidence of a "
        "difference."
    )
    return Section("differences", f"Differences to {reference}", intro, blocks, "Nothing could be compared.")


def _forest(view: View, attribute: str, figure: str, index: int) -> Picture | None:
    rows = sorted(view.compared(attribute, figure), key=lambda row: view.guidances.index(row["guidance"]))
    if not rows:
        return None
    marks = [Mark(at(row["guidance"]).removeprefix("at ").removeprefix("with "), row["mechanism"], row["difference"],
                  row["difference_low"], row["difference_high"]) for row in rows]
    title = figure_name(attribute, figure)
    less = figure in GAPS or view.words.better == "lower"
    way = ", below 0 is better" if less else ", above 0 is better" if view.words.better else ""
    names = [name for name in view.mechanisms if any(mark.series == name for mark in marks)]
    styles = {name: look for name, look in looks(view.mechanisms).items() if name in names}
    svg = forest(marks, [], axis=f"difference in {view.unit}{way}", scale=view.words.scale, series=names, styles=styles,
                 alt=alt_text(marks, view.words, f"difference, {title}"), slug=f"d-{view.slug}-{index}",
                 zero="0: no difference")
    return Picture(svg, title[0].upper() + title[1:])


def figure_name(attribute: str, figure: str) -> str:
    """``overall``, ``gap by sex``, ``gap of means by sex``, ``worst group by sex``, ``sex female``."""
    names = {"overall": "overall", "gap": f"gap by {attribute}", "worst": f"worst group by {attribute}",
             MEANS: f"gap of means by {attribute}"}
    return names.get(figure, f"{attribute} {figure}")


def table_section(parts: list[View], reference: str) -> Section:
    """All numbers: a table for each attribute of each part."""
    blocks = [Block(view.title, tables=[_table(view, name, reference) for name in view.attributes or ["*"]],
                    folded=place >= OPEN) for place, view in enumerate(parts)]
    intro = "Means over training seeds; the smaller line is the 95 % interval over seeds and patients."
    return Section("table", "All numbers", intro, blocks, "Nothing was measured.")


def _table(view: View, attribute: str, reference: str) -> Table:
    groups = view.groups(attribute) if attribute != "*" else []
    gaps = GAPS if attribute != "*" else []
    figures = ["overall", *groups, *(["worst"] if gaps else [])]
    rows: list[Row] = []
    for name in view.mechanisms:
        rows.append(Row(name, kind="attribute"))
        for guidance in view.guidances:
            found = [view.row(name, guidance, attribute, figure) for figure in figures]
            judged_rows = [view.row(name, guidance, attribute, figure) for figure in gaps] or found[:1]
            if any(row is not None for row in [*found, *judged_rows]):
                cells = [_value(row, view) for row in found]
                for row in judged_rows:
                    cells += ([_value(row, view)] if gaps else []) + _compared(row, view)
                rows.append(Row(at(guidance).removeprefix("at ").removeprefix("with "), cells))
    by = f" by {attribute}" if attribute != "*" else ""
    head = ["guidance", *(figure if figure != "worst" else "worst group" for figure in figures)]
    for figure in gaps or ["overall"]:
        own = figure.replace("_", " ")
        head += [own, "chance gap"] if gaps else []
        head += [f"{own}, difference to {reference}", "p (Holm)", "verdict"]
    return Table(f"{view.unit[0].upper()}{view.unit[1:]}{by}", head, rows)


def _value(row: Any | None, view: View) -> Cell:
    if row is None or not known(row["estimate"]):
        note = "" if row is None else str(row["note"]).split(";")[0]
        return Cell(ABSENT, note, "missing")
    return Cell(number(row["estimate"], view.words), interval(*bounds(row), view.words))


def _compared(row: Any | None, view: View) -> list[Cell]:
    """Chance gap (of a gap), difference, p and verdict of a row."""
    if row is None:
        return []
    chance = [Cell(number(row["null_gap"], view.words))] if row["figure"] in GAPS else []
    if not known(row["difference"]):
        return [*chance, Cell("reference" if not row["reference"] else ABSENT, mark="missing"), Cell(ABSENT),
                Cell(ABSENT)]
    said = judged(row)
    p = p_text(row["p_holm"]).removeprefix("p ").removeprefix("= ") or ABSENT
    change = Cell(view.change(row).split(" (")[0], interval(row["difference_low"], row["difference_high"], view.words))
    return [*chance, change, Cell(p), Cell(said, mark="" if said == UNSAID else "beyond")]


def seeds_section(seeds: pd.DataFrame) -> Section:
    """Every training by itself, folded: one line a figure, one column a seed."""
    blocks = []
    numbers = [str(seed) for seed in sorted(seeds["seed"].unique())]
    keys = ["metric", "setting", "plan"]
    for (name, setting, plan), own in seeds.groupby(keys, sort=False):
        words = metric(str(name))
        chosen = own[own["figure"].isin(["overall", "worst", "gap"])]
        title = f"{words.short}, setting {setting}, plan {plan}"
        table = Table(title, ["figure", *(f"seed {seed}" for seed in numbers)], _seed_rows(chosen, numbers))
        blocks.append(Block(title, tables=[table], folded=True))
    intro = "One number a training: how far they lie apart is what training again would change."
    return Section("seeds", "Each training seed", intro, blocks, "No seed was measured.")


def _seed_rows(rows: pd.DataFrame, numbers: list[str]) -> list[Row]:
    result: list[Row] = []
    for (name, guidance), own in rows.groupby(["mechanism", "guidance"], sort=False):
        result.append(Row(f"{name} {at(str(guidance))}", kind="attribute"))
        for (attribute, figure), part in own.groupby(["attribute", "figure"], sort=False):
            words = metric(str(part["metric"].iloc[0]))
            values = {str(seed): value for seed, value in zip(part["seed"], part["estimate"], strict=True)}
            cells = [Cell(number(values.get(seed), words)) for seed in numbers]
            result.append(Row(figure_name(str(attribute), str(figure)), cells))
    return result


def curve_section(curve: pd.DataFrame | None, name: str) -> Section:
    """Quality over images seen, a line a training seed, to see whether training has converged."""
    if curve is None or curve.empty:
        return Section("convergence", "Has training converged?", "", [], "No kept generator was measured on the way.")
    shown = curve[curve["figure"].isin(DERIVED)]
    words, pictures, text = metric(name), [], []
    for index, (title, own) in enumerate(shown.assign(title=_curve_titles(shown)).groupby("title", sort=False)):
        lines = {f"seed {seed}": part.assign(value=part["estimate"] * words.scale)
                 for seed, part in own.groupby("seed", sort=True)}
        last = _last_step(own, words)
        alt = f"{title} over images seen, a line for each of {listing(list(lines))}. {last}"
        svg = curves(lines, looks(list(lines)), axis=unit_name(words), alt=alt, slug=f"c{index}")
        pictures.append(Picture(svg, str(title)))
        text.append(f"{title}: {last}")
    intro = (
        f"Generators that were kept on the way, measured like the others ({unit_name(words)}). Where the last points "
        "still fall, more training would change the comparison."
    )
    return Section("convergence", "Has training converged?", intro, [Block("", text, pictures)], "")


def _curve_titles(curve: pd.DataFrame) -> list[str]:
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


