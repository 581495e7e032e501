"""The section on diagnosis and fairness: forest plots and tables by recipe and domain."""

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
from equigen.report.forest_figures import attribute_phrase, group_picture, plot_attributes
from equigen.report.frames import unique_values
from equigen.report.layout import Block, Picture, Section, Sentence
from equigen.report.metrics import Metric, lookup_metric
from equigen.report.rounding import estimate_text, interval, is_finite, listing, number, p_text, signed_number
from equigen.report.tables import gap_table, value_table

TOPIC = "Diagnosis and fairness"
HEADLINES = ["auc", "high_risk_sensitivity"]



def diagnosis_section(fairness: pd.DataFrame) -> Section:
    """AUC per group by recipe in and out of distribution, gaps, paired differences; other tasks folded."""
    tasks = unique_values(fairness["task"])
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
    domains = main_domains(unique_values(rows["domain"]))
    main = [name for name in ("auc", "high_risk_sensitivity") if (rows["metric"] == name).any()]
    pictures, tables = [], []
    for name in main:
        for domain in domains:
            part = rows[(rows["metric"] == name) & rows["domain"].isin(domains)]
            pictures += _pictures(part, lookup_metric(name), domain, f"f{place}-{name}-{domains.index(domain)}")
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
    for place, attribute in enumerate(plot_attributes(here) if not here.empty else []):
        picture = group_picture(
            here, "recipe", attribute, words=words, slug=f"{slug}-{place}",
            caption=f"{attribute_phrase(attribute)}, {where}", limits=_limits(rows, attribute),
        )  # fmt: skip
        result.append((f"{words.name} {attribute}", picture))
    return result


def _limits(rows: pd.DataFrame, attribute: str) -> tuple[float, float] | None:
    """Ends of the axis that holds the whole set and an attribute's groups with their intervals."""
    shown = rows[(rows["group"] == "*") | (is_group(rows) & (rows["attribute"] == attribute))]
    low, high = shown[["estimate", "ci_low"]].min().min(), shown[["estimate", "ci_high"]].max().max()
    room = 0.04 * (high - low) or 0.01
    return (float(low - room), float(high + room)) if is_finite(low) and is_finite(high) else None


def _by_attribute(pictures: list[tuple[str, Picture]]) -> list[tuple[str, Picture]]:
    """Sorted by metric and attribute, so that in and out of distribution face each other."""
    order = list(dict.fromkeys(key for key, _ in pictures))
    return sorted(pictures, key=lambda pair: order.index(pair[0]))


def _details(rows: pd.DataFrame, title: str, main: list[str]) -> Block:
    """Every metric of a task in every domain, site by site."""
    tables = [
        value_table(
            part, "recipe", lookup_metric(name), f"{lookup_metric(name).title}, {domain_title(domain)}", "n_patients"
        )
        for name in [*main, *(n for n in unique_values(rows["metric"]) if n not in main)]
        for domain in unique_values(rows["domain"])
        if not (part := rows[(rows["metric"] == name) & (rows["domain"] == domain)]).empty
    ]
    lead = f"{len(tables)} tables: {listing([lookup_metric(n).short for n in unique_values(rows['metric'])])}."
    return Block(f"{title}: all numbers, group by group", [lead], tables=tables, folded=True)


def fairness_sentences(fairness: pd.DataFrame) -> list[Sentence]:
    """Findings of the fairness table on its main tasks; caution where nothing is established."""
    if fairness.empty:
        return [Sentence("No diagnostic model was evaluated.", "missing", TOPIC)]
    tasks = primary_tasks(unique_values(fairness["task"]))
    base = baseline(fairness)
    result: list[Sentence] = []
    for task in tasks:
        for name in HEADLINES:
            rows = fairness[(fairness["task"] == task) & (fairness["metric"] == name)]
            for domain in main_domains(unique_values(rows["domain"])):
                result += _domain(rows[rows["domain"] == domain], task, domain, base, lookup_metric(name))
    if not result:
        result = [Sentence("AUC was not evaluated.", "missing", TOPIC)]
    return [_reading(), *result, *_untested(fairness, tasks)]


def _reading() -> Sentence:
    text = (
        "Tested on real images only. In brackets 95 % intervals over test patients; they do not hold "
        "the spread between "
        "training runs."
    )
    return Sentence(text, "note", TOPIC)


def baseline(fairness: pd.DataFrame) -> str:
    """The recipe others are compared with: what ``difference_to`` names, else ``real``, else the first."""
    named = [name for name in unique_values(fairness["difference_to"]) if name]
    recipes = unique_values(fairness["recipe"])
    return named[0] if named else "real" if "real" in recipes else recipes[0]


def _domain(rows: pd.DataFrame, task: str, domain: str, base: str, words: Metric) -> list[Sentence]:
    lead = f"{task or 'diagnosis'}, {domain_title(domain)}"
    whole = rows[(rows["attribute"] == "*") & (rows["group"] == "*")]
    result = [_levels(whole, lead, base, words)] if not whole.empty else []
    gaps = rows[(rows["group"] == "gap") & (rows["attribute"] != "*")]
    return result + ([_gaps(rows, gaps, lead, words)] if not gaps.empty else [])


def _levels(whole: pd.DataFrame, lead: str, base: str, words: Metric) -> Sentence:
    """Each recipe's value and its difference to the baseline."""
    start, parts, firm = first_row(whole, recipe=base), [], False
    text = f"{lead}: {words.short}"
    text += f" {_value(start, words)} with {base}." if start is not None else f"; {base} was not evaluated."
    for _, row in whole[whole["recipe"] != base].iterrows():
        said, established = _difference(row, base, words)
        parts.append(f"{row['recipe']}: {_value(row, words)}; {said}")
        firm = firm or established
    return Sentence(text, "finding" if firm else "chance", TOPIC, tuple(parts))


