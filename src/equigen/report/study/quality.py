"""The section on image quality: one distance in full, everything else folded away below it."""

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
from equigen.report.forest_figures import direction_text, group_pictures
from equigen.report.frames import unique_values
from equigen.report.layout import Block, Section, Sentence
from equigen.report.metrics import Metric, lookup_metric, sort_metrics
from equigen.report.rounding import estimate_text, interval, is_finite, listing
from equigen.report.study.details import family_block, has_errors, metrics_table, monte_carlo_text, numbers_table
from equigen.report.tables import value_table

TOPIC = "Image quality per group"
SEEDS = 3
_CHANGES = {
    "better": "closer to the real images",
    "worse": "further from the real images",
    "unclear": "no difference beyond chance established",
    "unknown": "not comparable, a value or its interval is missing",
}
_GAPS = {
    "better": "narrower",
    "worse": "wider",
    "unclear": "no change beyond chance established",
    "unknown": "change not judged, an interval is missing",
}
SEPARATE_FAMILIES = ["memorisation", "semantic"]  # families with a section of their own
_FAMILIES = {
    "distance": "Other distances",
    "variety": "Variety",
    "manifold": "Realism and variety apart",
    "": "Other measures",
}
_FAMILY_LEADS = {
    "distance": "They say much the same as KD where n is large. They are biased at small n: read them beside what "
    "real images have between themselves, and quote KD.",
    "variety": "A score of the generated images alone: it knows no real image, so it cannot see that they are wrong.",
    "manifold": "Precision and density ask whether generated images look real, recall and coverage whether all of "
    "the real variety is there. They depend on n and k: compare them with what real held-out images score.",
    "": "",
}


def family_rows(quality: pd.DataFrame, names: list[str], *, others: bool = False) -> pd.DataFrame:
    """The rows of a quality table whose metric belongs to one of these families (or to none of them)."""
    family = quality["metric"].map(lambda name: lookup_metric(str(name)).family)
    return quality[family.isin(names) != others]


def quality_section(quality: pd.DataFrame) -> Section:
    """The distance that is quoted per group and encoder in full; the rest in folded tables."""
    rows = family_rows(quality, SEPARATE_FAMILIES, others=True)
    intro = (
        "Generated against real images of the same group, all groups at one number of images. The black tick "
        "is what real images give; reconstruction is what latent coding alone costs. Bars are 95 % intervals."
    )
    blocks = [
        block
        for place, encoder in enumerate(unique_values(rows["encoder"]))
        for block in _encoder_blocks(rows[rows["encoder"] == encoder], encoder, place)
    ]
    return Section("quality", "Image quality per group", intro, blocks, "Image quality was not evaluated.")


def _encoder_blocks(rows: pd.DataFrame, encoder: str, place: int) -> list[Block]:
    """The first metric in full; then its errors, intersections and the other metrics, each folded."""
    names = sort_metrics(unique_values(rows["metric"]))
    first, by = lookup_metric(names[0]), f", encoder {encoder}" if encoder else ""
    single = without_intersections(rows)
    own = single[single["metric"] == first.name]
    blocks = [] if own.empty else [main_block(own, first, f"{first.title}{by}", f"q{place}-{first.name}")]
    if has_errors(own):
        title = f"{first.short}{by}: all numbers, with standard and Monte-Carlo errors"
        blocks.append(Block(title, monte_carlo_text(own), tables=[numbers_table(own, first)], folded=True))
    blocks += intersection_block(rows, names, by)
    rest = single[single["metric"] != first.name]
    for family, title in _FAMILIES.items():
        part = family_rows(rest, [family])
        if not part.empty:
            shorts = listing([lookup_metric(name).short for name in sort_metrics(unique_values(part["metric"]))])
            lead = [_FAMILY_LEADS[family]] if _FAMILY_LEADS[family] else []
            blocks.append(family_block(part, f"{title}: {shorts}{by}", lead))
    return blocks


def plot_block(rows: pd.DataFrame, words: Metric, title: str, slug: str) -> Block:
    """A metric with a forest plot for each attribute; its numbers stand in a table further down."""
    return Block(title, [direction_text(words)], group_pictures(rows, words, slug))


def main_block(rows: pd.DataFrame, words: Metric, title: str, slug: str) -> Block:
    """A metric with a forest plot for each attribute and its table; runs are columns."""
    size = _size(rows, words)
    excess = ", excess over the floor" if rows["excess"].notna().any() else ""
    table = value_table(rows, "run", words, f"{title}: value, interval{excess}", size)
    return replace(plot_block(rows, words, title, slug), tables=[table])


