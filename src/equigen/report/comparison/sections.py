"""The sections of a comparison's page: planes, differences, tables, each seed."""

from __future__ import annotations

from typing import Any

import pandas as pd

from equigen.report.comparison.plane import plane_picture
from equigen.report.comparison.view import GAPS, MEANS, RECONSTRUCTION, UNSAID, View, at, bounds, judged
from equigen.report.figures import run_styles
from equigen.report.forest import Mark, forest_plot
from equigen.report.forest_figures import alt_text
from equigen.report.layout import Block, Cell, Picture, Row, Section, Table
from equigen.report.metrics import lookup_metric
from equigen.report.rounding import ABSENT, interval, is_finite, number, p_text

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
    if any(view.reconstruction for view in parts):
        intro += (" The grey diamond is the autoencoder alone (held-out images through it and back): about where "
                  "perfect training of the diffusion model would lead.")
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
    styles = {name: look for name, look in run_styles(view.mechanisms).items() if name in names}
    svg = forest_plot(marks, [], axis=f"difference in {view.unit}{way}", scale=view.words.scale, series=names,
                      styles=styles, alt=alt_text(marks, view.words, f"difference, {title}"),
                      slug=f"d-{view.slug}-{index}", zero="0: no difference")
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
    if any(view.reconstruction for view in parts):
        intro += (" Last, held-out images through the autoencoder and back, with the interval over patients: about "
                  "where perfect training of the diffusion model would lead.")
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
                    cells += ([_value(row, view)] if gaps else []) + _compared(row, view, bool(gaps))
                rows.append(Row(at(guidance).removeprefix("at ").removeprefix("with "), cells))
    rows += _alone(view, attribute, figures, gaps)
    by = f" by {attribute}" if attribute != "*" else ""
    head = ["guidance", *(figure if figure != "worst" else "worst group" for figure in figures)]
    for figure in gaps or ["overall"]:
        own = figure.replace("_", " ")
        head += [own, "chance gap"] if gaps else []
        head += [f"{own}, difference to {reference}", "p (Holm)", "verdict"]
    return Table(f"{view.unit[0].upper()}{view.unit[1:]}{by}", head, rows)


def _alone(view: View, attribute: str, figures: list[str], gaps: list[str]) -> list[Row]:
    """What held-out images through the autoencoder and back have in the columns of a mechanism."""
    found = [view.alone(attribute, figure) for figure in figures]
    if all(row is None for row in found):
        return []
    cells = [_value(row, view) for row in found]
    for row in [view.alone(attribute, figure) for figure in gaps] or [None]:
        chance = number(None if row is None else row["null_gap"], view.words)
        cells += [*([_value(row, view), Cell(chance)] if gaps else []), *[Cell(ABSENT)] * 3]
    return [Row(RECONSTRUCTION, kind="attribute"), Row("of held-out images", cells)]


def _value(row: Any | None, view: View) -> Cell:
    if row is None or not is_finite(row["estimate"]):
        note = "" if row is None else str(row["note"]).split(";")[0]
        return Cell(ABSENT, note, "missing")
    return Cell(number(row["estimate"], view.words), interval(*bounds(row), view.words))


def _compared(row: Any | None, view: View, gap: bool) -> list[Cell]:
    """Chance gap (of a gap), difference, p and verdict of a row."""
    if row is None:
        return [Cell(ABSENT)] * (3 + gap)
    chance = [Cell(number(row["null_gap"], view.words))] if gap else []
    if not is_finite(row["difference"]):
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
        words = lookup_metric(str(name))
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
            words = lookup_metric(str(part["metric"].iloc[0]))
            values = {str(seed): value for seed, value in zip(part["seed"], part["estimate"], strict=True)}
            cells = [Cell(number(values.get(seed), words)) for seed in numbers]
            result.append(Row(figure_name(str(attribute), str(figure)), cells))
    return result
