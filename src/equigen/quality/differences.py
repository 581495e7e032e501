"""Paired differences between generated sets that are evaluated on the same real images, with intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from equigen.quality.measurement import FamilyResult
from equigen.quality.metric_inputs import MetricResult
from equigen.quality.rows import (
    SUMMARIES,
    cells_with_estimate,
    interval_row,
    join_notes,
    overall_estimate,
    summarise_estimates,
)
from equigen.statistics import Estimate, two_sided_p_value

NUMBER_COLUMNS = ["estimate", "reference", "difference", "ci_low", "ci_high", "p_value"]
DIFFERENCES_COLUMNS = [
    "run",
    "difference_to",
    "encoder",
    "metric",
    "attribute",
    "group",
    *NUMBER_COLUMNS,
    "note",
]
PAIRED = "paired bootstrap: the same real patients are drawn for both; p is two-sided, by inverting the interval"
Row = dict[str, Any]


def paired_differences(families: dict[str, list[FamilyResult]], encoder: str) -> pd.DataFrame:
    """Differences of each set from each set before it, of all images, each group, gap and es.

    The two sets' replicates use the same real draws, so what their real images have in common cancels; see
    ``two_sided_p_value`` for p. Positive differences of a metric of which less is better mean that ``run`` is
    worse than ``difference_to``. No correction for several tests is made.
    """
    names, rows = list(families), []
    for index, run in enumerate(names):
        for reference in names[:index]:
            for number, (first, second) in enumerate(zip(families[run], families[reference], strict=True)):
                rows += [
                    {"run": run, "difference_to": reference, "encoder": encoder, **row}
                    for row in _family_rows(first, second, overall=number == 0)
                ]
    frame = pd.DataFrame(rows, columns=DIFFERENCES_COLUMNS)
    return frame.astype({**dict.fromkeys(NUMBER_COLUMNS, "float64"), "note": "str"})


def _family_rows(first: FamilyResult, second: FamilyResult, *, overall: bool) -> list[Row]:
    """Differences of two sets in one family of cells; ``overall`` includes the cell of all images."""
    rows: list[Row] = []
    for metric in first.metrics:
        reference = next((result for result in second.metrics if result.metric == metric.metric), None)
        if reference is None:
            continue
        cells = [(cell.attribute, cell.group) for cell in first.cells if overall or cell.attribute != "*"]
        for attribute, group in cells:
            estimates = metric.estimates.get((attribute, group)), reference.estimates.get((attribute, group))
            rows.append({"metric": metric.metric, "attribute": attribute, "group": group, **_difference(*estimates)})
        for attribute in dict.fromkeys(name for name, _ in cells if name != "*"):
            summaries = _summary_differences((metric, reference), (first, second), attribute)
            rows += [{"metric": metric.metric, "attribute": attribute, **row} for row in summaries]
    return rows


def _summary_differences(
    metrics: tuple[MetricResult, MetricResult], families: tuple[FamilyResult, FamilyResult], attribute: str
) -> list[Row]:
    """Differences of gap and es, over the groups in which both sets have a number."""
    defined = [
        [cell.group for cell in cells_with_estimate(metric, family.cells, attribute)]
        for metric, family in zip(metrics, families, strict=True)
    ]
    groups = [group for group in defined[0] if group in defined[1]]
    overall = [overall_estimate(metric, attribute) for metric in metrics]
    rows: list[Row] = []
    for name in SUMMARIES:
        if len(groups) < 2 or overall[0] is None or overall[1] is None:
            rows.append({"group": name, "note": "fewer than two groups have a number in both sets"})
            continue
        results = [
            summarise_estimates(
                [total, *(metric.estimates[attribute, group] for group in groups)], metrics[0].kind, name
            )
            for metric, total in zip(metrics, overall, strict=True)
            if total is not None
        ]
        note = "" if len(groups) == len(defined[0]) == len(defined[1]) else f"over {', '.join(groups)}"
        row = _difference(*results)
        rows.append({"group": name, **row, "note": join_notes(row["note"], note)})
    return rows


def _difference(first: Estimate | None, second: Estimate | None) -> Row:
    """Difference of two estimates with its percentile interval and p-value."""
    if first is None or second is None:
        return {"note": "one of the sets has no number here"}
    difference = first - second
    row: Row = {"estimate": first.value, "reference": second.value, "difference": difference.value}
    if not np.isfinite(difference.value):
        return {**row, "difference": None, "note": "one of the sets has no number here"}
    interval = interval_row(difference)
    row |= {"ci_low": interval["ci_low"], "ci_high": interval["ci_high"], "note": join_notes(PAIRED, interval["note"])}
    if interval["ci_low"] is not None:
        row["p_value"] = two_sided_p_value(difference.replicates[np.isfinite(difference.replicates)])
    return row
