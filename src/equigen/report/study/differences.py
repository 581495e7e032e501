"""Sets of generated images compared: paired differences against a reference, as section and as sentences."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from equigen.report.figures import REFERENCES, run_styles
from equigen.report.findings import LEVEL, is_intersection, runs_by_mechanism, without_intersections
from equigen.report.forest import Mark, alt_text, axis_name, forest_plot
from equigen.report.frames import unique_values
from equigen.report.layout import Block, Cell, Picture, Row, Section, Sentence, Table
from equigen.report.metrics import (
    ABSENT,
    Metric,
    difference_text,
    interval,
    is_finite,
    listing,
    lookup_metric,
    number,
    p_text,
    signed_number,
    sort_metrics,
)
from equigen.statistics import holm

TOPIC = "Generators compared"
MIN_SEEDS = 3
NORMAL_QUANTILE = NormalDist().inv_cdf(0.975)
MAX_SCORE = 30.0  # standard errors, beyond which a p-value is 0 for any purpose
MAIN_METRICS = ["kd", "near_copies", "semantic_auc"]
DIRECTIONS = ["better", "worse", "higher", "lower"]
NO_DIFFERENCE = "no difference established"
_INTRO = (
    "Every set of generated images against its reference, on the same real images and in the same resamples, so that "
    "the sampling error that they share cancels. The axis says on which side of 0 is better; of a gap, smaller is "
    "better. A difference is not established where its interval includes 0, nor where its p-value, if given, is above "
    "0.05. P-values and intervals are those of one row alone; verdicts are corrected over rows. "
)


def differences_section(differences: pd.DataFrame) -> Section | None:
    """Differences of the main metrics in full, the other metrics folded; None for an empty table."""
    if differences.empty:
        return None
    differences = add_holm(differences)
    rows = without_intersections(differences)
    metrics = [(name, encoder) for name in sort_metrics(unique_values(rows["metric"]))
               for encoder in unique_values(rows.loc[rows["metric"] == name, "encoder"])]  # fmt: skip
    first = [key for key in metrics if key[0] in MAIN_METRICS] or metrics[:1]
    rest = [key for key in metrics if key not in first]
    several = rows["encoder"].nunique() > 1
    blocks = [_metric_block(rows, key, several, index) for index, key in enumerate(first)]
    if rest:
        inner = [_metric_block(rows, key, several, index) for index, key in enumerate(rest, start=len(first))]
        title = f"Other metrics: {listing(list(dict.fromkeys(lookup_metric(name).short for name, _ in rest)))}"
        pictures = [picture for block in inner for picture in block.pictures]
        tables = [table for block in inner for table in block.tables]
        blocks.append(Block(title, [], pictures, tables, folded=True))
    crossed = differences[is_intersection(differences)]
    if not crossed.empty:
        names = sort_metrics(unique_values(crossed["metric"]))
        tables = [_differences_table(crossed[crossed["metric"] == name], lookup_metric(name), "") for name in names]
        blocks.append(Block("Generators compared on intersections", tables=tables, folded=True))
    return Section("compared", "Generators compared", _INTRO + seed_text(differences), blocks, "")


def _metric_block(rows: pd.DataFrame, key: tuple[str, str], several: bool, index: int) -> Block:
    """One metric by one encoder: a forest plot of differences for each reference, and the table.

    A plot shows the whole set, groups and gaps, a mark for each run, and the line at 0.
    """
    name, encoder = key
    metric, suffix = lookup_metric(name), f", encoder {encoder}" if several and encoder else ""
    rows = rows[(rows["metric"] == name) & (rows["encoder"] == encoder)]
    way = {"lower": ", below 0 is better", "higher": ", above 0 is better (of a gap: below)", "": ""}[metric.better]
    pictures = []
    for panel, base in enumerate(unique_values(rows["difference_to"])):
        base_rows = rows[rows["difference_to"] == base]
        marks = [
            Mark(row_name(row), str(row["run"]), row["difference"], row["ci_low"], row["ci_high"],
                 remark="not evaluated") for row in base_rows.to_dict("records")
        ]  # fmt: skip
        caption, runs = f"difference to {base or 'the reference'}", unique_values(base_rows["run"])
        svg = forest_plot(
            marks, [], axis=f"difference in {axis_name(metric)}{way}", scale=metric.scale, slug=f"d{index}-{panel}",
            series=runs, alt=alt_text(marks, metric, caption), styles=run_styles(runs), zero="0: no difference",
        )  # fmt: skip
        pictures.append(Picture(svg, f"{metric.short}, {caption}"))
    return Block(f"{metric.title}{suffix}", [], pictures, [_differences_table(rows, metric, suffix)])


def _differences_table(rows: pd.DataFrame, metric: Metric, suffix: str) -> Table:
    """Value, reference, difference and verdict of every row, run by run."""
    result: list[Row] = []
    for run, base in dict.fromkeys(zip(rows["run"], rows["difference_to"], strict=True)):
        result.append(Row(f"{run} against {base or 'the reference'}", kind="attribute"))
        for row in rows[(rows["run"] == run) & (rows["difference_to"] == base)].to_dict("records"):
            text = difference_verdict(row)
            mark = "beyond" if text in DIRECTIONS else "" if is_finite(row["difference"]) else "missing"
            cells = [
                Cell(number(row["estimate"], metric)),
                Cell(number(row["reference"], metric)),
                Cell(signed_number(row["difference"], metric)),
                Cell(interval(row["ci_low"], row["ci_high"], metric) or ABSENT),
                Cell(p_text(row["p_value"]).removeprefix("p ").removeprefix("= ") or ABSENT),
                Cell(text, mark=mark),
            ]
            result.append(Row(row_name(row), cells, "derived" if row["group"] in {"gap", "es", "worst"} else ""))
    head = ["group", "value", "reference", "difference", "95 % interval", "p", "verdict"]
    return Table(f"{metric.title}{suffix}: paired differences", head, result)


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
    if low <= 0 <= high or any(is_finite(p) and p > LEVEL for p in (row["p_value"], row.get("p_holm"))):
        return NO_DIFFERENCE
    rises = low > 0
    better = "lower" if row["group"] == "gap" else lookup_metric(row["metric"]).better
    if not better:
        return "higher" if rises else "lower"
    return "better" if rises == (better == "higher") else "worse"


def difference_sentences(differences: pd.DataFrame) -> list[Sentence]:
    """A note on seeds, then each run against its reference: overall, and the groups and gaps that differ.

    Each main metric (the first metric where there is none) is read by the first encoder that has it.
    """
    if differences.empty:
        return []
    names = [name for name in MAIN_METRICS if (differences["metric"] == name).any()]
    names = names or unique_values(differences["metric"])[:1]
    rows = add_holm(differences)
    rows = rows[rows["encoder"] == rows.groupby("metric")["encoder"].transform("first")]
    rows = without_intersections(rows)
    rows = rows[rows["metric"].isin(names)]
    result = [Sentence(seed_text(differences), "caution" if _too_few_seeds(differences) else "note", TOPIC)]
    for run, base in dict.fromkeys(zip(rows["run"], rows["difference_to"], strict=True)):
        run_rows = rows[(rows["run"] == run) & (rows["difference_to"] == base)]
        parts = [_metric_text(run_rows[run_rows["metric"] == name], lookup_metric(name)) for name in names]
        established = any(difference_verdict(row) in DIRECTIONS for row in run_rows.to_dict("records"))
        text = f"{run} against {base or 'its reference'}, on the same real images:"
        result.append(Sentence(text, "finding" if established else "chance", TOPIC, tuple(filter(None, parts))))
    return result


def add_holm(differences: pd.DataFrame) -> pd.DataFrame:
    """The rows with ``p_holm``: p adjusted by Holm over all rows of a family; NaN for equity-scaled values.

    A family is the main metrics of one run against one reference by one encoder: whole set, groups and gaps. Each
    other metric is a family of its own, and so are the intersections. The table's p-values cannot be below
    2 / (1 + replicates), so that none would survive the correction in a family of many rows; p is therefore computed
    from difference and interval as that of a normal variable. A row whose p in the table is above 0.05 stays
    undecided whatever its ``p_holm`` (``difference_verdict``).
    """
    rows = differences.reset_index(drop=True).assign(p_holm=np.nan)
    main = [name for name in MAIN_METRICS if (rows["metric"] == name).any()]
    family = rows["metric"].where(~rows["metric"].isin(main), "headlines")
    keys = [rows["run"], rows["difference_to"], rows["encoder"], family, is_intersection(rows)]
    width = rows["ci_high"] - rows["ci_low"]
    tested = rows["difference"].notna() & width.notna() & (rows["group"] != "es")
    for _, members in rows[tested].groupby(keys, sort=False, dropna=False):
        error = (members["ci_high"] - members["ci_low"]).to_numpy(float) / (2 * NORMAL_QUANTILE)
        size = np.abs(members["difference"].to_numpy(float))
        score = np.divide(size, error, out=np.where(size > 0, np.inf, 0.0), where=error > 0)
        p = np.array([2 * NormalDist().cdf(-min(float(value), MAX_SCORE)) for value in score])
        rows.loc[members.index, "p_holm"] = holm(p)
    return rows


def _metric_text(rows: pd.DataFrame, metric: Metric) -> str:
    """The overall difference in one metric, then the groups and gaps by verdict; undecided ones are counted."""
    if rows.empty:
        return ""
    texts: dict[str, list[str]] = {}
    clauses = []
    for row in rows[rows["group"] != "es"].to_dict("records"):
        value = difference_text(row["difference"], row["ci_low"], row["ci_high"], metric)
        if row["group"] == "*":
            clauses.append(f"{row_name(row)} {value}: {difference_verdict(row)}")
        else:
            texts.setdefault(difference_verdict(row), []).append(f"{row_name(row)} {value}")
    clauses += [f"{verdict} for {', '.join(texts[verdict])}" for verdict in DIRECTIONS if verdict in texts]
    total = sum(map(len, texts.values()))
    undecided = total - sum(len(texts.get(verdict, [])) for verdict in DIRECTIONS)
    clauses += [f"{NO_DIFFERENCE} for {undecided} of {total} groups and gaps"] if undecided else []
    scale = " x 1000" if metric.scale == 1000 else ""
    return f"{metric.short}{scale}: {'; '.join(clauses)}"


def row_name(row: Any) -> str:
    """The group of a row: ``whole set``, ``sex female``, ``gap by sex`` or ``equity-scaled by sex``."""
    if row["attribute"] == "*":
        return "whole set"
    derived = {"gap": "gap by", "es": "equity-scaled by", "worst": "worst group by"}.get(row["group"])
    return f"{derived} {row['attribute']}" if derived else f"{row['attribute']} {row['group']}"


def seed_text(differences: pd.DataFrame) -> str:
    """Sentences on what the intervals cover and on how many seeds each generator was trained with."""
    mechanisms = _too_few_seeds(differences)
    text = (
        "The intervals cover the sampling of patients and images, not another training run. Better and worse are "
        "stated where they hold after Holm's correction over the groups, gaps and metrics of a pair of sets."
    )
    if not mechanisms:
        return f"{text} Each generator was trained with at least {MIN_SEEDS} seeds: read the differences seed by seed."
    return (
        f"{text} With fewer than {MIN_SEEDS} training seeds ({listing(mechanisms)}) a difference is one between these "
        "sets of images: not evidence about the way they were trained."
    )


def _too_few_seeds(differences: pd.DataFrame) -> list[str]:
    """The mechanisms that were trained with fewer than three seeds."""
    names = dict.fromkeys([*unique_values(differences["difference_to"]), *unique_values(differences["run"])])
    families = runs_by_mechanism([name for name in names if name and name not in REFERENCES])
    return [name for name, runs in families.items() if len(runs) < MIN_SEEDS]