def _size(rows: pd.DataFrame, words: Metric) -> str:
    """The column that says on how many images a metric stands: all of a group's, but for distances matched n."""
    matched = words.family not in SEPARATE_FAMILIES and rows["matched_n"].notna().any()
    return "matched_n" if matched else "n_generated"


def intersection_block(rows: pd.DataFrame, names: list[str], by: str) -> list[Block]:
    """Groups of two attributes at once, folded: the first metric run by run, then all metrics side by side."""
    own = rows[is_intersection(rows)]
    if own.empty:
        return []
    present = [name for name in names if (own["metric"] == name).any()]
    first = lookup_metric(present[0])
    part = own[own["metric"] == first.name]
    tables = [value_table(part, "run", first, f"{first.title}, intersections", _size(part, first))]
    if len(present) > 1:
        tables += [metrics_table(own[own["run"] == run], present[1:], run) for run in unique_values(own["run"])]
    lead = "Patients who share the groups of two attributes; small cells get no number."
    text = [lead, *worst_intersection(part, first)]
    return [Block(f"Intersections of attributes{by}", text, tables=tables, folded=True)]


def quality_sentences(quality: pd.DataFrame) -> list[Sentence]:
    """Findings of the quality table, on excess KD (else FD) of its first encoder; caution where due."""
    if quality.empty:
        return [Sentence("Image quality was not evaluated.", "missing", TOPIC)]
    name = next((m for m in ("kd", "fd", "fd_inf") if (quality["metric"] == m).any()), None)
    if name is None:
        none = Sentence("No distance to the real images (KD or FD) was evaluated.", "missing", TOPIC)
        return [none]
    words, rows = lookup_metric(name), quality[quality["metric"] == name]
    encoder = unique_values(rows["encoder"])[0]
    rows = rows[rows["encoder"] == encoder]
    crossed, rows = rows[is_intersection(rows)], without_intersections(rows)
    runs = [run for run in unique_values(rows["run"]) if run not in REFERENCES]
    result = [_unit(rows, encoder, words), *_best(rows, runs, words)]
    result += [_state(rows[rows["run"] == run], run, words) for run in runs]
    result += _reconstruction(rows[rows["run"] == "reconstruction"], words)
    result += _mechanisms(rows, runs, words)
    result += [Sentence(text, "finding", TOPIC) for text in worst_intersection(crossed, words)]
    return result + _too_small(rows)


def _unit(rows: pd.DataFrame, encoder: str, words: Metric) -> Sentence:
    """What the numbers below are."""
    name = f"{words.short} x 1000" if words.scale == 1000 else words.short
    excess = rows["excess"].notna().any()
    unit = (
        f"excess {name} (distance to real images, less what real images have between themselves)"
        if excess
        else name
    )
    by = f" by the encoder {encoder}" if encoder else ""
    return Sentence(f"Numbers are {unit}{by}; lower is better; in brackets 95 % intervals.", "note", TOPIC)


def _distance(row: Any, words: Metric) -> str:
    """The excess with its interval, or the distance itself where no floor is known."""
    if not is_finite(row["excess"]):
        return f"{estimate_text(row['estimate'], row['ci_low'], row['ci_high'], words)}, no floor measured"
    return estimate_text(row["excess"], *_excess_interval(row), words)


def _excess_interval(row: Any) -> tuple[float, float]:
    """The distance's interval shifted by the floor, which is taken as known."""
    shift = row["estimate"] - row["excess"]
    return row["ci_low"] - shift, row["ci_high"] - shift


def _best(rows: pd.DataFrame, runs: list[str], words: Metric) -> list[Sentence]:
    """The run closest to the real images over the whole set, if there are several."""
    whole = rows[
        (rows["attribute"] == "*")
        & (rows["group"] == "*")
        & rows["run"].isin(runs)
        & rows["estimate"].notna()
    ]
    if len(whole) < 2:
        return []
    ordered = whole.sort_values("estimate", kind="stable")
    first, second = ordered.iloc[0], ordered.iloc[1]
    text = "Of these sets of images, the closest to the real ones overall: "
    text += f"{first['run']}, {_distance(first, words)}"
    if is_finite(first["ci_high"]) and first["ci_high"] < second["ci_low"]:
        return [Sentence(f"{text}; next {second['run']}, {_distance(second, words)}.", "finding", TOPIC)]
    text += (
        f"; {second['run']}, {_distance(second, words)}, is next and the order of the two is not established."
    )
    return [Sentence(text, "chance", TOPIC)]


