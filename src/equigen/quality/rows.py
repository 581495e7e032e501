"""Rows of quality.parquet from estimates, with notes on what a row cannot support."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.quality.cells import Cell
from equigen.quality.metric_inputs import CellEstimate, MetricResult
from equigen.statistics import Estimate, equity_scaled_rows, holm, interval_error, p_value, replicate_interval

Array = NDArray[np.float64]
Row = dict[str, Any]
NUMBER_COLUMNS = ["estimate", "ci_low", "ci_high", "floor", "excess", "null_low", "null_high", "p_value"]
ERROR_COLUMNS = ["standard_error", "mc_estimate", "mc_floor", "mc_interval", "mc_p"]
COLUMNS = [
    "run",
    "encoder",
    "metric",
    "attribute",
    "group",
    "n_real",
    "n_generated",
    "matched_n",
    *NUMBER_COLUMNS,
    "note",
    *ERROR_COLUMNS,
    "p_floor",
]
IMAGE_SHARES = {"authenticity", "near_copies", "judge_agreement"}  # shares of the generated images
GAP_BIAS_NOTE = (
    "a gap is never negative, and the largest less the smallest of noisy values leans upwards: its interval does "
    "not hold 0 even where groups are equal, so that null band and p alone say whether they differ"
)
EXCESS_TEST_NOTE = "p is that of the gap in excess: bootstrap of equal excesses, the floor as uncertain as the estimate"
LARGER_P_NOTE = (
    "p is the larger of permutation and bootstrap of equal values, since the groups differ in {}, in which "
    "permutations mix them"
)
UNTESTED_NOTE = "no p-value: where groups differ in spread, perfect generators have a gap in it too"
EXCESS_INFLATION = float(np.sqrt(2))  # standard error of an excess over that of its estimate: the floor adds as much
EXCESS_METRICS, UNTESTED_METRICS = {"fd", "fd_inf", "mifid"}, {"is"}
SPREAD_NOTE = "groups that differ in spread differ in FD even under a perfect generator: judge by excess and kd"
SUMMARIES = ("gap", "es")
EQUITY_FORMULAS = {
    "lower": "M + sum_g |M_g - M|",
    "higher": "M / (1 + sum_g |M_g - M| / M)",
    "share": "M / (1 + sum_g |M_g - M|)",
}


def quality_table(
    metrics: list[MetricResult], cells: list[Cell], run: str, encoder: str, n: int | None, *, overall: bool = True
) -> pd.DataFrame:
    """Quality table of one set: for each metric all images, each group, then gap and es of each attribute.

    P-values of gaps are Holm-adjusted over the attributes of one metric; the note gives the one before.
    ``standard_error`` is the standard deviation of the bootstrap replicates. The ``mc_`` columns are
    Monte-Carlo standard errors: how far another seed would move the estimate and the floor (means over random
    subsamples), the worse end of the interval (a quantile of finitely many replicates), and p before Holm (its
    finitely many null values, and the Monte-Carlo error of the gap). Without ``overall`` there is no row of all
    images.

    ``p_floor``, of means over images, is the p-value of being worse than the floor, from permutations of patients
    between the real and the generated images. It is not adjusted for the number of rows.
    """
    rows: list[Row] = []
    for metric in metrics:
        table = [_cell_row(metric, cell, cells) for cell in cells if overall or cell.attribute != "*"]
        for attribute in dict.fromkeys(cell.attribute for cell in cells if cell.attribute != "*"):
            table += _summary_rows(metric, attribute, cells)
        tested = [row for row in table if row["p_value"] is not None]
        adjusted = holm(np.array([row["p_value"] for row in tested]))
        for row, value in zip(tested, adjusted, strict=True):
            if len(tested) > 1:
                note = f"p adjusted by Holm over {len(tested)} attributes, {row['p_value']:.3g} before"
                row["note"] = join_notes(row["note"], note)
            row["p_value"] = float(value)
        head = {"run": run, "encoder": encoder, "metric": metric.metric, "matched_n": n}
        rows += [{**head, **row} for row in table]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    counts = dict.fromkeys(("n_real", "n_generated", "matched_n"), "Int64")
    numbers = dict.fromkeys([*NUMBER_COLUMNS, *ERROR_COLUMNS, "p_floor"], "float64")
    return frame.astype({**counts, **numbers, "note": "str"})


def join_notes(*notes: str) -> str:
    """Notes that are not empty, separated by a semicolon."""
    return "; ".join(note for note in notes if note)


def summarise(table: Array, kind: str, summary: str) -> Array:
    """Summary ("gap" or "es") of each row of [R, 1 + G] values, that of all images first; NaN where one is undefined.

    ``kind`` as in ``MetricResult``.
    """
    if summary == "gap":
        undefined = np.asarray(~np.isfinite(table).all(axis=1))
        return np.where(undefined, np.nan, np.ptp(np.where(undefined[:, None], 0.0, table[:, 1:]), axis=1))
    relative, higher = kind != "share", kind != "lower"
    return equity_scaled_rows(table[:, 0], table[:, 1:], relative=relative, higher_is_better=higher)


def summarise_estimates(estimates: Sequence[Estimate], kind: str, summary: str) -> Estimate:
    """Summary of estimates, that of all images first, with the summary of each replicate."""
    values = np.array([[estimate.value for estimate in estimates]])
    replicates = np.stack([estimate.replicates for estimate in estimates], axis=1)
    return Estimate(float(summarise(values, kind, summary)[0]), summarise(replicates, kind, summary))


def _empty_row(attribute: str, group: str, cells: list[Cell]) -> Row:
    """A row with the numbers of images in ``cells`` and no estimate."""
    real, generated = sum(len(cell.real) for cell in cells), sum(len(cell.generated) for cell in cells)
    return {
        "attribute": attribute,
        "group": group,
        "n_real": real,
        "n_generated": generated,
        "note": "",
        **dict.fromkeys([*NUMBER_COLUMNS, *ERROR_COLUMNS, "p_floor"]),
    }


def _eligible(cells: list[Cell], attribute: str) -> list[Cell]:
    return [cell for cell in cells if cell.attribute == attribute and cell.reason is None]


def cells_with_estimate(metric: MetricResult, cells: list[Cell], attribute: str) -> list[Cell]:
    """Cells of an attribute in which the metric has a number."""
    return [cell for cell in _eligible(cells, attribute) if _is_defined(metric, cell)]


def overall_estimate(metric: MetricResult, attribute: str) -> CellEstimate | None:
    """Estimate with which the groups of an attribute are compared: that of all images with this attribute, or of all.

    A metric has the former where its value on all images differs between attributes.
    """
    return metric.estimates.get(("*", attribute), metric.estimates.get(("*", "*")))


def _is_defined(metric: MetricResult, cell: Cell) -> bool:
    estimate = metric.estimates.get((cell.attribute, cell.group))
    return estimate is not None and bool(np.isfinite(estimate.value))


def _cell_row(metric: MetricResult, cell: Cell, cells: list[Cell]) -> Row:
    """Row of one cell: estimate, interval, floor, excess and null band, or the reason why there is none."""
    row = _empty_row(cell.attribute, cell.group, [cell])
    if cell.reason is not None:
        return {**row, "note": join_notes(cell.reason, cell.note)}
    if not _is_defined(metric, cell):
        return {**row, "note": join_notes(metric.note, "undefined in this cell", cell.note)}
    estimate = metric.estimates[cell.attribute, cell.group]
    excess = estimate.value - estimate.floor if estimate.floor is not None and metric.kind == "lower" else None
    row |= interval_row(estimate) | {"floor": estimate.floor, "excess": excess}
    row |= {"mc_estimate": estimate.mc_value, "mc_floor": None if estimate.floor is None else estimate.mc_floor}
    row["p_floor"] = estimate.p_floor
    if cell.attribute in metric.null:
        groups = [eligible.group for eligible in _eligible(cells, cell.attribute)]
        row |= _null_band(metric.null[cell.attribute][:, groups.index(cell.group)])
    bound, by_patient = "", metric.metric.startswith("oracle_")
    if estimate.value in {0.0, 1.0} and (by_patient or metric.metric in IMAGE_SHARES):  # an interval without width
        count = cell.patients if by_patient else len(cell.generated)
        bound = f"without exception; by the rule of three up to {3 / count:.2g} may be"
    return {**row, "note": join_notes(metric.note, row["note"], bound, cell.note)}


def interval_row(estimate: Estimate) -> Row:
    """Estimate with its percentile interval; a note counts replicates that are undefined (a group was empty)."""
    replicates, interval = estimate.replicates, estimate.interval()
    note = f"{estimate.lost} of {len(replicates)} bootstrap replicates are undefined" if estimate.lost else ""
    row: Row = {"estimate": estimate.value, "ci_low": None, "ci_high": None, "note": note}
    if interval is None:
        return row
    defined = replicates[np.isfinite(replicates)]
    errors = {"standard_error": float(defined.std(ddof=1)), "mc_interval": interval_error(defined)}
    return {**row, "ci_low": interval[0], "ci_high": interval[1], **errors}


def _null_band(null: Array) -> Row:
    low, high = replicate_interval(null, least=1) or (None, None)
    return {"null_low": low, "null_high": high}


def _summary_rows(metric: MetricResult, attribute: str, cells: list[Cell]) -> list[Row]:
    """Rows of gap and es of an attribute, over the groups in which the metric has a number."""
    large, overall = cells_with_estimate(metric, cells, attribute), overall_estimate(metric, attribute)
    exclusions = [
        f"without {cell.group} ({cell.reason or 'undefined there'})"
        for cell in cells
        if cell.attribute == attribute and cell not in large
    ]
    if len(large) < 2 or overall is None or not np.isfinite(overall.value):
        note = join_notes("fewer than two groups are large enough to compare", metric.note, *exclusions)
        return [{**_empty_row(attribute, group, large), "note": note} for group in SUMMARIES]
    estimates = [overall, *(metric.estimates[attribute, cell.group] for cell in large)]
    groups = [cell.group for cell in _eligible(cells, attribute)]
    columns = [groups.index(cell.group) for cell in large]
    null = metric.null[attribute][:, columns] if attribute in metric.null else np.zeros((0, len(large)))
    spread = SPREAD_NOTE if metric.metric in {"fd", "fd_inf", "mifid"} else ""
    explanations = {"gap": join_notes(GAP_BIAS_NOTE, spread), "es": EQUITY_FORMULAS[metric.kind]}
    rows = []
    for group in SUMMARIES:
        permuted = np.column_stack([np.full(len(null), overall.value), null])  # all images keep their value
        chance = summarise(permuted, metric.kind, group)
        row = _empty_row(attribute, group, large) | _null_band(chance) | _summary_row(metric, estimates, group)
        if group == "gap":
            row |= _gap_test(metric, estimates[1:], row, chance, metric.heterogeneity.get(attribute, ""))
        excess = "excess is made of the groups' excesses" if row["excess"] is not None else ""
        note = join_notes(metric.note, *exclusions, row["note"], explanations[group], excess)
        rows.append({**row, "note": note})
    return rows


def _summary_row(metric: MetricResult, estimates: list[CellEstimate], group: str) -> Row:
    """Summary ("gap" or "es") of the estimates, that of all images first, and of each replicate and of the floors."""
    values = np.array([estimate.value for estimate in estimates])

    def monte_carlo_error(values: Array, errors: Array) -> float:
        """Error of the summary: the values are moved by their errors one at a time."""
        shifts = summarise(values + np.diag(errors), metric.kind, group) - summarise(values[None], metric.kind, group)
        return float(np.sqrt(np.sum(shifts * shifts)))

    row = interval_row(summarise_estimates(estimates, metric.kind, group))
    row["mc_estimate"] = monte_carlo_error(values, np.array([estimate.mc_value for estimate in estimates]))
    if all(estimate.floor is not None for estimate in estimates):
        floors = np.array([estimate.floor for estimate in estimates], dtype=np.float64)
        row["floor"] = float(summarise(floors[None], metric.kind, group)[0])
        if metric.kind == "lower":
            row["excess"] = float(summarise((values - floors)[None], metric.kind, group)[0])
        row["mc_floor"] = monte_carlo_error(floors, np.array([estimate.mc_floor for estimate in estimates]))
    return row


def _gap_test(metric: MetricResult, groups: list[CellEstimate], row: Row, chance: Array, differs: str) -> Row:
    """P-value of a gap by the null that holds its level for this metric, with a note on the choice.

    FD's expectation differs between groups of different spread even under a perfect generator, so its gap is tested in
    excess: under equality the excesses are those of each group's own deviations (``_equal_gaps``). KD is unbiased, but
    its noise, and that of density, differs between groups of different spread or cluster size, which permutations mix:
    there the larger p of the two nulls is reported. The Inception score depends on spread itself, and no test of the
    spread is sure enough to tell when permutations would do: its gap has no p-value. Simulations:
    benchmarks/validity_groups.py.

    Args:
        metric: the metric, which decides on the null.
        groups: estimates of the groups.
        row: summary row of the gap.
        chance: [R] gaps under permutation.
        differs: in what the groups differ that permutations would mix; "" for nothing.

    """
    values = np.array([estimate.value for estimate in groups])
    scale, count = float(np.abs(values).max()), len(groups[0].replicates)
    if metric.metric in UNTESTED_METRICS:
        return {"null_low": None, "null_high": None, "note": join_notes(row["note"], UNTESTED_NOTE)}
    floors = [estimate.floor for estimate in groups if estimate.floor is not None]
    if metric.metric in EXCESS_METRICS and len(floors) == len(groups):
        excess, error = values - np.array(floors), np.hypot(row["mc_estimate"], row["mc_floor"])
        equal = _equal_gaps(groups, EXCESS_INFLATION)
        result = _gap_p_value(float(np.ptp(excess)), equal, scale, count, float(error))
        return {**result, "note": join_notes(row["note"], result.get("note", ""), EXCESS_TEST_NOTE)}
    result = _gap_p_value(row["estimate"], chance, scale, count, row["mc_estimate"])
    if differs and result:
        bootstrap = _gap_p_value(row["estimate"], _equal_gaps(groups, 1.0), scale, count, row["mc_estimate"])
        larger = max(result, bootstrap, key=lambda test: test.get("p_value", 0.0))
        result = {**larger, "note": join_notes(result["note"], LARGER_P_NOTE.format(differs))}
    return {**result, "note": join_notes(row["note"], result.get("note", ""))}


def _equal_gaps(groups: list[CellEstimate], inflation: float) -> Array:
    """[R] gaps of groups that are equal but for their own noise: ``inflation`` times replicates about their means."""
    draws = np.stack([estimate.replicates for estimate in groups], axis=1)
    draws = draws[np.isfinite(draws).all(axis=1)]
    return np.asarray(np.ptp(inflation * (draws - draws.mean(axis=0)), axis=1)) if len(draws) else np.zeros(0)


def _gap_p_value(value: float, null: Array, scale: float, replicates: int, error: float) -> Row:
    """P-value of a gap, equal within the rounding of values of this scale, with its Monte-Carlo error.

    Another seed draws other null values, and other subsamples: it moves the gap by its own ``error``, and p with it.
    """
    defined = null[np.isfinite(null)]
    if len(defined) == 0:
        return {}
    p = p_value(value, defined, scale=scale)
    ends = [p_value(value + sign * error, defined, scale=scale) for sign in (-1.0, 1.0)]
    mc_error = float(np.hypot(np.sqrt(p * (1 - p) / len(defined)), (ends[0] - ends[1]) / 2))
    lost = len(null) - len(defined)
    note = f"{lost} permutations are undefined" if lost else ""
    if len(null) < replicates:
        note = join_notes(note, f"null band of {len(null)} permutations, since the groups are large")
    return {"p_value": p, "mc_p": mc_error, "note": note}
