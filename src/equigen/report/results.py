"""The sections on image quality and on diagnosis: forest plots and tables."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from equigen.report.figures import looks
from equigen.report.forest import Mark, forest
from equigen.report.frames import in_order
from equigen.report.layout import Block, Picture, Section
from equigen.report.metrics import Metric, metric
from equigen.report.rounding import known, listing, with_interval
from equigen.report.tables import WHOLE, gap_table, value_table
from equigen.report.words import domain_title, is_group, main_domains, primary_tasks

FIRST = ["kd", "fd", "is"]


def quality_section(quality: pd.DataFrame) -> Section:
    """Distances and scores per group, per encoder; oracle metrics have a section of their own."""
    rows = quality[~quality["metric"].str.startswith("oracle_")] if not quality.empty else quality
    intro = (
        "Generated against real images of the same group, all groups at one number of images. The black tick "
        "is the floor (real against real); reconstruction is what latent coding alone costs. Bars are 95 % "
        "intervals."
    )
    return Section(
        "quality", "Image quality per group", intro, _quality_blocks(rows), "Image quality was not evaluated."
    )


def oracle_section(quality: pd.DataFrame) -> Section | None:
    """Does the image show what was asked for; None where no oracle was asked."""
    rows = quality[quality["metric"].str.startswith("oracle_")] if not quality.empty else quality
    if rows.empty:
        return None
    intro = (
        "The images are phantoms: an oracle measures on each what it shows and compares it with the request."
    )
    return Section("oracle", "Does the image show what was asked for?", intro, _quality_blocks(rows), "")


def _quality_blocks(rows: pd.DataFrame) -> list[Block]:
    names = in_order(rows["metric"])
    ordered = [name for name in FIRST if name in names] + [name for name in names if name not in FIRST]
    encoders = in_order(rows["encoder"])
    return [
        _quality_block(part, metric(name), encoder, f"q{place}-{name}")
        for place, encoder in enumerate(encoders)
        for name in ordered
        if not (part := rows[(rows["encoder"] == encoder) & (rows["metric"] == name)]).empty
    ]


def _quality_block(rows: pd.DataFrame, words: Metric, encoder: str, slug: str) -> Block:
    title = f"{words.title}{f', encoder {encoder}' if encoder else ''}"
    pictures = [
        _picture(rows, "run", attribute, words=words, slug=f"{slug}-{place}", caption=_by(attribute))
        for place, attribute in enumerate(_attributes(rows))
    ]
    size = "matched_n" if rows["matched_n"].notna().any() else "n_generated"
    excess = ", excess over the floor" if rows["excess"].notna().any() else ""
    table = value_table(rows, "run", words, f"{title}: value, interval{excess}", size)
    return Block(title, [_direction(words)], pictures, [table])


def _by(attribute: str) -> str:
    return "of the whole set" if attribute == "*" else f"by {attribute}"


def _direction(words: Metric) -> str:
    way = {"lower": "Lower is better.", "higher": "Higher is better.", "": ""}[words.better]
    return f"{way} Values are shown x 1000.".strip() if words.scale == 1000 else way


def _attributes(rows: pd.DataFrame) -> list[str]:
    return [name for name in in_order(rows["attribute"]) if name != "*"] or ["*"]


def _picture(
    rows: pd.DataFrame,
    column: str,
    attribute: str,
    *,
    words: Metric,
    slug: str,
    caption: str,
    limits: tuple[float, float] | None = None,
) -> Picture:
    """A forest plot of one attribute: the whole set, its groups, and its gap."""
    whole = rows[(rows["attribute"] == "*") & (rows["group"] == "*")]
    own = rows[rows["attribute"] == attribute]
    shown = [_mark(row, column, WHOLE) for row in whole.to_dict("records")]
    shown += [_mark(row, column, str(row["group"])) for row in own[is_group(own)].to_dict("records")]
    gaps = [_mark(row, column, "gap") for row in own[own["group"] == "gap"].to_dict("records")]
    gaps = [mark for mark in gaps if known(mark.estimate)]
    names = in_order(rows[column])
    unit = f"{words.short} x 1000" if words.scale == 1000 else words.short
    way = {"lower": ", lower is better", "higher": ", higher is better", "": ""}[words.better]
    svg = forest(
        shown,
        gaps,
        axis=unit + way,
        scale=words.scale,
        alt=_alt(shown, words, caption),
        slug=slug,
        series=names,
        styles=looks(names),
        limits=limits,
        floor="floor (real against real)" if words.better == "lower" else "real images",
    )
    return Picture(svg, f"{words.short} {caption}")


def _mark(row: Mapping[Hashable, Any], column: str, label: str) -> Mark:
    def value(name: str) -> float:
        return float(row.get(name, float("nan")))

    note = str(row["note"])
    remark = "too small" if "small" in note else "not evaluated"
    return Mark(
        label,
        str(row[column]),
        value("estimate"),
        value("ci_low"),
        value("ci_high"),
        value("floor"),
        value("null_low"),
        value("null_high"),
        remark,
    )


def _alt(marks: list[Mark], words: Metric, caption: str) -> str:
    said = [
        f"{m.series}, {m.row}: {with_interval(m.estimate, m.low, m.high, words)}"
        for m in marks
        if known(m.estimate)
    ]
    return (
        f"Forest plot of {words.title} {caption}. "
        + "; ".join(said)
        + ". The table below holds the same numbers."
    )


def diagnosis_section(fairness: pd.DataFrame) -> Section:
    """AUC per group by recipe in and out of distribution, gaps, paired differences; other tasks folded."""
    tasks = in_order(fairness["task"])
    first = primary_tasks(tasks)
    blocks = [
        block
        for task in first
        for block in _task_blocks(fairness[fairness["task"] == task], task, tasks.index(task), False)
    ]
    blocks += [
        block
        for task in tasks
        if task not in first
        for block in _task_blocks(fairness[fairness["task"] == task], task, tasks.index(task), True)
    ]
    intro = (
        "A diagnostic model for each recipe, tested on real images only. Differences are paired: the same "
        "test patients under both recipes."
    )
    return Section("diagnosis", "Diagnosis and fairness", intro, blocks, "No diagnostic model was evaluated.")


def _task_blocks(rows: pd.DataFrame, task: str, place: int, folded: bool) -> list[Block]:
    """The main metrics of a task, then the rest of its metrics and its sites folded away."""
    domains = main_domains(in_order(rows["domain"]))
    main = [name for name in ("auc", "high_risk_sensitivity") if (rows["metric"] == name).any()]
    pictures, tables = [], []
    for name in main:
        for domain in domains:
            part = rows[(rows["metric"] == name) & rows["domain"].isin(domains)]
            pictures += _pictures(part, metric(name), domain, f"f{place}-{name}-{domains.index(domain)}")
    pictures = _by_attribute(pictures)
    for domain in domains:
        part = rows[rows["domain"] == domain]
        gaps = gap_table(part, main, f"Recipes and gaps, {domain_title(domain)}")
        tables += [gaps] if gaps.rows else []
    title = task or "Diagnosis"
    shown = [Block(title, [], [p for _, p in pictures], tables, folded=folded)]
    return [*shown, _details(rows, title, main)]


def _pictures(rows: pd.DataFrame, words: Metric, domain: str, slug: str) -> list[tuple[str, Picture]]:
    """One domain's forest plots by attribute; the axis is the same in all domains of ``rows``."""
    where = domain_title(domain).split(" (")[0]
    here = rows[rows["domain"] == domain]
    result = []
    for place, attribute in enumerate(_attributes(here) if not here.empty else []):
        picture = _picture(
            here, "recipe", attribute, words=words, slug=f"{slug}-{place}",
            caption=f"{_by(attribute)}, {where}", limits=_limits(rows, attribute),
        )  # fmt: skip
        result.append((f"{words.name} {attribute}", picture))
    return result


