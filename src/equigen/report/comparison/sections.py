"""The sections of a comparison's page with its results: planes of quality and gap, differences, tables, each seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from equigen.report.comparison.view import (
    GAPS,
    MEANS,
    NO_EVIDENCE,
    RECONSTRUCTION,
    View,
    guidance_phrase,
    interval_bounds,
    row_verdict,
)
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
from equigen.report.forest import Mark, alt_text, forest_plot
from equigen.report.layout import Block, Cell, Picture, Row, Section, Table
from equigen.report.metrics import ABSENT, estimate_text, interval, is_finite, lookup_metric, number, p_text

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


OPEN = 2  # number of views that are shown unfolded


def plane_section(views: list[View]) -> Section:
    """Overall quality against the gap, attribute by attribute."""
    blocks = []
    for index, view in enumerate(views):
        pictures = [picture for name in view.attributes if (picture := plane_picture(view, name)) is not None]
        if pictures:
            blocks.append(Block(view.title, pictures=pictures, folded=index >= OPEN))
    intro = (
        "Each mark is one mechanism at one guidance (the number beside it), a mean over training seeds. Lower left is "
        "best: close to real images overall, and equally close in all groups. Guidance alone moves a generator over "
        "this plane, so compare curves, not points. Bars are 95 % intervals over seeds and patients; open marks are "
        "guidance found by calibration."
    )
    if any(view.reconstruction for view in views):
        intro += (
            " The grey diamond is the autoencoder alone (held-out images through it and back): about where "
            "perfect training of the diffusion model would lead."
        )
    return Section("plane", "Quality and equity at once", intro, blocks, "No gap was measured.")


def difference_section(views: list[View], reference: str) -> Section:
    """Forest plots of paired differences: overall, then worst group and both gaps of each attribute."""
    blocks = []
    for position, view in enumerate(views):
        keys = [("*", "overall"), *((name, quantity) for name in view.attributes for quantity in ("worst", *GAPS))]
        pictures = [
            picture
            for index, (attribute, quantity) in enumerate(keys)
            if (picture := _difference_forest(view, attribute, quantity, index)) is not None
        ]
        if pictures:
            blocks.append(Block(view.title, pictures=pictures, folded=position >= OPEN))
    intro = (
        f"Each mechanism less {reference}, seed by seed, against the same real images and with the same guidance; "
        f"calibrated generators less {reference} at its common guidance. An interval that holds 0 is no evidence of a "
        "difference."
    )
    return Section("differences", f"Differences to {reference}", intro, blocks, "Nothing could be compared.")


def _difference_forest(view: View, attribute: str, quantity: str, index: int) -> Picture | None:
    """The forest plot of one quantity's differences; None where there are none."""
    rows = sorted(view.difference_rows(attribute, quantity), key=lambda row: view.guidances.index(row["guidance"]))
    if not rows:
        return None
    marks = [
        Mark(
            _guidance_name(row["guidance"]),
            row["mechanism"],
            row["difference"],
            row["difference_low"],
            row["difference_high"],
        )
        for row in rows
    ]
    title = quantity_name(attribute, quantity)
    lower = quantity in GAPS or view.metric.better == "lower"
    direction = ", below 0 is better" if lower else ", above 0 is better" if view.metric.better else ""
    names = [name for name in view.mechanisms if any(mark.series == name for mark in marks)]
    styles = {name: style for name, style in run_styles(view.mechanisms).items() if name in names}
    svg = forest_plot(
        marks,
        [],
        axis=f"difference in {view.unit}{direction}",
        scale=view.metric.scale,
        series=names,
        styles=styles,
        alt=alt_text(marks, view.metric, f"difference, {title}"),
        slug=f"d-{view.slug}-{index}",
        zero="0: no difference",
    )
    return Picture(svg, title[0].upper() + title[1:])


def _guidance_name(guidance: str) -> str:
    """``guidance 2``, ``the common guidance``, ``calibrated guidance``."""
    return guidance_phrase(guidance).removeprefix("at ").removeprefix("with ")


def quantity_name(attribute: str, quantity: str) -> str:
    """``overall``, ``gap by sex``, ``gap of means by sex``, ``worst group by sex``, ``sex female``."""
    names = {
        "overall": "overall",
        "gap": f"gap by {attribute}",
        "worst": f"worst group by {attribute}",
        MEANS: f"gap of means by {attribute}",
    }
    return names.get(quantity, f"{attribute} {quantity}")


def table_section(views: list[View], reference: str) -> Section:
    """All numbers: a table for each attribute of each view."""
    blocks = [
        Block(
            view.title,
            tables=[_table(view, name, reference) for name in view.attributes or ["*"]],
            folded=index >= OPEN,
        )
        for index, view in enumerate(views)
    ]
    intro = "Means over training seeds; the smaller line is the 95 % interval over seeds and patients."
    if any(view.reconstruction for view in views):
        intro += (
            " Last, held-out images through the autoencoder and back, with the interval over patients: about "
            "where perfect training of the diffusion model would lead."
        )
    return Section("table", "All numbers", intro, blocks, "Nothing was measured.")


