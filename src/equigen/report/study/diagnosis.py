"""Diagnosis and fairness: the section by recipe and domain, and the sentences on differences and gaps."""

from __future__ import annotations

from typing import Any

import pandas as pd

from equigen.report.findings import (
    domain_title,
    first_row,
    gap_text,
    is_group,
    main_domains,
    primary_tasks,
    verdict,
    worst_group,
)
from equigen.report.forest import attribute_phrase, group_picture, plot_attributes
from equigen.report.frames import unique_values
from equigen.report.layout import Block, Picture, Section, Sentence
from equigen.report.metrics import (
    Metric,
    difference_text,
    estimate_text,
    interval,
    is_finite,
    listing,
    lookup_metric,
    number,
    p_text,
)
from equigen.report.tables import gap_table, value_table

TOPIC = "Diagnosis and fairness"
MAIN_METRICS = ["auc", "high_risk_sensitivity"]


def diagnosis_section(fairness: pd.DataFrame) -> Section:
    """AUC per group by recipe in and out of distribution, gaps, paired differences; other tasks folded."""
    tasks = unique_values(fairness["task"])
    primary = primary_tasks(tasks)
    blocks: list[Block] = []
    for task in [*primary, *(task for task in tasks if task not in primary)]:
        rows = fairness[fairness["task"] == task]
        blocks += _task_blocks(rows, task, tasks.index(task), task not in primary)
    intro = (
        "A diagnostic model for each recipe, tested on real images only. Differences are paired: the same "
        "test patients under both recipes."
    )
    return Section("diagnosis", "Diagnosis and fairness", intro, blocks, "No diagnostic model was evaluated.")


def _task_blocks(rows: pd.DataFrame, task: str, index: int, folded: bool) -> list[Block]:
    """The main metrics of a task with figures and gaps; then, folded, every metric in every domain and site.

    Pictures are sorted by metric and attribute, so that in and out of distribution stand beside each other.
    """
    names, domains = unique_values(rows["metric"]), main_domains(unique_values(rows["domain"]))
    main = [name for name in MAIN_METRICS if name in names]
    pictures: dict[str, list[Picture]] = {}
    for name in main:
        main_rows = rows[(rows["metric"] == name) & rows["domain"].isin(domains)]
        for panel, domain in enumerate(domains):
            panels = _domain_pictures(main_rows, lookup_metric(name), domain, f"f{index}-{name}-{panel}")
            for attribute, picture in panels:
                pictures.setdefault(f"{name} {attribute}", []).append(picture)
    tables = [gap_table(rows[rows["domain"] == domain], main, f"Recipes and gaps, {domain_title(domain)}")
              for domain in domains]  # fmt: skip
    title = task or "Diagnosis"
    ordered = [picture for panels in pictures.values() for picture in panels]
    block = Block(title, [], ordered, [table for table in tables if table.rows], folded=folded)
    details = [
        value_table(table, "recipe", metric, f"{metric.title}, {domain_title(domain)}", "n_patients")
        for metric in map(lookup_metric, [*main, *(name for name in names if name not in main)])
        for domain in unique_values(rows["domain"])
        if not (table := rows[(rows["metric"] == metric.name) & (rows["domain"] == domain)]).empty
    ]
    lead = f"{len(details)} tables: {listing([lookup_metric(name).short for name in names])}."
    return [block, Block(f"{title}: all numbers, group by group", [lead], tables=details, folded=True)]


