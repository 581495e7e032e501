"""The section on diagnosis and fairness: forest plots and tables by recipe and domain."""

from __future__ import annotations

import pandas as pd

from equigen.report.findings import domain_title, is_group, main_domains, primary_tasks
from equigen.report.forest_figures import attributes, by, group_picture
from equigen.report.frames import in_order
from equigen.report.layout import Block, Picture, Section
from equigen.report.metrics import Metric, metric
from equigen.report.rounding import known, listing
from equigen.report.tables import gap_table, value_table


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
    for place, attribute in enumerate(attributes(here) if not here.empty else []):
        picture = group_picture(
            here, "recipe", attribute, words=words, slug=f"{slug}-{place}",
            caption=f"{by(attribute)}, {where}", limits=_limits(rows, attribute),
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