def _value(row: Any, words: Metric) -> str:
    return (
        estimate_text(row["estimate"], row["ci_low"], row["ci_high"], words)
        if is_finite(row["estimate"])
        else "not evaluated"
    )


def _difference(row: Any, base: str, words: Metric) -> tuple[str, bool]:
    """The paired difference in words, and whether it is established (its interval leaves zero out)."""
    if not is_finite(row["difference"]):
        return f"no paired difference to {base} was computed", False
    span = interval(row["difference_low"], row["difference_high"], words)
    if not span:
        return (
            f"paired difference {signed_number(row['difference'], words)} without interval: nothing is established",
            False,
        )
    established = bool(row["difference_low"] > 0 or row["difference_high"] < 0)
    better = (row["difference"] > 0) == (words.better == "higher")
    end = (
        ("better" if better else "worse") + ", zero is outside the interval"
        if established
        else "no difference established"
    )
    return f"paired difference {signed_number(row['difference'], words)} ({span}): {end}", established


def _gaps(rows: pd.DataFrame, gaps: pd.DataFrame, lead: str, words: Metric) -> Sentence:
    """How many gaps are larger than chance, then attribute by attribute."""
    seen = [verdict(row, words).exceeds_chance for _, row in gaps.iterrows()]
    tested = sum(known_verdict is not None for known_verdict in seen)
    beyond = sum(known_verdict is True for known_verdict in seen)
    counted = (
        f"{beyond or 'none'} of {tested} gaps {'is' if beyond == 1 else 'are'} larger than chance explains"
    )
    text = (
        f"{lead}, gap in {words.short} between groups: {counted if tested else 'not tested against chance'}."
    )
    parts = [
        _attribute_gaps(rows[rows["attribute"] == attribute], attribute, words)
        for attribute in unique_values(gaps["attribute"])
    ]
    return Sentence(text, "finding" if beyond else "chance", TOPIC, (*parts, *_gap_changes(gaps, words)))


def _attribute_gaps(rows: pd.DataFrame, attribute: str, words: Metric) -> str:
    """The gaps of one attribute under each recipe; the chance band is said once where all say the same."""
    gaps = rows[rows["group"] == "gap"]
    verdicts = {verdict(row, words).exceeds_chance for _, row in gaps.iterrows()}
    if verdicts == {False}:
        said = [
            f"{row['recipe']} {number(row['estimate'], words)} ({_band(row, words)})"
            for _, row in gaps.iterrows()
        ]
        return f"by {attribute}: {', '.join(said)}: not distinguishable from chance"
    said = [
        f"{row['recipe']} {gap_text(row, words)}{_worst(rows, row['recipe'], words)}"
        for _, row in gaps.iterrows()
    ]
    return f"by {attribute}: {'; '.join(said)}"


def _band(row: Any, words: Metric) -> str:
    chance = f"chance alone up to {number(row['null_high'], words)}" if is_finite(row["null_high"]) else ""
    return ", ".join(text for text in (chance, p_text(row["p_value"])) if text)


def _worst(rows: pd.DataFrame, recipe: str, words: Metric) -> str:
    own = rows[rows["recipe"] == recipe]
    worst = worst_group(own[is_group(own)], words)
    return f" (worst group {worst['group']}, {_value(worst, words)})" if worst is not None else ""


def _gap_changes(gaps: pd.DataFrame, words: Metric) -> list[str]:
    """Changes of gaps against the baseline: each established one, and once that the others are not."""
    known_changes = gaps[gaps[["difference", "difference_low", "difference_high"]].notna().all(axis=1)]
    firm = known_changes[(known_changes["difference_low"] > 0) | (known_changes["difference_high"] < 0)]
    result = [
        f"gap by {row['attribute']} of {row['recipe']} against {row['difference_to'] or 'the baseline'}: "
        f"{signed_number(row['difference'], words)} "
        f"({interval(row['difference_low'], row['difference_high'], words)}), "
        f"{'narrower' if row['difference'] < 0 else 'wider'}, zero is outside the interval"
        for _, row in firm.iterrows()
    ]
    rest = len(known_changes) - len(firm)
    if rest:
        recipes = listing(list(dict.fromkeys(known_changes.drop(firm.index)["recipe"])))
        other = "other " if len(firm) else ""
        result.append(f"no {other}change of a gap against the baseline is established ({recipes})")
    return result


def _untested(fairness: pd.DataFrame, tasks: list[str]) -> list[Sentence]:
    """Groups of the main tasks without a number, and the tasks whose numbers are further down."""
    rows = fairness[fairness["task"].isin(tasks) & fairness["metric"].isin(HEADLINES) & is_group(fairness)]
    empty = rows[rows["estimate"].isna() & rows["domain"].isin(main_domains(unique_values(rows["domain"])))]
    names = list(
        dict.fromkeys(
            f"{a} {g} ({domain_title(d).split(' (')[0]})"
            for a, g, d in zip(empty["attribute"], empty["group"], empty["domain"], strict=True)
        )
    )
    result = (
        [Sentence(f"Not judged, for want of patients or of one class: {listing(names)}.", "caution", TOPIC)]
        if names
        else []
    )
    rest = [task for task in unique_values(fairness["task"]) if task not in tasks]
    if rest:
        text = f"{len(rest)} further tasks ({listing(rest)}) are in the section on diagnosis."
        result.append(Sentence(text, "note", TOPIC))
    return result