def _state(rows: pd.DataFrame, run: str, words: Metric) -> Sentence:
    """Overall distance, and by attribute the worst group and the gap of one run."""
    whole = first_row(rows, attribute="*", group="*")
    text = f"{run}: the whole set was not evaluated."
    if whole is not None and is_finite(whole["estimate"]):
        text = f"{run}: {_distance(whole, words)} over the whole set."
    parts = []
    for attribute in attribute_names(rows):
        part = rows[rows["attribute"] == attribute]
        gap = first_row(part, group="gap")
        worst = worst_group(
            part[is_group(part)], words, "excess" if part["excess"].notna().any() else "estimate"
        )
        said = [f"worst group {worst['group']}, {_distance(worst, words)}"] if worst is not None else []
        said.append(gap_text(gap, words) if gap is not None else "gap not evaluated")
        parts.append(f"by {attribute}: {'; '.join(said)}")
    return Sentence(text, "finding", TOPIC, tuple(parts))


def worst_intersection(rows: pd.DataFrame, words: Metric) -> list[str]:
    """One sentence on the worst intersection of all runs, with its chance band and what could not be judged."""
    groups = rows[is_group(rows) & ~rows["run"].isin(REFERENCES)]
    if groups.empty:
        return []
    cells = groups[["attribute", "group"]].drop_duplicates()
    judged = groups[groups["estimate"].notna()][["attribute", "group"]].drop_duplicates()
    left = f"{len(cells) - len(judged)} of {len(cells)} intersections are too small to be judged."
    worst = worst_group(groups, words, "excess" if groups["excess"].notna().any() else "estimate")
    if worst is None:
        return [f"No intersection can be called the worst: fewer than two have a number. {left}"]
    text = f"Worst intersection: {worst['group']}, {worst['run']}, {_distance(worst, words)}"
    gap = first_row(rows, run=worst["run"], attribute=worst["attribute"], group="gap")
    said = f"; {gap_text(gap, words)}{correction_note(gap)}" if gap is not None else ""
    return [f"{text}{said}.{f' {left}' if len(judged) < len(cells) else ''}"]


def _reconstruction(rows: pd.DataFrame, words: Metric) -> list[Sentence]:
    whole = first_row(rows, attribute="*", group="*")
    if whole is None or not is_finite(whole["estimate"]):
        return []
    groups = rows[is_group(rows) & rows["excess"].notna()]
    span = interval(groups["excess"].min(), groups["excess"].max(), words) if len(groups) > 1 else ""
    text = f"The autoencoder alone (reconstruction) costs {_distance(whole, words)} over the whole set"
    text += f", {span} between groups" if span else ""
    return [Sentence(text + ", before any generator is involved.", "finding", TOPIC)]


def _mechanisms(rows: pd.DataFrame, runs: list[str], words: Metric) -> list[Sentence]:
    """Every mechanism against ``none``."""
    families = runs_by_mechanism(runs)
    others = [name for name in families if name != "none"]
    if "none" not in families:
        return [
            Sentence(
                "No run is called 'none', so no mechanism is compared with plain training.", "missing", TOPIC
            )
        ]
    if not others:
        return [
            Sentence(
                "Only plain training ('none') was evaluated; no mechanism is compared.", "missing", TOPIC
            )
        ]
    return [_compared(rows, families["none"], families[name], name, words) for name in others]


def _compared(rows: pd.DataFrame, base: list[str], runs: list[str], name: str, words: Metric) -> Sentence:
    changes = [_change(rows, base, runs, cell=key, words=words) for key in _cells(rows, base + runs)]
    parts = [_named(changes, kind) for kind in _CHANGES]
    parts += [_gap_change(rows, base, runs, attribute, words) for attribute in attribute_names(rows)]
    seeds = min(len(base), len(runs))
    text = f"{name} against none (none → {name}). {_seed_note(seeds, len(base), len(runs))}"
    said = tuple(part for part in parts if part) or ("no group could be compared",)
    return Sentence(text, "caution" if seeds < SEEDS else "finding", TOPIC, said)


