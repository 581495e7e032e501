"""Several generators on the same real images: paired differences with intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from equigen.quality.measurement import FamilyResult
from equigen.quality.metric_inputs import Array, MetricResult
from equigen.quality.rows import (
    SUMMARIES,
    cells_with_estimate,
    interval_row,
    join_notes,
    overall_estimate,
    summarise_rows,
)
from equigen.statistics import two_sided_p_value

NUMBER_COLUMNS = ["estimate", "reference", "difference", "ci_low", "ci_high", "p_value"]
DIFFERENCES_COLUMNS = [
    "run", "difference_to", "encoder", "metric", "attribute", "group", *NUMBER_COLUMNS, "note",
]
PAIRED = "paired bootstrap: the same real patients are drawn for both; p is two-sided, by inverting the interval"
Row = dict[str, Any]


def paired_differences(families: dict[str, list[FamilyResult]], encoder: str) -> pd.DataFrame:
    """Each set against each one before it: estimate less reference, for the whole, each group, gap and es.

    The two sets' replicates use the same real draws, so what their real side has in common cancels; see
    ``two_sided_p_value`` for p. Positive differences of a metric of which less is better mean that ``run`` is
    worse than ``difference_to``. No correction for several tests is made.
    """
    names, rows = list(families), []
    for index, run in enumerate(names):
        for reference in names[:index]:
            for number, (own, other) in enumerate(zip(families[run], families[reference], strict=True)):
                rows += [{"run": run, "difference_to": reference, "encoder": encoder, **row}
                         for row in _rows(own, other, whole=number == 0)]
    frame = pd.DataFrame(rows, columns=DIFFERENCES_COLUMNS)
    return frame.astype({**dict.fromkeys(NUMBER_COLUMNS, "float64"), "note": "str"})


def _rows(own: FamilyResult, other: FamilyResult, *, whole: bool) -> list[Row]:
    rows: list[Row] = []
    for item in own.metrics:
        twin = next((found for found in other.metrics if found.metric == item.metric), None)
        if twin is None:
            continue
        places = [(cell.attribute, cell.group) for cell in own.cells if whole or cell.attribute != "*"]
        rows += [{"metric": item.metric, **_cell(item, twin, place)} for place in places]
        for attribute in dict.fromkeys(name for name, _ in places if name != "*"):
            rows += [{"metric": item.metric, **row} for row in _folded(item, twin, attribute, own, other)]
    return rows


def _cell(item: MetricResult, twin: MetricResult, place: tuple[str, str]) -> Row:
    head = {"attribute": place[0], "group": place[1]}
    first, second = item.estimates.get(place), twin.estimates.get(place)
    if first is None or second is None:
        return {**head, "note": "one of the sets has no number here"}
    return {**head, **_difference(first.value, second.value, first.replicates, second.replicates)}


def _folded(
    item: MetricResult, twin: MetricResult, attribute: str, own: FamilyResult, other: FamilyResult
) -> list[Row]:
    """Gap and es, over the groups in which both sets have a number."""
    places = [[cell.group for cell in cells_with_estimate(found, family.cells, attribute)]
              for found, family in ((item, own), (twin, other))]
    groups = [group for group in places[0] if group in places[1]]
    both = [overall_estimate(found, attribute) for found in (item, twin)]
    rows = []
    for name, fold in SUMMARIES.items():
        head = {"attribute": attribute, "group": name}
        if len(groups) < 2 or both[0] is None or both[1] is None:
            rows.append({**head, "note": "fewer than two groups have a number in both sets"})
            continue
        folded = []
        for found, everything in zip((item, twin), both, strict=True):
            parts = [everything, *(found.estimates[attribute, group] for group in groups)]
            values = np.array([[part.value for part in parts if part is not None]])
            replicates = np.stack([part.replicates for part in parts if part is not None], axis=1)
            folded.append((summarise_rows(values, item.kind, fold)[0], summarise_rows(replicates, item.kind, fold)))
        left_out = "" if len(groups) == len(places[0]) == len(places[1]) else f"over {', '.join(groups)}"
        row = _difference(float(folded[0][0]), float(folded[1][0]), folded[0][1], folded[1][1])
        rows.append({**head, **row, "note": join_notes(row["note"], left_out)})
    return rows


def _difference(value: float, reference: float, replicates: Array, others: Array) -> Row:
    """Difference with its percentile interval and p-value."""
    difference, draws = value - reference, replicates - others
    row: Row = {"estimate": value, "reference": reference, "difference": difference}
    if not np.isfinite(difference):
        return {**row, "difference": None, "note": "one of the sets has no number here"}
    part = interval_row(difference, draws)
    row |= {"ci_low": part["ci_low"], "ci_high": part["ci_high"], "note": join_notes(PAIRED, part["note"])}
    defined = draws[np.isfinite(draws)]
    if part["ci_low"] is not None:
        row["p_value"] = two_sided_p_value(defined)
    return row