def _domain_pictures(rows: pd.DataFrame, metric: Metric, domain: str, slug: str) -> list[tuple[str, Picture]]:
    """Attribute and forest plot for each attribute of one domain; the axis is the same in all domains of ``rows``."""
    title = domain_title(domain).split(" (")[0]
    domain_rows = rows[rows["domain"] == domain]
    result = []
    for index, attribute in enumerate(plot_attributes(domain_rows) if not domain_rows.empty else []):
        members = rows[(rows["group"] == "*") | (is_group(rows) & (rows["attribute"] == attribute))]
        low, high = members[["estimate", "ci_low"]].min().min(), members[["estimate", "ci_high"]].max().max()
        margin = 0.04 * (high - low) or 0.01
        limits = (float(low - margin), float(high + margin)) if is_finite(low) and is_finite(high) else None
        picture = group_picture(
            domain_rows, "recipe", attribute, metric=metric, slug=f"{slug}-{index}",
            caption=f"{attribute_phrase(attribute)}, {title}", limits=limits,
        )  # fmt: skip
        result.append((attribute, picture))
    return result


def fairness_sentences(fairness: pd.DataFrame) -> list[Sentence]:
    """Findings of the fairness table on its primary tasks: values, paired differences and gaps domain by domain.

    The baseline is the recipe that ``difference_to`` names, else ``real``, else the first.
    """
    if fairness.empty:
        return [Sentence("No diagnostic model was evaluated.", "missing", TOPIC)]
    tasks = primary_tasks(unique_values(fairness["task"]))
    recipes = unique_values(fairness["recipe"])
    references = [name for name in unique_values(fairness["difference_to"]) if name]
    base = references[0] if references else "real" if "real" in recipes else recipes[0]
    result: list[Sentence] = []
    for task in tasks:
        for metric in map(lookup_metric, MAIN_METRICS):
            rows = fairness[(fairness["task"] == task) & (fairness["metric"] == metric.name)]
            for domain in main_domains(unique_values(rows["domain"])):
                domain_rows = rows[rows["domain"] == domain]
                lead = f"{task or 'diagnosis'}, {domain_title(domain)}"
                overall = domain_rows[(domain_rows["attribute"] == "*") & (domain_rows["group"] == "*")]
                result += [_recipe_sentence(overall, lead, base, metric)] if not overall.empty else []
                result += _gap_sentences(domain_rows, lead, metric)
    result = result or [Sentence("AUC was not evaluated.", "missing", TOPIC)]
    note = (
        "Tested on real images only. In brackets 95 % intervals over test patients; they do not cover the spread "
        "between training runs."
    )
    return [Sentence(note, "note", TOPIC), *result, *_untested_sentences(fairness, tasks)]


def _recipe_sentence(overall: pd.DataFrame, lead: str, base: str, metric: Metric) -> Sentence:
    """The value of each recipe over all groups and its paired difference to the baseline."""
    reference, parts, established = first_row(overall, recipe=base), [], False
    text = f"{lead}: {metric.short}; {base} was not evaluated."
    if reference is not None:
        text = f"{lead}: {metric.short} {_value_text(reference, metric)} with {base}."
    for _, row in overall[overall["recipe"] != base].iterrows():
        low, high = row["difference_low"], row["difference_high"]
        clause = f"paired difference {difference_text(row['difference'], low, high, metric)}"
        if not is_finite(row["difference"]):
            clause = f"no paired difference to {base} was computed"
        elif not interval(low, high, metric):
            clause += " without interval: nothing is established"
        elif low > 0 or high < 0:
            better = (row["difference"] > 0) == (metric.better == "higher")
            clause += f": {'better' if better else 'worse'}, zero is outside the interval"
            established = True
        else:
            clause += ": no difference established"
        parts.append(f"{row['recipe']}: {_value_text(row, metric)}; {clause}")
    return Sentence(text, "finding" if established else "chance", TOPIC, tuple(parts))


def _value_text(row: Any, metric: Metric) -> str:
    """The row's estimate with its interval, or that it was not evaluated."""
    if not is_finite(row["estimate"]):
        return "not evaluated"
    return estimate_text(row["estimate"], row["ci_low"], row["ci_high"], metric)


