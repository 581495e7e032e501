"""Image quality: the section of the page and the sentences on groups, gaps and mechanisms."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import comb
from typing import Any

import pandas as pd

from equigen.report.figures import REFERENCES
from equigen.report.findings import (
    attribute_names,
    correction_note,
    first_row,
    gap_text,
    is_group,
    is_intersection,
    runs_by_mechanism,
    verdict,
    without_intersections,
    worst_group,
)
from equigen.report.forest import direction_text, group_pictures
from equigen.report.frames import unique_values
from equigen.report.layout import Block, Section, Sentence
from equigen.report.metrics import Metric, estimate_text, interval, is_finite, listing, lookup_metric, sort_metrics
from equigen.report.study.details import family_block, has_errors, metrics_table, monte_carlo_text, numbers_table
from equigen.report.tables import value_table

TOPIC = "Image quality per group"
MIN_SEEDS = 3
SEPARATE_FAMILIES = ["memorisation", "semantic"]  # families with a section of their own
_CHANGES = {
    "better": "closer to the real images",
    "worse": "further from the real images",
    "unclear": "no difference beyond chance established",
    "unknown": "not comparable, a value or its interval is missing",
}
_GAP_CHANGES = {
    "better": "narrower",
    "worse": "wider",
    "unclear": "no change beyond chance established",
    "unknown": "change not judged, an interval is missing",
}
_FAMILIES = {
    "distance": "Other distances",
    "variety": "Variety",
    "manifold": "Realism and variety apart",
    "": "Other metrics",
}
_FAMILY_NOTES = {
    "distance": "They agree with KD where n is large. They are biased at small n: read them beside the floor, which is "
    "the distance between real images, and quote KD.",
    "variety": "A score of the generated images alone: it uses no real images, so it cannot show that they are wrong.",
    "manifold": "Precision and density ask whether generated images look real, recall and coverage whether all of "
    "the real variety is there. They depend on n and k: compare them with what real held-out images score.",
    "": "",
}


def family_rows(quality: pd.DataFrame, families: list[str], *, exclude: bool = False) -> pd.DataFrame:
    """The rows of a quality table whose metric belongs to one of these families; with ``exclude``, to none of them."""
    family = quality["metric"].map(lambda name: lookup_metric(str(name)).family)
    return quality[family.isin(families) != exclude]


def quality_section(quality: pd.DataFrame) -> Section:
    """The section on image quality.

    For each encoder the first metric per group with figures and a table; its Monte-Carlo errors, the intersections of
    attributes and all other metrics in folded tables.
    """
    rows = family_rows(quality, SEPARATE_FAMILIES, exclude=True)
    intro = (
        "The generated images of each group are compared with real images of the same group, with the same number of "
        "images in every group. The black tick is the value that real images reach; reconstruction is the loss through "
        "the autoencoder alone. Bars are 95 % intervals."
    )
    blocks = []
    for index, encoder in enumerate(unique_values(rows["encoder"])):
        encoder_rows = rows[rows["encoder"] == encoder]
        names = sort_metrics(unique_values(encoder_rows["metric"]))
        first, suffix = lookup_metric(names[0]), f", encoder {encoder}" if encoder else ""
        single = without_intersections(encoder_rows)
        first_rows = single[single["metric"] == first.name]
        if not first_rows.empty:
            title, excess = f"{first.title}{suffix}", first_rows["excess"].notna().any()
            caption = f"{title}: value, interval{', excess over the floor' if excess else ''}"
            table = value_table(first_rows, "run", first, caption, _size_column(first_rows, first))
            blocks.append(replace(plot_block(first_rows, first, title, f"q{index}-{first.name}"), tables=[table]))
        if has_errors(first_rows):
            title = f"{first.short}{suffix}: all numbers, with standard and Monte-Carlo errors"
            tables = [numbers_table(first_rows, first)]
            blocks.append(Block(title, monte_carlo_text(first_rows), tables=tables, folded=True))
        blocks += intersection_block(encoder_rows, names, suffix)
        for family, title in _FAMILIES.items():
            metric_rows = family_rows(single[single["metric"] != first.name], [family])
            if not metric_rows.empty:
                names = sort_metrics(unique_values(metric_rows["metric"]))
                heading = f"{title}: {listing([lookup_metric(name).short for name in names])}{suffix}"
                blocks.append(family_block(metric_rows, heading, list(filter(None, [_FAMILY_NOTES[family]]))))
    return Section("quality", "Image quality per group", intro, blocks, "Image quality was not evaluated.")


def plot_block(rows: pd.DataFrame, metric: Metric, title: str, slug: str) -> Block:
    """A metric with a forest plot for each attribute; its numbers stand in a table further down."""
    return Block(title, [direction_text(metric)], group_pictures(rows, metric, slug))


def _size_column(rows: pd.DataFrame, metric: Metric) -> str:
    """The column with the number of images behind a value: ``matched_n`` for distances, else ``n_generated``."""
    matched = metric.family not in SEPARATE_FAMILIES and rows["matched_n"].notna().any()
    return "matched_n" if matched else "n_generated"


def intersection_block(rows: pd.DataFrame, names: list[str], suffix: str) -> list[Block]:
    """Groups of two attributes at once, folded: the first metric run by run, then all metrics side by side."""
    rows = rows[is_intersection(rows)]
    if rows.empty:
        return []
    present = [name for name in names if (rows["metric"] == name).any()]
    first = lookup_metric(present[0])
    first_rows = rows[rows["metric"] == first.name]
    size = _size_column(first_rows, first)
    tables = [value_table(first_rows, "run", first, f"{first.title}, intersections", size)]
    if len(present) > 1:
        tables += [metrics_table(rows[rows["run"] == run], present[1:], run) for run in unique_values(rows["run"])]
    lead = "Patients who share the groups of two attributes; small cells get no number."
    text = [lead, *worst_intersection(first_rows, first)]
    return [Block(f"Intersections of attributes{suffix}", text, tables=tables, folded=True)]


def quality_sentences(quality: pd.DataFrame) -> list[Sentence]:
    """Findings of the quality table, on excess KD (else FD) of its first encoder.

    In order: unit, the run closest to the real images, each run with its worst groups and gaps, the autoencoder, each
    mechanism against ``none``, the worst intersection, and the groups that are too small.
    """
    if quality.empty:
        return [Sentence("Image quality was not evaluated.", "missing", TOPIC)]
    name = next((name for name in ("kd", "fd", "fd_inf") if (quality["metric"] == name).any()), None)
    if name is None:
        return [Sentence("No distance to the real images (KD or FD) was evaluated.", "missing", TOPIC)]
    metric, rows = lookup_metric(name), quality[quality["metric"] == name]
    encoder = unique_values(rows["encoder"])[0]
    rows = rows[rows["encoder"] == encoder]
    crossed, rows = rows[is_intersection(rows)], without_intersections(rows)
    runs = [run for run in unique_values(rows["run"]) if run not in REFERENCES]
    unit = f"{metric.short} x 1000" if metric.scale == 1000 else metric.short
    if rows["excess"].notna().any():
        unit = f"excess {unit} (distance to real images, less what real images have between themselves)"
    encoder_note = f" by the encoder {encoder}" if encoder else ""
    note = f"Numbers are {unit}{encoder_note}; lower is better; in brackets 95 % intervals."
    result = [Sentence(note, "note", TOPIC), *_best_run_sentence(rows, runs, metric)]
    result += [_run_sentence(rows[rows["run"] == run], run, metric) for run in runs]
    reconstructed = rows[rows["run"] == "reconstruction"]
    overall = first_row(reconstructed, attribute="*", group="*")
    if overall is not None and is_finite(overall["estimate"]):
        excess = reconstructed.loc[is_group(reconstructed) & reconstructed["excess"].notna(), "excess"]
        text = f"The autoencoder alone (reconstruction) costs {_distance_text(overall, metric)} over the whole set"
        text += f", {interval(excess.min(), excess.max(), metric)} between groups" if len(excess) > 1 else ""
        result.append(Sentence(text + ", before any generator is involved.", "finding", TOPIC))
    result += _mechanism_sentences(rows, runs, metric)
    result += [Sentence(text, "finding", TOPIC) for text in worst_intersection(crossed, metric)]
    empty = rows[is_group(rows) & rows["estimate"].isna()]
    small = [f"{attribute} {group}" for attribute, group in zip(empty["attribute"], empty["group"], strict=True)]
    if small:
        text = f"Not evaluated, too few images or patients: {listing(list(dict.fromkeys(small)))}."
        result.append(Sentence(text, "caution", TOPIC))
    return result


def _distance_text(row: Any, metric: Metric) -> str:
    """The excess with the distance's interval shifted by the floor, or the distance itself where it has no floor."""
    if not is_finite(row["excess"]):
        return f"{estimate_text(row['estimate'], row['ci_low'], row['ci_high'], metric)}, no floor measured"
    floor = row["estimate"] - row["excess"]
    return estimate_text(row["excess"], row["ci_low"] - floor, row["ci_high"] - floor, metric)