def _table(view: View, attribute: str, reference: str) -> Table:
    """Rows of mechanisms and guidances, then of reconstructed images; columns of quantities, differences, verdicts."""
    groups = view.groups(attribute) if attribute != "*" else []
    gaps = GAPS if attribute != "*" else []
    quantities = ["overall", *groups, *(["worst"] if gaps else [])]
    rows: list[Row] = []
    for name in view.mechanisms:
        rows.append(Row(name, kind="attribute"))
        for guidance in view.guidances:
            entries = [view.row(name, guidance, attribute, quantity) for quantity in quantities]
            gap_entries = [view.row(name, guidance, attribute, quantity) for quantity in gaps]
            if any(entry is not None for entry in [*entries, *gap_entries]):
                rows.append(Row(_guidance_name(guidance), _row_cells(view, entries, gap_entries)))
    entries = [view.reconstruction_row(attribute, quantity) for quantity in quantities]
    if any(entry is not None for entry in entries):
        gap_entries = [view.reconstruction_row(attribute, quantity) for quantity in gaps]
        rows += [Row(RECONSTRUCTION, kind="attribute"),
                 Row("of held-out images", _row_cells(view, entries, gap_entries))]  # fmt: skip
    head = ["guidance", *(quantity if quantity != "worst" else "worst group" for quantity in quantities)]
    for quantity in gaps or ["overall"]:
        title = quantity.replace("_", " ")
        head += [title, "chance gap"] if gaps else []
        head += [f"{title}, difference to {reference}", "p (Holm)", "verdict"]
    caption = f"{view.unit[0].upper()}{view.unit[1:]}" + (f" by {attribute}" if attribute != "*" else "")
    return Table(caption, head, rows)


def _row_cells(view: View, rows: list[Any | None], gap_rows: list[Any | None]) -> list[Cell]:
    """Estimates, then for each gap (else for the first row) difference, p and verdict; of a gap its chance value too.

    Reconstructed images have no difference.
    """
    cells = [_estimate_cell(row, view) for row in rows]
    for row in gap_rows or rows[:1]:
        if gap_rows:
            cells += [_estimate_cell(row, view), Cell(number(None if row is None else row["null_gap"], view.metric))]
        if row is None or "difference" not in row:
            cells += [Cell(ABSENT)] * 3
        elif not is_finite(row["difference"]):
            name = ABSENT if row["reference"] else "reference"
            cells += [Cell(name, mark="missing"), Cell(ABSENT), Cell(ABSENT)]
        else:
            verdict = row_verdict(row)
            span = interval(row["difference_low"], row["difference_high"], view.metric)
            cells += [Cell(view.difference_text(row).split(" (")[0], span),
                      Cell(p_text(row["p_holm"]).removeprefix("p ").removeprefix("= ") or ABSENT),
                      Cell(verdict, mark="" if verdict == NO_EVIDENCE else "beyond")]  # fmt: skip
    return cells


def _estimate_cell(row: Any | None, view: View) -> Cell:
    """The estimate with its interval; a dash with the note where there is none."""
    if row is None or not is_finite(row["estimate"]):
        note = "" if row is None else str(row["note"]).split(";")[0]
        return Cell(ABSENT, note, "missing")
    return Cell(number(row["estimate"], view.metric), interval(*interval_bounds(row), view.metric))


def seeds_section(seeds: pd.DataFrame) -> Section:
    """The values of each training seed, folded: a row for each quantity, a column for each seed."""
    blocks = []
    numbers = [str(seed) for seed in sorted(seeds["seed"].unique())]
    for (name, setting, plan), subset in seeds.groupby(["metric", "setting", "plan"], sort=False):
        metric = lookup_metric(str(name))
        quantities = subset[subset["figure"].isin(["overall", "worst", "gap"])]
        rows: list[Row] = []
        for (mechanism, guidance), generator in quantities.groupby(["mechanism", "guidance"], sort=False):
            rows.append(Row(f"{mechanism} {guidance_phrase(str(guidance))}", kind="attribute"))
            for (attribute, quantity), values in generator.groupby(["attribute", "figure"], sort=False):
                by_seed = dict(zip(values["seed"].astype(str), values["estimate"], strict=True))
                cells = [Cell(number(by_seed.get(seed), metric)) for seed in numbers]
                rows.append(Row(quantity_name(str(attribute), str(quantity)), cells))
        title = f"{metric.short}, setting {setting}, plan {plan}"
        table = Table(title, ["figure", *(f"seed {seed}" for seed in numbers)], rows)
        blocks.append(Block(title, tables=[table], folded=True))
    intro = "One number a training: how far they lie apart is what training again would change."
    return Section("seeds", "Each training seed", intro, blocks, "No seed was measured.")
