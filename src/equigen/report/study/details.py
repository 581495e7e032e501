"""Folded tables: the metrics of a family side by side, and every number with its errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from equigen.report.findings import verdict
from equigen.report.frames import DERIVED, ERRORS, unique_values
from equigen.report.layout import Block, Cell, Row, Table
from equigen.report.metrics import (
    ABSENT,
    Metric,
    count,
    error_text,
    floor_name,
    interval,
    is_finite,
    listing,
    lookup_metric,
    number,
    p_text,
    sort_metrics,
)
from equigen.report.tables import group_rank, group_title, missing_text, value_table

MAX_ERROR_SHARE = 0.1  # more replicates are advised where a Monte-Carlo error exceeds this share of an interval


def family_block(rows: pd.DataFrame, title: str, lead: list[str]) -> Block:
    """One family of metrics, folded: a group x metric table for each run, then every number of each metric."""
    names = sort_metrics(unique_values(rows["metric"]))
    if len(names) == 1:
        metric = lookup_metric(names[0])
        tables = [value_table(rows, "run", metric, f"{metric.title}: value, interval", "n_generated")]
    else:
        tables = [metrics_table(rows[rows["run"] == run], names, run) for run in unique_values(rows["run"])]
    tables += [numbers_table(rows[rows["metric"] == name], lookup_metric(name)) for name in names]
    return Block(title, [*lead, *monte_carlo_text(rows)], tables=tables, folded=True)


def metrics_table(rows: pd.DataFrame, names: list[str], run: str) -> Table:
    """One run: rows are groups, columns are metrics; each cell has interval and floor, or p-value of a gap.

    The whole set comes first, then each attribute under a heading, its gaps last and marked where they exceed chance.
    """
    metrics = [lookup_metric(name) for name in names if (rows["metric"] == name).any()]
    result: list[Row] = []
    for attribute in sorted(unique_values(rows["attribute"]), key=lambda name: name != "*"):
        attribute_rows = rows[rows["attribute"] == attribute]
        result += [Row(attribute, kind="attribute")] if attribute != "*" else []
        for group in sorted(unique_values(attribute_rows["group"]), key=group_rank):
            members = attribute_rows[attribute_rows["group"] == group]
            records = {str(row["metric"]): row for row in members.to_dict("records")}
            cells = []
            for metric in metrics:
                row = records.get(metric.name)
                if row is None:
                    cells.append(Cell(ABSENT, mark="missing"))
                    continue
                if not is_finite(row["estimate"]):
                    cells.append(Cell(*missing_text(row["note"]), "missing"))
                    continue
                exceeds = group == "gap" and verdict(row, metric).exceeds_chance
                floor = f"{floor_name(metric)} {number(row['floor'], metric)}" if is_finite(row["floor"]) else ""
                span = interval(row["ci_low"], row["ci_high"], metric)
                detail = "; ".join(filter(None, [span, p_text(row["p_value"]) if group in DERIVED else floor]))
                cells.append(Cell(number(row["estimate"], metric), detail, "beyond" if exceeds else ""))
            result.append(Row(group_title(group), cells, "derived" if group in DERIVED else ""))
    shorts = [metric.short for metric in metrics]
    return Table(f"{run}: {listing(shorts)}", ["group", *shorts], result)


def numbers_table(rows: pd.DataFrame, metric: Metric) -> Table:
    """Every number of one metric, run by run; columns without any number are left out."""
    columns: list[tuple[str, str, Callable[[Any], str]]] = [  # heading, column that must hold a number, cell text
        ("real", "n_real", lambda row: count(row["n_real"])),
        ("generated", "n_generated", lambda row: count(row["n_generated"])),
        ("matched n", "matched_n", lambda row: count(row["matched_n"])),
        ("value", "estimate", lambda row: number(row["estimate"], metric)),
        ("standard error", "standard_error", lambda row: error_text(row["standard_error"], metric)),
        ("95 % interval", "ci_low", lambda row: interval(row["ci_low"], row["ci_high"], metric) or ABSENT),
        (floor_name(metric), "floor", lambda row: number(row["floor"], metric)),
        ("excess", "excess", lambda row: number(row["excess"], metric)),
        ("chance band", "null_high", lambda row: interval(row["null_low"], row["null_high"], metric) or ABSENT),
        ("p", "p_value", lambda row: p_text(row["p_value"]).removeprefix("p ").removeprefix("= ") or ABSENT),
        ("MC of value", "mc_estimate", lambda row: error_text(row["mc_estimate"], metric)),
        ("MC of floor", "mc_floor", lambda row: error_text(row["mc_floor"], metric)),
        ("MC of interval", "mc_interval", lambda row: error_text(row["mc_interval"], metric)),
        ("MC of p", "mc_p", lambda row: f"{row['mc_p']:.4f}" if is_finite(row["mc_p"]) else ABSENT),
    ]
    columns = [column for column in columns if rows[column[1]].notna().any()]
    result: list[Row] = []
    for run in unique_values(rows["run"]):
        run_rows = rows[rows["run"] == run]
        run_rows = run_rows.sort_values("attribute", key=lambda names: names != "*", kind="stable")
        result += [Row(run, kind="attribute")] if rows["run"].nunique() > 1 else []
        for row in run_rows.to_dict("records"):
            attribute = "" if row["attribute"] == "*" else f"{row['attribute']}: "
            cells = [Cell(text(row)) for _, _, text in columns]
            kind = "derived" if row["group"] in DERIVED else ""
            result.append(Row(f"{attribute}{group_title(str(row['group']))}", cells, kind))
    return Table(f"{metric.title}: all numbers", ["group", *(heading for heading, _, _ in columns)], result)


def has_errors(rows: pd.DataFrame) -> bool:
    """Whether the table holds standard errors or Monte-Carlo errors."""
    return bool(rows[ERRORS].notna().any(axis=None))


def monte_carlo_text(rows: pd.DataFrame) -> list[str]:
    """A sentence with the largest Monte-Carlo error as a share of its interval; empty where none is known."""
    width = rows["ci_high"] - rows["ci_low"]
    share = (rows[["mc_estimate", "mc_interval"]].max(axis=1) / width).where(width > 0).dropna()
    if share.empty:
        return []
    row = rows.loc[share.index].iloc[int(share.to_numpy(float).argmax())]
    group = group_title(str(row["group"])) + ("" if row["attribute"] == "*" else f" ({row['attribute']})")
    text = (
        f"The Monte-Carlo error (MC) is at most {share.max():.1%} of an interval's width: "
        f"{lookup_metric(row['metric']).short}, {row['run']}, {group}."
    )
    advice = " More repeats and replicates would make these numbers steadier."
    return [text + (advice if share.max() > MAX_ERROR_SHARE else "")]