def _best_run_sentence(rows: pd.DataFrame, runs: list[str], metric: Metric) -> list[Sentence]:
    """The run closest to the real images over the whole set; empty for fewer than two runs."""
    overall = (rows["attribute"] == "*") & (rows["group"] == "*")
    ranking = rows[overall & rows["run"].isin(runs) & rows["estimate"].notna()].sort_values("estimate", kind="stable")
    if len(ranking) < 2:
        return []
    first, second = ranking.iloc[0], ranking.iloc[1]
    text = "Of these sets of images, the closest to the real ones overall: "
    text += f"{first['run']}, {_distance_text(first, metric)}"
    runner_up = f"{second['run']}, {_distance_text(second, metric)}"
    if is_finite(first["ci_high"]) and first["ci_high"] < second["ci_low"]:
        return [Sentence(f"{text}; next {runner_up}.", "finding", TOPIC)]
    return [Sentence(f"{text}; {runner_up}, is next and the order of the two is not established.", "chance", TOPIC)]


def _run_sentence(rows: pd.DataFrame, run: str, metric: Metric) -> Sentence:
    """The distance of one run over the whole set; by attribute the worst group and the gap."""
    overall = first_row(rows, attribute="*", group="*")
    text = f"{run}: the whole set was not evaluated."
    if overall is not None and is_finite(overall["estimate"]):
        text = f"{run}: {_distance_text(overall, metric)} over the whole set."
    parts = []
    for attribute in attribute_names(rows):
        attribute_rows = rows[rows["attribute"] == attribute]
        gap = first_row(attribute_rows, group="gap")
        column = "excess" if attribute_rows["excess"].notna().any() else "estimate"
        worst = worst_group(attribute_rows[is_group(attribute_rows)], metric, column)
        clauses = [f"worst group {worst['group']}, {_distance_text(worst, metric)}"] if worst is not None else []
        clauses.append(gap_text(gap, metric) if gap is not None else "gap not evaluated")
        parts.append(f"by {attribute}: {'; '.join(clauses)}")
    return Sentence(text, "finding", TOPIC, tuple(parts))