def _limits(rows: pd.DataFrame, attribute: str) -> tuple[float, float] | None:
    """Ends of the axis that holds the whole set and an attribute's groups with their intervals."""
    shown = rows[(rows["group"] == "*") | (is_group(rows) & (rows["attribute"] == attribute))]
    low, high = shown[["estimate", "ci_low"]].min().min(), shown[["estimate", "ci_high"]].max().max()
    room = 0.04 * (high - low) or 0.01
    return (float(low - room), float(high + room)) if known(low) and known(high) else None


def _by_attribute(pictures: list[tuple[str, Picture]]) -> list[tuple[str, Picture]]:
    """Sorted by metric and attribute, so that in and out of distribution face each other."""
    order = list(dict.fromkeys(key for key, _ in pictures))
    return sorted(pictures, key=lambda pair: order.index(pair[0]))


def _details(rows: pd.DataFrame, title: str, main: list[str]) -> Block:
    """Every metric of a task in every domain, site by site."""
    tables = [
        value_table(
            part, "recipe", metric(name), f"{metric(name).title}, {domain_title(domain)}", "n_patients"
        )
        for name in [*main, *(n for n in in_order(rows["metric"]) if n not in main)]
        for domain in in_order(rows["domain"])
        if not (part := rows[(rows["metric"] == name) & (rows["domain"] == domain)]).empty
    ]
    lead = f"{len(tables)} tables: {listing([metric(n).short for n in in_order(rows['metric'])])}."
    return Block(f"{title}: all numbers, group by group", [lead], tables=tables, folded=True)