def _cells(rows: pd.DataFrame, runs: list[str]) -> list[tuple[str, str]]:
    part = rows[rows["run"].isin(runs) & ((rows["group"] == "*") | is_group(rows))]
    return list(dict.fromkeys(zip(part["attribute"], part["group"], strict=True)))


@dataclass(frozen=True)
class _Change:
    """One group's values under plain training and under a mechanism, and what may be said about them."""

    group: str
    kind: str
    values: str


def _change(
    rows: pd.DataFrame, base: list[str], runs: list[str], *, cell: tuple[str, str], words: Metric
) -> _Change:
    """Compare one group by the intervals of its excess; over several seeds by the widest range of them.

    A gap is compared as it is, since its chance band is one of distances too.
    Only ranges that do not overlap count as a difference, which is stricter than a test at 0.05.
    """
    attribute, group = cell
    label = "the whole set" if group == "*" else f"{attribute} {group}"
    part = rows[(rows["attribute"] == attribute) & (rows["group"] == group)]
    before, after = (_Spread.of(part[part["run"].isin(own)], len(own)) for own in (base, runs))
    values = f"{before.text(words)} → {after.text(words)}"
    if not all(is_finite(value) for value in (before.low, before.high, after.low, after.high)):
        return _Change(label, "unknown", values)
    kind = "better" if after.high < before.low else "worse" if after.low > before.high else "unclear"
    return _Change(label, kind, values)


@dataclass(frozen=True)
class _Spread:
    """Mean excess over the seeds of one mechanism, and the lowest and highest end of their intervals."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, rows: pd.DataFrame, wanted: int) -> _Spread:
        """Of ``wanted`` seeds; the ends are NaN when one of them lacks its interval."""
        shift = (rows["estimate"] - rows["excess"]).where(rows["group"] != "gap").fillna(0.0)
        mean = float((rows["estimate"] - shift).mean())
        ends = pd.DataFrame({"low": rows["ci_low"] - shift, "high": rows["ci_high"] - shift})
        if len(ends) != wanted or ends.isna().any(axis=None):
            return cls(mean, float("nan"), float("nan"))
        return cls(mean, float(ends["low"].min()), float(ends["high"].max()))

    def text(self, words: Metric) -> str:
        """``279 (267 to 291)``."""
        return estimate_text(self.mean, self.low, self.high, words)


def _named(changes: list[_Change], kind: str) -> str:
    """The groups of one kind; values are given where a difference is claimed."""
    chosen = [change for change in changes if change.kind == kind]
    if not chosen:
        return ""
    valued = kind in {"better", "worse"}
    return f"{_CHANGES[kind]}: {'; '.join(f'{c.group} {c.values}' if valued else c.group for c in chosen)}"


def _gap_change(rows: pd.DataFrame, base: list[str], runs: list[str], attribute: str, words: Metric) -> str:
    """What became of one attribute's gap; nothing where no gap was computed."""
    gaps = rows[(rows["attribute"] == attribute) & (rows["group"] == "gap") & rows["run"].isin(base + runs)]
    if gaps.empty:
        return ""
    change = _change(rows, base, runs, cell=(attribute, "gap"), words=words)
    if all(verdict(row, words).exceeds_chance is False for row in gaps.to_dict("records")):
        return f"gap by {attribute} {change.values}: none of them distinguishable from chance"
    return f"gap by {attribute} {change.values}: {_GAPS[change.kind]}"


def _seed_note(seeds: int, base: int, runs: int) -> str:
    if seeds <= 1:
        return "One training seed: not evidence about the mechanism, only about these two sets of images."
    if seeds < SEEDS:
        return f"{seeds} training seeds: not evidence about the mechanism, which needs at least {SEEDS}."
    odds = 2 / comb(base + runs, runs)
    return (
        f"{base} and {runs} training seeds; values are means over seeds, in brackets the widest range. If "
        "the mechanism did nothing, all its seeds would still fall on one side in about "
        f"{odds:.0%} of comparisons."
    )


def _too_small(rows: pd.DataFrame) -> list[Sentence]:
    empty = rows[is_group(rows) & rows["estimate"].isna()]
    names = list(dict.fromkeys(f"{a} {g}" for a, g in zip(empty["attribute"], empty["group"], strict=True)))
    if not names:
        return []
    return [Sentence(f"Not judged, for want of images or patients: {listing(names)}.", "caution", TOPIC)]
