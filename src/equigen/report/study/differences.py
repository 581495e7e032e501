"""The section that compares sets of generated images: paired differences against the reference."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from equigen.report.figures import REFERENCES, run_styles
from equigen.report.findings import LEVEL, is_intersection, runs_by_mechanism, without_intersections
from equigen.report.forest import Mark, forest_plot
from equigen.report.forest_figures import alt_text, axis_name
from equigen.report.frames import unique_values
from equigen.report.layout import Block, Cell, Picture, Row, Section, Sentence, Table
from equigen.report.metrics import Metric, lookup_metric, sort_metrics
from equigen.report.rounding import ABSENT, difference_text, interval, is_finite, listing, number, p_text, signed_number
from equigen.statistics import holm

TOPIC = "Generators compared"
SEEDS = 3
NORMAL_QUANTILE = NormalDist().inv_cdf(0.975)
MAX_SCORE = 30.0  # standard errors, beyond which a p-value is 0 for any purpose
MAIN_METRICS = ["kd", "near_copies", "semantic_auc"]
DIRECTIONS = ["better", "worse", "higher", "lower"]
NO_DIFFERENCE = "no difference established"
_INTRO = (
    "Every set of generated images against the reference, on the same real images and in the same resamples, so "
    "that what they share cancels. The axis says on which side of 0 is better; of a gap, smaller is better. An "
    "interval that holds 0 establishes nothing, nor does one whose p-value, where given, is above 0.05. "
    "P-values and intervals are those of one row alone; verdicts are corrected over rows. "
)


def differences_section(differences: pd.DataFrame) -> Section | None:
    """Differences of the headline metrics in full, the other metrics folded; None where nothing is compared."""
    if differences.empty:
        return None
    differences = add_holm(differences)
    rows = without_intersections(differences)
    pairs = [(name, encoder) for name in sort_metrics(unique_values(rows["metric"]))
             for encoder in unique_values(rows.loc[rows["metric"] == name, "encoder"])]  # fmt: skip
    shown = [pair for pair in pairs if pair[0] in MAIN_METRICS] or pairs[:1]
    several = rows["encoder"].nunique() > 1
    blocks = [_block(rows, pair, several, place) for place, pair in enumerate(shown)]
    rest = [pair for pair in pairs if pair not in shown]
    if rest:
        inner = [_block(rows, pair, several, len(shown) + place) for place, pair in enumerate(rest)]
        title = f"Other metrics: {listing(list(dict.fromkeys(lookup_metric(name).short for name, _ in rest)))}"
        pictures, tables = [p for b in inner for p in b.pictures], [t for b in inner for t in b.tables]
        blocks.append(Block(title, [], pictures, tables, folded=True))
    crossed = differences[is_intersection(differences)]
    if not crossed.empty:
        names = sort_metrics(unique_values(crossed["metric"]))
        tables = [_table(crossed[crossed["metric"] == name], lookup_metric(name), "") for name in names]
        blocks.append(Block("Generators compared on intersections", tables=tables, folded=True))
    return Section("compared", "Generators compared", _INTRO + seed_text(differences), blocks, "")


def _block(rows: pd.DataFrame, pair: tuple[str, str], several: bool, place: int) -> Block:
    """One metric by one encoder: a forest for each reference, and the table."""
    name, encoder = pair
    words, by = lookup_metric(name), f", encoder {pair[1]}" if several and pair[1] else ""
    own = rows[(rows["metric"] == name) & (rows["encoder"] == encoder)]
    pictures = [
        _picture(own[own["difference_to"] == base], words, base, f"d{place}-{index}")
        for index, base in enumerate(unique_values(own["difference_to"]))
    ]
    return Block(f"{words.title}{by}", [], pictures, [_table(own, words, by)])


def _picture(rows: pd.DataFrame, words: Metric, base: str, slug: str) -> Picture:
    """A forest of differences: the whole set, groups and gaps, a mark per run, and the line at 0."""
    marks = [
        Mark(row_name(row), str(row["run"]), row["difference"], row["ci_low"], row["ci_high"], remark="not evaluated")
        for row in rows.to_dict("records")
    ]
    caption = f"difference to {base or 'the reference'}"
    way = {"lower": ", below 0 is better", "higher": ", above 0 is better (of a gap: below)", "": ""}[words.better]
    names = unique_values(rows["run"])
    svg = forest_plot(
        marks, [], axis=f"difference in {axis_name(words)}{way}", scale=words.scale, slug=slug, series=names,
        alt=alt_text(marks, words, caption), styles=run_styles(names), zero="0: no difference",
    )  # fmt: skip
    return Picture(svg, f"{words.short}, {caption}")


def _table(rows: pd.DataFrame, words: Metric, by: str) -> Table:
    """Value, reference, difference and verdict of every row, run by run."""
    result: list[Row] = []
    for run, base in dict.fromkeys(zip(rows["run"], rows["difference_to"], strict=True)):
        own = rows[(rows["run"] == run) & (rows["difference_to"] == base)]
        result.append(Row(f"{run} against {base or 'the reference'}", kind="attribute"))
        result += [_row(row, words) for row in own.to_dict("records")]
    head = ["group", "value", "reference", "difference", "95 % interval", "p", "verdict"]
    return Table(f"{words.title}{by}: paired differences", head, result)


def _row(row: Any, words: Metric) -> Row:
    said = difference_verdict(row)
    firm = said in DIRECTIONS
    cells = [
        Cell(number(row["estimate"], words)),
        Cell(number(row["reference"], words)),
        Cell(signed_number(row["difference"], words)),
        Cell(interval(row["ci_low"], row["ci_high"], words) or ABSENT),
        Cell(p_text(row["p_value"]).removeprefix("p ").removeprefix("= ") or ABSENT),
        Cell(said, mark="beyond" if firm else "" if is_finite(row["difference"]) else "missing"),
    ]
    return Row(row_name(row), cells, "derived" if row["group"] in {"gap", "es", "worst"} else "")


def difference_verdict(row: Any) -> str:
    """``better``, ``worse`` or ``no difference established``, for the run against its reference.

    A difference is established when its interval leaves zero out and, where a p-value is given, that is at
    most 0.05. Which sign is better depends on the metric; a smaller gap is better for all of them. A metric
    without a direction is ``higher`` or ``lower``. Without an interval nothing is established, nor where ``p_holm``
    (``add_holm``) is above 0.05.
    """
    if not is_finite(row["difference"]):
        return "not evaluated"
    low, high = row["ci_low"], row["ci_high"]
    if not is_finite(low) or not is_finite(high):
        return "no interval: nothing is established"
    if low <= 0 <= high or (is_finite(row["p_value"]) and row["p_value"] > LEVEL):
        return NO_DIFFERENCE
    if is_finite(row.get("p_holm")) and row["p_holm"] > LEVEL:
        return NO_DIFFERENCE
    rises = low > 0
    wanted = "lower" if row["group"] == "gap" else lookup_metric(row["metric"]).better
    if not wanted:
        return "higher" if rises else "lower"
    return "better" if rises == (wanted == "higher") else "worse"


def difference_sentences(differences: pd.DataFrame) -> list[Sentence]:
    """For the headline metrics: each run against its reference overall, then groups and gaps that differ."""
    if differences.empty:
        return []
    names = [name for name in MAIN_METRICS if (differences["metric"] == name).any()]
    chosen = names or unique_values(differences["metric"])[:1]
    rows = without_intersections(_first_encoder(add_holm(differences)))
    rows = rows[rows["metric"].isin(chosen)]
    pairs = rows[["run", "difference_to"]].drop_duplicates().to_dict("records")
    said = [
        _pair(part, pair, chosen)
        for pair in pairs
        if not (part := rows[(rows["run"] == pair["run"]) & (rows["difference_to"] == pair["difference_to"])]).empty
    ]
    return [_seeds(differences), *said]


def add_holm(differences: pd.DataFrame) -> pd.DataFrame:
    """The rows with ``p_holm``: p adjusted by Holm over what is said of one set against another; es is not in it.

    A family is the headline metrics of one pair of sets and one encoder, whole set, groups and gaps; each other metric
    is a family of its own, and so are the intersections. The table's p-values cannot be below 2 / (1 + replicates),
    which no family of many rows survives, so p is taken from difference and interval as those of a normal variable, and
    no smaller p counts where the table's is above 0.05 already.
    """
    rows = differences.reset_index(drop=True).assign(p_holm=np.nan)
    named = [name for name in MAIN_METRICS if (rows["metric"] == name).any()]
    family = rows["metric"].where(~rows["metric"].isin(named), "headlines")
    keys = [rows["run"], rows["difference_to"], rows["encoder"], family, is_intersection(rows)]
    wide = rows["ci_high"] - rows["ci_low"]
    tested = rows["difference"].notna() & wide.notna() & (rows["group"] != "es")
    for _, part in rows[tested].groupby(keys, sort=False, dropna=False):
        error = (part["ci_high"] - part["ci_low"]).to_numpy(float) / (2 * NORMAL_QUANTILE)
        size = np.abs(part["difference"].to_numpy(float))
        score = np.divide(size, error, out=np.where(size > 0, np.inf, 0.0), where=error > 0)
        p = np.array([2 * NormalDist().cdf(-min(float(value), MAX_SCORE)) for value in score])
        rows.loc[part.index, "p_holm"] = holm(p)
    return rows


def _first_encoder(rows: pd.DataFrame) -> pd.DataFrame:
    """Each metric by the first encoder that measured it."""
    first = rows.groupby("metric")["encoder"].transform("first")
    return rows[rows["encoder"] == first]


def _pair(rows: pd.DataFrame, pair: Any, names: list[str]) -> Sentence:
    parts = [_metric(rows[rows["metric"] == name], lookup_metric(name)) for name in names]
    verdicts = {difference_verdict(row) for row in rows.to_dict("records")}
    firm = bool(verdicts & set(DIRECTIONS))
    text = f"{pair['run']} against {pair['difference_to'] or 'its reference'}, on the same real images:"
    return Sentence(text, "finding" if firm else "chance", TOPIC, tuple(filter(None, parts)))


def _metric(rows: pd.DataFrame, words: Metric) -> str:
    """Overall difference, then the groups and gaps by verdict; those undecided are counted."""
    if rows.empty:
        return ""
    said = [f"{_said(row, words)}: {difference_verdict(row)}" for row in rows[rows["group"] == "*"].to_dict("records")]
    others = rows[~rows["group"].isin(["*", "es"])].to_dict("records")
    for verdict in DIRECTIONS:
        own = [_said(row, words) for row in others if difference_verdict(row) == verdict]
        said += [f"{verdict} for {', '.join(own)}"] if own else []
    rest = sum(difference_verdict(row) not in DIRECTIONS for row in others)
    said += [f"{NO_DIFFERENCE} for {rest} of {len(others)} groups and gaps"] if rest else []
    scale = " x 1000" if words.scale == 1000 else ""
    return f"{words.short}{scale}: {'; '.join(said)}"


def _said(row: Any, words: Metric) -> str:
    value = difference_text(row["difference"], row["ci_low"], row["ci_high"], words)
    return f"{row_name(row)} {value}"


def row_name(row: Any) -> str:
    """``whole set``, ``sex female``, ``gap by sex``, ``equity-scaled by sex``."""
    if row["attribute"] == "*":
        return "whole set"
    derived = {"gap": "gap by", "es": "equity-scaled by", "worst": "worst group by"}.get(row["group"])
    return f"{derived} {row['attribute']}" if derived else f"{row['attribute']} {row['group']}"


def _seeds(differences: pd.DataFrame) -> Sentence:
    return Sentence(seed_text(differences), "caution" if few_seeds(differences) else "note", TOPIC)


def few_seeds(differences: pd.DataFrame) -> bool:
    """Whether some generator was trained fewer than three times."""
    return min(map(len, _families(differences).values()), default=0) < SEEDS


def seed_text(differences: pd.DataFrame) -> str:
    """What a difference between sets of images says, and does not say, about the ways of training."""
    few = [name for name, runs in _families(differences).items() if len(runs) < SEEDS]
    text = ("The intervals hold which patients and images were drawn, not another training run. Better and worse are "
            "said where they stand after Holm's correction over the groups, gaps and metrics of a comparison.")
    if not few:
        return f"{text} Each generator was trained with at least {SEEDS} seeds: read the differences seed by seed."
    return (
        f"{text} With fewer than {SEEDS} training seeds ({listing(few)}) a difference is one between these sets "
        "of images: not evidence about the way they were trained."
    )


def _families(differences: pd.DataFrame) -> dict[str, list[str]]:
    names = dict.fromkeys([*unique_values(differences["difference_to"]), *unique_values(differences["run"])])
    return runs_by_mechanism([name for name in names if name and name not in REFERENCES])
