"""Folded tables: the metrics of a family side by side, and every number with its errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from equigen.report.findings import verdict
from equigen.report.frames import DERIVED, ERRORS, unique_values
from equigen.report.layout import Block, Cell, Row, Table
from equigen.report.metrics import Metric, floor_name, lookup_metric, sort_metrics
from equigen.report.rounding import ABSENT, count, error_text, interval, is_finite, listing, number, p_text
from equigen.report.tables import group_rank, group_title, missing_text, value_table

MAX_ERROR_SHARE = 0.1  # a Monte-Carlo error above this share of an interval's width is worth a word


def family_block(rows: pd.DataFrame, title: str, lead: list[str]) -> Block:
    """One family of metrics, folded: a group x metric table for each run, then every number of each metric."""
    names = sort_metrics(unique_values(rows["metric"]))
    if len(names) == 1:
        words = lookup_metric(names[0])
        tables = [value_table(rows, "run", words, f"{words.title}: value, interval", "n_generated")]
    else:
        tables = [metrics_table(rows[rows["run"] == run], names, run) for run in unique_values(rows["run"])]
    tables += [numbers_table(rows[rows["metric"] == name], lookup_metric(name)) for name in names]
    return Block(title, [*lead, *monte_carlo_text(rows)], tables=tables, folded=True)


def metrics_table(rows: pd.DataFrame, names: list[str], run: str) -> Table:
    """One run: rows are groups, columns are metrics; each cell has interval and what real images give."""
    present = [name for name in names if (rows["metric"] == name).any()]
    result = _by_attribute(rows, lambda part, _: _metrics_row(part, present))
    shorts = [lookup_metric(name).short for name in present]
    return Table(f"{run}: {listing(shorts)}", ["group", *shorts], result)


def _by_attribute(rows: pd.DataFrame, make: Callable[[pd.DataFrame, str], list[Cell]]) -> list[Row]:
    """A row for each group, under a heading for each attribute; the whole set first, gaps last."""
    result: list[Row] = []
    for attribute in sorted(unique_values(rows["attribute"]), key=lambda name: name != "*"):
        own = rows[rows["attribute"] == attribute]
        result += [Row(attribute, kind="attribute")] if attribute != "*" else []
        for group in sorted(unique_values(own["group"]), key=group_rank):
            kind = "derived" if group in DERIVED else ""
            result.append(Row(group_title(group), make(own[own["group"] == group], group), kind))
    return result


def _metrics_row(part: pd.DataFrame, names: list[str]) -> list[Cell]:
    found = {row["metric"]: row for row in part.to_dict("records")}
    return [
        _metric_cell(found[name], lookup_metric(name)) if name in found else Cell(ABSENT, mark="missing")
        for name in names
    ]


def _metric_cell(row: Any, words: Metric) -> Cell:
    if not is_finite(row["estimate"]):
        text, under = missing_text(row["note"])
        return Cell(text, under, "missing")
    span = interval(row["ci_low"], row["ci_high"], words)
    derived, beyond = row["group"] in DERIVED, row["group"] == "gap" and verdict(row, words).exceeds_chance
    beside = f"{floor_name(words)} {number(row['floor'], words)}" if is_finite(row["floor"]) else ""
    small = [span, p_text(row["p_value"]) if derived else beside]
    return Cell(number(row["estimate"], words), "; ".join(filter(None, small)), "beyond" if beyond else "")


_Column = tuple[str, list[str], Callable[[Any, Metric], str]]


def _columns(words: Metric) -> list[_Column]:
    """Heading, the table's columns it stands on, and how a cell is written."""
    return [
        ("real", ["n_real"], lambda row, _: count(row["n_real"])),
        ("generated", ["n_generated"], lambda row, _: count(row["n_generated"])),
        ("matched n", ["matched_n"], lambda row, _: count(row["matched_n"])),
        ("value", ["estimate"], lambda row, m: number(row["estimate"], m)),
        ("standard error", ["standard_error"], lambda row, m: error_text(row["standard_error"], m)),
        ("95 % interval", ["ci_low"], lambda row, m: interval(row["ci_low"], row["ci_high"], m) or ABSENT),
        (floor_name(words), ["floor"], lambda row, m: number(row["floor"], m)),
        ("excess", ["excess"], lambda row, m: number(row["excess"], m)),
        ("chance band", ["null_high"], lambda row, m: interval(row["null_low"], row["null_high"], m) or ABSENT),
        ("p", ["p_value"], lambda row, _: p_text(row["p_value"]).removeprefix("p ").removeprefix("= ") or ABSENT),
        ("MC of value", ["mc_estimate"], lambda row, m: error_text(row["mc_estimate"], m)),
        ("MC of floor", ["mc_floor"], lambda row, m: error_text(row["mc_floor"], m)),
        ("MC of interval", ["mc_interval"], lambda row, m: error_text(row["mc_interval"], m)),
        ("MC of p", ["mc_p"], lambda row, _: f"{row['mc_p']:.4f}" if is_finite(row["mc_p"]) else ABSENT),
    ]


def numbers_table(rows: pd.DataFrame, words: Metric) -> Table:
    """Every number of one metric, run by run; columns that hold nothing are left out."""
    columns = [column for column in _columns(words) if rows[column[1]].notna().any(axis=None)]
    result: list[Row] = []
    for run in unique_values(rows["run"]):
        own = rows[rows["run"] == run]
        result += [Row(run, kind="attribute")] if rows["run"].nunique() > 1 else []
        for row in own.sort_values("attribute", key=lambda names: names != "*", kind="stable").to_dict("records"):
            attribute = "" if row["attribute"] == "*" else f"{row['attribute']}: "
            cells = [Cell(write(row, words)) for _, _, write in columns]
            kind = "derived" if row["group"] in DERIVED else ""
            result.append(Row(f"{attribute}{group_title(str(row['group']))}", cells, kind))
    return Table(f"{words.title}: all numbers", ["group", *(name for name, _, _ in columns)], result)


def has_errors(rows: pd.DataFrame) -> bool:
    """Whether the table holds standard errors or Monte-Carlo errors."""
    return bool(rows[ERRORS].notna().any(axis=None))


def monte_carlo_text(rows: pd.DataFrame) -> list[str]:
    """How large the Monte-Carlo error is beside the intervals, in words; nothing where it is not known."""
    width = rows["ci_high"] - rows["ci_low"]
    share = (rows[["mc_estimate", "mc_interval"]].max(axis=1) / width).where(width > 0).dropna()
    if share.empty:
        return []
    row = rows.loc[share.index].iloc[int(share.to_numpy(float).argmax())]
    where = group_title(str(row["group"])) + ("" if row["attribute"] == "*" else f" ({row['attribute']})")
    text = (
        f"The Monte-Carlo error (MC) is at most {share.max():.1%} of an interval's width: "
        f"{lookup_metric(row['metric']).short}, {row['run']}, {where}."
    )
    advice = " More repeats and replicates would make these numbers steadier."
    return [text + (advice if share.max() > MAX_ERROR_SHARE else "")]