def _gap_sentences(rows: pd.DataFrame, lead: str, metric: Metric) -> list[Sentence]:
    """How many gaps of one domain are larger than chance, then attribute by attribute; empty without gaps.

    Where no gap of an attribute exceeds chance under any recipe, this is stated once for all recipes.
    """
    gaps = rows[(rows["group"] == "gap") & (rows["attribute"] != "*")]
    if gaps.empty:
        return []
    verdicts = [verdict(row, metric).exceeds_chance for _, row in gaps.iterrows()]
    tested, larger = sum(larger is not None for larger in verdicts), verdicts.count(True)
    counts = f"{larger or 'none'} of {tested} gaps {'is' if larger == 1 else 'are'} larger than chance explains"
    summary = f"{lead}, gap in {metric.short} between groups: {counts if tested else 'not tested against chance'}."
    parts = []
    for attribute in unique_values(gaps["attribute"]):
        attribute_rows = rows[rows["attribute"] == attribute]
        records = attribute_rows[attribute_rows["group"] == "gap"].to_dict("records")
        if all(verdict(row, metric).exceeds_chance is False for row in records):
            clauses = []
            for row in records:
                chance = [p_text(row["p_value"])]
                if is_finite(row["null_high"]):
                    chance.insert(0, f"chance alone up to {number(row['null_high'], metric)}")
                text = ", ".join(filter(None, chance))
                clauses.append(f"{row['recipe']} {number(row['estimate'], metric)} ({text})")
            parts.append(f"by {attribute}: {', '.join(clauses)}: not distinguishable from chance")
            continue
        clauses = []
        for row in records:
            groups = attribute_rows[is_group(attribute_rows) & (attribute_rows["recipe"] == row["recipe"])]
            worst = worst_group(groups, metric)
            suffix = f" (worst group {worst['group']}, {_value_text(worst, metric)})" if worst is not None else ""
            clauses.append(f"{row['recipe']} {gap_text(row, metric)}{suffix}")
        parts.append(f"by {attribute}: {'; '.join(clauses)}")
    return [Sentence(summary, "finding" if larger else "chance", TOPIC, (*parts, *_gap_changes(gaps, metric)))]


def _gap_changes(gaps: pd.DataFrame, metric: Metric) -> list[str]:
    """Changes of gaps against the baseline: each established one, and one sentence for all others."""
    changes = gaps[gaps[["difference", "difference_low", "difference_high"]].notna().all(axis=1)]
    established = changes[(changes["difference_low"] > 0) | (changes["difference_high"] < 0)]
    result = [
        f"gap by {row['attribute']} of {row['recipe']} against {row['difference_to'] or 'the baseline'}: "
        f"{difference_text(row['difference'], row['difference_low'], row['difference_high'], metric)}, "
        f"{'narrower' if row['difference'] < 0 else 'wider'}, zero is outside the interval"
        for _, row in established.iterrows()
    ]
    rest = changes.drop(established.index)
    if len(rest):
        prefix = "other " if len(established) else ""
        recipes = listing(unique_values(rest["recipe"]))
        result.append(f"no {prefix}change of a gap against the baseline is established ({recipes})")
    return result


def _untested_sentences(fairness: pd.DataFrame, tasks: list[str]) -> list[Sentence]:
    """Groups of the primary tasks without a number, and the tasks that only the section on diagnosis shows."""
    rows = fairness[fairness["task"].isin(tasks) & fairness["metric"].isin(MAIN_METRICS) & is_group(fairness)]
    empty = rows[rows["estimate"].isna() & rows["domain"].isin(main_domains(unique_values(rows["domain"])))]
    names = dict.fromkeys(
        f"{attribute} {group} ({domain_title(domain).split(' (')[0]})"
        for attribute, group, domain in zip(empty["attribute"], empty["group"], empty["domain"], strict=True)
    )
    result = []
    if names:
        text = f"Not evaluated, too few patients or only one class present: {listing(list(names))}."
        result.append(Sentence(text, "caution", TOPIC))
    rest = [task for task in unique_values(fairness["task"]) if task not in tasks]
    if rest:
        text = f"{len(rest)} further tasks ({listing(rest)}) are in the section on diagnosis."
        result.append(Sentence(text, "note", TOPIC))
    return result