def worst_intersection(rows: pd.DataFrame, metric: Metric) -> list[str]:
    """One sentence on the worst intersection of all runs: its value, its gap and how many are too small."""
    groups = rows[is_group(rows) & ~rows["run"].isin(REFERENCES)]
    if groups.empty:
        return []
    cells = groups[["attribute", "group"]].drop_duplicates()
    judged = groups[groups["estimate"].notna()][["attribute", "group"]].drop_duplicates()
    small = f"{len(cells) - len(judged)} of {len(cells)} intersections are too small to be judged."
    worst = worst_group(groups, metric, "excess" if groups["excess"].notna().any() else "estimate")
    if worst is None:
        return [f"No intersection can be called the worst: fewer than two have a number. {small}"]
    text = f"Worst intersection: {worst['group']}, {worst['run']}, {_distance_text(worst, metric)}"
    gap = first_row(rows, run=worst["run"], attribute=worst["attribute"], group="gap")
    gap_clause = f"; {gap_text(gap, metric)}{correction_note(gap)}" if gap is not None else ""
    return [f"{text}{gap_clause}.{f' {small}' if len(judged) < len(cells) else ''}"]


def _mechanism_sentences(rows: pd.DataFrame, runs: list[str], metric: Metric) -> list[Sentence]:
    """Each mechanism against ``none``: groups by kind of change, changes of gaps, number of training seeds."""
    families = runs_by_mechanism(runs)
    mechanisms = [name for name in families if name != "none"]
    if "none" not in families:
        text = "No run is called 'none', so no mechanism is compared with plain training."
        return [Sentence(text, "missing", TOPIC)]
    if not mechanisms:
        text = "Only plain training ('none') was evaluated; no mechanism is compared."
        return [Sentence(text, "missing", TOPIC)]
    result, base = [], families["none"]
    for name in mechanisms:
        group_rows = rows[rows["run"].isin(base + families[name]) & ((rows["group"] == "*") | is_group(rows))]
        cells = dict.fromkeys(zip(group_rows["attribute"], group_rows["group"], strict=True))
        changes = [_compare_cell(rows, base, families[name], cell=cell, metric=metric) for cell in cells]
        parts = []
        for kind, phrase in _CHANGES.items():
            with_values = kind in {"better", "worse"}
            groups = [f"{change.group} {change.values}" if with_values else change.group
                      for change in changes if change.kind == kind]  # fmt: skip
            parts += [f"{phrase}: {'; '.join(groups)}"] if groups else []
        for attribute in attribute_names(rows):
            is_gap = (rows["attribute"] == attribute) & (rows["group"] == "gap")
            gaps = rows[is_gap & rows["run"].isin(base + families[name])].to_dict("records")
            if gaps:
                change = _compare_cell(rows, base, families[name], cell=(attribute, "gap"), metric=metric)
                by_chance = all(verdict(row, metric).exceeds_chance is False for row in gaps)
                reading = "none of them distinguishable from chance" if by_chance else _GAP_CHANGES[change.kind]
                parts.append(f"gap by {attribute} {change.values}: {reading}")
        text = f"{name} against none (none → {name}). {_seed_note(len(base), len(families[name]))}"
        tone = "caution" if min(len(base), len(families[name])) < MIN_SEEDS else "finding"
        result.append(Sentence(text, tone, TOPIC, tuple(parts) or ("no group could be compared",)))
    return result


