"""From estimates to the rows of quality.parquet, with the words that say what a row cannot support."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.quality.cells import Cell
from equigen.quality.metric_inputs import Estimate, MetricResult
from equigen.statistics import equity_scaled, gap, holm, interval_error, p_value, percentile_interval

Array = NDArray[np.float64]
Row = dict[str, Any]
NUMBER_COLUMNS = ["estimate", "ci_low", "ci_high", "floor", "excess", "null_low", "null_high", "p_value"]
ERROR_COLUMNS = ["standard_error", "mc_estimate", "mc_floor", "mc_interval", "mc_p"]
COLUMNS = [
    "run", "encoder", "metric", "attribute", "group", "n_real", "n_generated", "matched_n", *NUMBER_COLUMNS, "note",
    *ERROR_COLUMNS, "p_floor",
]
COUNTED = {"authenticity", "near_copies", "judge_agreement"}  # shares of the generated images
GAP_BIAS_NOTE = (
    "a gap is never negative, and the largest less the smallest of noisy values leans upwards: its interval does "
    "not hold 0 even where groups are equal, so that null band and p alone say whether they differ"
)
EQUAL_EXCESS = "p is that of the gap in excess: bootstrap of equal excesses, the floor as uncertain as the estimate"
CAREFUL = ("p is the larger of permutation and bootstrap of equal values, since the groups differ in {}, in which "
           "permutations mix them")
UNTESTED = "no p-value: the groups' images differ in spread, so that perfect generators show a gap too"
WIDENED = float(np.sqrt(2))  # of an excess' deviations over those of its estimate: the floor errs as much again
EXCESS_TESTED, NOT_TESTED = {"fd", "fd_inf", "mifid"}, {"is"}
SPREAD = "groups that differ in spread differ in FD even under a perfect generator: judge by excess and kd"
FORMULA = {
    "lower": "M + sum_g |M_g - M|",
    "higher": "M / (1 + sum_g |M_g - M| / M)",
    "share": "M / (1 + sum_g |M_g - M|)",
}


def assemble(
    measured: list[MetricResult], cells: list[Cell], run: str, encoder: str, n: int | None, *, whole: bool = True
) -> pd.DataFrame:
    """The quality table: for each metric the whole set, each group, then gap and es of each attribute.

    P-values of gaps are Holm-adjusted over the attributes of one metric; the note gives the one before.
    ``standard_error`` is the standard deviation of the bootstrap replicates. The ``mc_`` columns are
    Monte-Carlo standard errors: how far another seed would move the estimate and the floor (means over random
    subsamples), the worse end of the interval (a quantile of finitely many replicates), and p before Holm (its
    finitely many null values, and what the error of the gap makes of it). ``whole`` False leaves out the row of the
    whole set.

    ``p_floor``, of the means over images, is how often patients shuffled between the real and the generated side give
    as much on the worse side of the floor: the floor errs too. It is not adjusted for the number of rows.
    """
    rows: list[Row] = []
    for item in measured:
        own = [_cell_row(item, cell, cells) for cell in cells if whole or cell.attribute != "*"]
        for attribute in dict.fromkeys(cell.attribute for cell in cells if cell.attribute != "*"):
            own += _summary_rows(item, attribute, cells)
        _adjust(own)
        head = {"run": run, "encoder": encoder, "metric": item.metric, "matched_n": n}
        rows += [{**head, **row} for row in own]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    counts = dict.fromkeys(("n_real", "n_generated", "matched_n"), "Int64")
    numbers = dict.fromkeys([*NUMBER_COLUMNS, *ERROR_COLUMNS, "p_floor"], "float64")
    return frame.astype({**counts, **numbers, "note": "str"})


def join_notes(*parts: str) -> str:
    """The parts that are not empty, separated by a semicolon."""
    return "; ".join(part for part in parts if part)


def equity_value(kind: str, values: Array) -> float:
    """Equity-scaled value of [1 + G] values, the whole set first; ``kind`` as in ``MetricResult``."""
    relative, higher = kind != "share", kind != "lower"
    return equity_scaled(float(values[0]), values[1:], relative=relative, higher_is_better=higher)


SUMMARIES: dict[str, Callable[[str, Array], float]] = {
    "gap": lambda kind, values: gap(values[1:]), "es": equity_value,
}


def _counts(attribute: str, group: str, cells: list[Cell]) -> Row:
    real, generated = sum(len(cell.real) for cell in cells), sum(len(cell.generated) for cell in cells)
    return {"attribute": attribute, "group": group, "n_real": real, "n_generated": generated, "note": "",
            **dict.fromkeys([*NUMBER_COLUMNS, *ERROR_COLUMNS, "p_floor"])}


def _eligible(cells: list[Cell], attribute: str) -> list[Cell]:
    return [cell for cell in cells if cell.attribute == attribute and cell.reason is None]


def cells_with_estimate(item: MetricResult, cells: list[Cell], attribute: str) -> list[Cell]:
    """Cells of an attribute in which the metric has a number."""
    return [cell for cell in _eligible(cells, attribute) if _defined(item, cell)]


def overall_estimate(item: MetricResult, attribute: str) -> Estimate | None:
    """What the groups of an attribute are held against: its own value on the whole set where the metric has one."""
    return item.estimates.get(("*", attribute), item.estimates.get(("*", "*")))


def _defined(item: MetricResult, cell: Cell) -> bool:
    estimate = item.estimates.get((cell.attribute, cell.group))
    return estimate is not None and bool(np.isfinite(estimate.value))


def _cell_row(item: MetricResult, cell: Cell, cells: list[Cell]) -> Row:
    row = _counts(cell.attribute, cell.group, [cell])
    if cell.reason is not None:
        return {**row, "note": join_notes(cell.reason, cell.note)}
    if not _defined(item, cell):
        return {**row, "note": join_notes(item.note, "undefined in this cell", cell.note)}
    estimate = item.estimates[cell.attribute, cell.group]
    excess = estimate.value - estimate.floor if estimate.floor is not None and item.kind == "lower" else None
    row |= interval_row(estimate.value, estimate.replicates) | {"floor": estimate.floor, "excess": excess}
    row |= {"mc_estimate": estimate.mc_value, "mc_floor": None if estimate.floor is None else estimate.mc_floor}
    row["p_floor"] = estimate.p_floor
    if cell.attribute in item.null:
        names = [other.group for other in _eligible(cells, cell.attribute)]
        row |= _band(item.null[cell.attribute][:, names.index(cell.group)])
    return {**row, "note": join_notes(item.note, row["note"], _rule_of_three(item, estimate.value, cell), cell.note)}


def _rule_of_three(item: MetricResult, value: float, cell: Cell) -> str:
    """What an interval of no width cannot say: a share of 0 or 1 among n may be 3 / n from it."""
    counted = item.metric.startswith("oracle_") or item.metric in COUNTED
    if not counted or value not in {0.0, 1.0}:
        return ""
    count = cell.patients if item.metric.startswith("oracle_") else len(cell.generated)
    return f"without exception; by the rule of three up to {3 / count:.2g} may be"


def interval_row(value: float, replicates: Array) -> Row:
    """Estimate and interval; replicates in which a group was empty are counted in the note."""
    defined = replicates[np.isfinite(replicates)]
    lost = len(replicates) - len(defined)
    note = f"{lost} of {len(replicates)} bootstrap replicates are undefined" if lost else ""
    row: Row = {"estimate": value, "ci_low": None, "ci_high": None, "note": note}
    if 2 * len(defined) < max(4, len(replicates)):
        return row
    low, high = percentile_interval(defined)
    spread = {"standard_error": float(defined.std(ddof=1)), "mc_interval": interval_error(defined)}
    return {**row, "ci_low": low, "ci_high": high, **spread}


def _band(null: Array) -> Row:
    defined = null[np.isfinite(null)]
    low, high = percentile_interval(defined) if len(defined) and 2 * len(defined) >= len(null) else (None, None)
    return {"null_low": low, "null_high": high}


def _summary_rows(item: MetricResult, attribute: str, cells: list[Cell]) -> list[Row]:
    large, whole = cells_with_estimate(item, cells, attribute), overall_estimate(item, attribute)
    left_out = [f"without {cell.group} ({cell.reason or 'undefined there'})" for cell in cells
                if cell.attribute == attribute and cell not in large]
    if len(large) < 2 or whole is None or not np.isfinite(whole.value):
        note = join_notes("fewer than two groups are large enough to compare", item.note, *left_out)
        return [{**_counts(attribute, group, large), "note": note} for group in SUMMARIES]
    estimates = [whole, *(item.estimates[attribute, cell.group] for cell in large)]
    names = [cell.group for cell in _eligible(cells, attribute)]
    columns = [names.index(cell.group) for cell in large]
    null = item.null[attribute][:, columns] if attribute in item.null else np.zeros((0, len(large)))
    spread = SPREAD if item.metric in {"fd", "fd_inf", "mifid"} else ""
    words = {"gap": join_notes(GAP_BIAS_NOTE, spread), "es": FORMULA[item.kind]}
    rows = []
    for group in SUMMARIES:
        row = _counts(attribute, group, large)
        row |= _folded(item, estimates, null, group, item.heterogeneity.get(attribute, ""))
        excess = "excess is made of the groups' excesses" if row["excess"] is not None else ""
        rows.append({**row, "note": join_notes(item.note, *left_out, row["note"], words[group], excess)})
    return rows


def _folded(item: MetricResult, estimates: list[Estimate], null: Array, group: str, differs: str = "") -> Row:
    """Fold the values of the whole and its groups into one, and so in each replicate and permutation."""
    values = np.array([estimate.value for estimate in estimates])

    def fold(array: Array) -> Array:
        return summarise_rows(array, item.kind, SUMMARIES[group])

    row = interval_row(float(fold(values[None])[0]), fold(np.stack([part.replicates for part in estimates], axis=1)))
    chance = fold(np.column_stack([np.full(len(null), values[0]), null]))
    row |= _band(chance) | {"floor": None, "excess": None}
    row["mc_estimate"] = _moved(fold, values, np.array([part.mc_value for part in estimates]))
    if all(estimate.floor is not None for estimate in estimates):
        floors = np.array([estimate.floor for estimate in estimates], dtype=np.float64)
        row["floor"] = float(fold(floors[None])[0])
        row["excess"] = float(fold((values - floors)[None])[0]) if item.kind == "lower" else None
        row["mc_floor"] = _moved(fold, floors, np.array([part.mc_floor for part in estimates]))
    if group == "gap":
        row |= _gap_test(item, estimates[1:], row, chance, differs)
    return row


def _gap_test(item: MetricResult, groups: list[Estimate], row: Row, chance: Array, differs: str) -> Row:
    """P-value of a gap by the null that holds its level for this metric, and the words that say which.

    FD's expectation differs between groups of different spread even under a perfect generator, so its gap is tested in
    excess: under equality the excesses are those of each group's own deviations (``_equal_values``). KD is unbiased,
    but its noise differs between groups of different spread or cluster size, which permutations mix: there the larger
    p of the two nulls stands. Simulations: benchmarks/validity_groups.py.
    """
    values = np.array([estimate.value for estimate in groups])
    scale, asked = float(np.abs(values).max()), len(groups[0].replicates)
    if item.metric in NOT_TESTED and "spread" in differs:
        return {"note": join_notes(row["note"], UNTESTED)}
    floors = [estimate.floor for estimate in groups if estimate.floor is not None]
    if item.metric in EXCESS_TESTED and len(floors) == len(groups):
        excess, error = values - np.array(floors), np.hypot(row["mc_estimate"], row["mc_floor"])
        found = _tested(float(np.ptp(excess)), _equal_values(groups, WIDENED), scale, asked, float(error))
        return {**found, "note": join_notes(row["note"], found.get("note", ""), EQUAL_EXCESS)}
    found = _tested(row["estimate"], chance, scale, asked, row["mc_estimate"])
    if differs and found:
        other = _tested(row["estimate"], _equal_values(groups, 1.0), scale, asked, row["mc_estimate"])
        larger = max(found, other, key=lambda part: part.get("p_value", 0.0))
        found = {**larger, "note": join_notes(found["note"], CAREFUL.format(differs))}
    return {**found, "note": join_notes(row["note"], found.get("note", ""))}


def _equal_values(groups: list[Estimate], widened: float) -> Array:
    """[R] gaps of groups that are equal but for their own noise: bootstrap replicates about their mean."""
    draws = np.stack([estimate.replicates for estimate in groups], axis=1)
    draws = draws[np.isfinite(draws).all(axis=1)]
    return np.asarray(np.ptp(widened * (draws - draws.mean(axis=0)), axis=1)) if len(draws) else np.zeros(0)


def _moved(fold: Callable[[Array], Array], values: Array, errors: Array) -> float:
    """Error of a folded value from those of its parts, each moved by its own in turn."""
    moved = fold(values + np.diag(errors)) - fold(values[None])
    return float(np.sqrt(np.sum(moved * moved)))


def _tested(value: float, chance: Array, scale: float, asked: int, error: float) -> Row:
    """P-value of a gap, equal within the rounding of values of this scale, with its whole Monte-Carlo error.

    Another seed draws other null values, and other subsamples: it moves the gap by its own ``error``, and p with it.
    """
    defined = chance[np.isfinite(chance)]
    if len(defined) == 0:
        return {}
    p = p_value(value, defined, scale=scale)
    ends = [p_value(value + side * error, defined, scale=scale) for side in (-1.0, 1.0)]
    moved = float(np.hypot(np.sqrt(p * (1 - p) / len(defined)), (ends[0] - ends[1]) / 2))
    lost = len(chance) - len(defined)
    note = f"{lost} permutations are undefined" if lost else ""
    if len(chance) < asked:
        note = join_notes(note, f"null band of {len(chance)} permutations, since the groups are large")
    return {"p_value": p, "mc_p": moved, "note": note}


def summarise_rows(table: Array, kind: str, fold: Callable[[str, Array], float]) -> Array:
    """[R, 1 + G] -> [R]; NaN where one of a row's values is undefined, or a relative scale has none."""
    return np.array([_fold(row, kind, fold) for row in table], dtype=np.float64)


def _fold(row: Array, kind: str, fold: Callable[[str, Array], float]) -> float:
    undefined = not np.isfinite(row).all() or (kind == "higher" and row[0] <= 0 and fold is equity_value)
    return np.nan if undefined else fold(kind, row)


def _adjust(rows: list[Row]) -> None:
    """Replace the p-values of one metric's gaps by Holm's, and say so in each note."""
    tested = [row for row in rows if row["p_value"] is not None]
    adjusted = holm(np.array([row["p_value"] for row in tested]))
    for row, value in zip(tested, adjusted, strict=True):
        if len(tested) > 1:
            words = f"p adjusted by Holm over {len(tested)} attributes, {row['p_value']:.3g} before"
            row["note"] = join_notes(row["note"], words)
        row["p_value"] = float(value)