@dataclass(frozen=True)
class _CellChange:
    """Values of one group under plain training and under a mechanism; ``kind`` is a key of ``_CHANGES``."""

    group: str
    kind: str
    values: str


def _compare_cell(
    rows: pd.DataFrame, base: list[str], runs: list[str], *, cell: tuple[str, str], metric: Metric
) -> _CellChange:
    """Compare one group (attribute, group) by the intervals of its excess; over several seeds by their widest range.

    Gaps are compared without subtracting a floor, since their chance band is one of distances too. Only ranges that
    do not overlap count as a difference, which is stricter than a test at 0.05.
    """
    attribute, group = cell
    label = "the whole set" if group == "*" else f"{attribute} {group}"
    rows = rows[(rows["attribute"] == attribute) & (rows["group"] == group)]
    before, after = (_SeedRange.from_rows(rows[rows["run"].isin(names)], len(names)) for names in (base, runs))
    values = " → ".join(estimate_text(spread.mean, spread.low, spread.high, metric) for spread in (before, after))
    if not all(is_finite(end) for end in (before.low, before.high, after.low, after.high)):
        return _CellChange(label, "unknown", values)
    kind = "better" if after.high < before.low else "worse" if after.low > before.high else "unclear"
    return _CellChange(label, kind, values)


@dataclass(frozen=True)
class _SeedRange:
    """Mean excess over the seeds of one mechanism, and the lowest and highest end of their intervals."""

    mean: float
    low: float
    high: float

    @classmethod
    def from_rows(cls, rows: pd.DataFrame, seeds: int) -> _SeedRange:
        """Mean and range of ``rows``, one row a seed; the ends are NaN unless all ``seeds`` have their interval."""
        floor = (rows["estimate"] - rows["excess"]).where(rows["group"] != "gap").fillna(0.0)
        mean = float((rows["estimate"] - floor).mean())
        ends = pd.DataFrame({"low": rows["ci_low"] - floor, "high": rows["ci_high"] - floor})
        if len(ends) != seeds or ends.isna().any(axis=None):
            return cls(mean, float("nan"), float("nan"))
        return cls(mean, float(ends["low"].min()), float(ends["high"].max()))


def _seed_note(base: int, runs: int) -> str:
    """A sentence on what ``base`` and ``runs`` training seeds can support."""
    seeds = min(base, runs)
    if seeds <= 1:
        return "One training seed: not evidence about the mechanism, only about these two sets of images."
    if seeds < MIN_SEEDS:
        return f"{seeds} training seeds: not evidence about the mechanism, which needs at least {MIN_SEEDS}."
    odds = 2 / comb(base + runs, runs)
    return (
        f"{base} and {runs} training seeds; values are means over seeds, in brackets the widest range. If the "
        f"mechanism did nothing, all its seeds would still fall on one side in about {odds:.0%} of comparisons."
    )
