"""From estimates to the rows of quality.parquet, with the words that say what a row cannot support."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.quality.cells import Cell
from equigen.quality.estimates import Estimate, Measured
from equigen.statistics import equity_scaled, gap, holm, p_value, percentile_interval

Array = NDArray[np.float64]
Row = dict[str, Any]
FIGURES = ["estimate", "ci_low", "ci_high", "floor", "excess", "null_low", "null_high", "p_value"]
COLUMNS = [
    "run", "encoder", "metric", "attribute", "group", "n_real", "n_generated", "matched_n", *FIGURES, "note",
]
LEANS = "a gap is never negative, so its interval leans upwards: read it beside the null band"
SPREAD = "groups that differ in spread differ in FD even under a perfect generator: judge by excess and kd"
FORMULA = {
    "lower": "M + sum_g |M_g - M|",
    "higher": "M / (1 + sum_g |M_g - M| / M)",
    "share": "M / (1 + sum_g |M_g - M|)",
}


def assemble(
    measured: list[Measured], cells: list[Cell], run: str, encoder: str, n: int | None
) -> pd.DataFrame:
    """The quality table: for each metric the whole set, each group, then gap and es of each attribute.

    P-values of gaps are Holm-adjusted over the attributes of one metric; the note gives the one before.
    """
    rows: list[Row] = []
    for item in measured:
        own = [_cell_row(item, cell, cells) for cell in cells]
        for attribute in dict.fromkeys(cell.attribute for cell in cells if cell.attribute != "*"):
            own += _summary_rows(item, attribute, cells)
        _adjust(own)
        head = {"run": run, "encoder": encoder, "metric": item.metric, "matched_n": n}
        rows += [{**head, **row} for row in own]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    counts = dict.fromkeys(("n_real", "n_generated", "matched_n"), "Int64")
    return frame.astype({**counts, **dict.fromkeys(FIGURES, "float64"), "note": "str"})


def join(*parts: str) -> str:
    """The parts that are not empty, separated by a semicolon."""
    return "; ".join(part for part in parts if part)


def equity_value(kind: str, values: Array) -> float:
    """Equity-scaled value of [1 + G] values, the whole set first; ``kind`` as in ``Measured``."""
    relative, higher = kind != "share", kind != "lower"
    return equity_scaled(float(values[0]), values[1:], relative=relative, higher_is_better=higher)


def _counts(attribute: str, group: str, cells: list[Cell]) -> Row:
    real, generated = sum(len(cell.real) for cell in cells), sum(len(cell.generated) for cell in cells)
    return {"attribute": attribute, "group": group, "n_real": real, "n_generated": generated, "note": "",
            **dict.fromkeys(FIGURES)}


def _eligible(cells: list[Cell], attribute: str) -> list[Cell]:
    return [cell for cell in cells if cell.attribute == attribute and cell.reason is None]


def _cell_row(item: Measured, cell: Cell, cells: list[Cell]) -> Row:
    row = _counts(cell.attribute, cell.group, [cell])
    if cell.reason is not None:
        return {**row, "note": cell.reason}
    estimate = item.estimates[cell.attribute, cell.group]
    excess = estimate.value - estimate.floor if estimate.floor is not None and item.kind == "lower" else None
    row |= _interval(estimate.value, estimate.replicates) | {"floor": estimate.floor, "excess": excess}
    if cell.attribute in item.null:
        names = [other.group for other in _eligible(cells, cell.attribute)]
        row |= _band(item.null[cell.attribute][:, names.index(cell.group)])
    certain = item.kind == "share" and estimate.value in {0.0, 1.0}
    rule = f"without exception; by the rule of three up to {3 / cell.patients:.2g} may be" if certain else ""
    return {**row, "note": join(item.note, row["note"], rule)}


def _interval(value: float, replicates: Array) -> Row:
    """Estimate and interval; replicates in which a group was empty are counted in the note."""
    defined = replicates[np.isfinite(replicates)]
    lost = len(replicates) - len(defined)
    note = f"{lost} of {len(replicates)} bootstrap replicates are undefined" if lost else ""
    low, high = percentile_interval(defined) if 2 * len(defined) >= len(replicates) else (None, None)
    return {"estimate": value, "ci_low": low, "ci_high": high, "note": note}


def _band(null: Array) -> Row:
    defined = null[np.isfinite(null)]
    low, high = percentile_interval(defined) if 2 * len(defined) >= len(null) else (None, None)
    return {"null_low": low, "null_high": high}


def _summary_rows(item: Measured, attribute: str, cells: list[Cell]) -> list[Row]:
    large, whole = _eligible(cells, attribute), item.estimates.get(("*", "*"))
    left_out = [f"without {cell.group} ({cell.reason})" for cell in cells
                if cell.attribute == attribute and cell.reason is not None]
    if len(large) < 2 or whole is None:
        note = join("fewer than two groups are large enough to compare", *left_out)
        return [{**_counts(attribute, group, large), "note": note} for group in ("gap", "es")]
    estimates = [whole, *(item.estimates[attribute, cell.group] for cell in large)]
    folds: dict[str, Callable[[Array], float]] = {
        "gap": lambda values: gap(values[1:]), "es": lambda values: equity_value(item.kind, values),
    }
    spread = SPREAD if item.metric == "fd" else ""
    words = {"gap": join(LEANS, spread), "es": FORMULA[item.kind]}
    rows = []
    for group, fold in folds.items():
        row = _counts(attribute, group, large)
        row |= _folded(item, estimates, item.null[attribute], fold, tested=group == "gap")
        excess = "excess is made of the groups' excesses" if row["excess"] is not None else ""
        rows.append({**row, "note": join(item.note, *left_out, row["note"], words[group], excess)})
    return rows


def _folded(
    item: Measured, estimates: list[Estimate], null: Array, fold: Callable[[Array], float], *, tested: bool
) -> Row:
    """Fold the values of the whole and its groups into one, and so in each replicate and permutation."""
    values = np.array([estimate.value for estimate in estimates])
    replicates = _fold_all(np.stack([estimate.replicates for estimate in estimates], axis=1), fold)
    chance = _fold_all(np.column_stack([np.full(len(null), values[0]), null]), fold)
    row = _interval(fold(values), replicates) | _band(chance) | {"floor": None, "excess": None}
    if all(estimate.floor is not None for estimate in estimates):
        floors = np.array([estimate.floor for estimate in estimates], dtype=np.float64)
        row["floor"] = fold(floors)
        row["excess"] = fold(values - floors) if item.kind == "lower" else None
    defined = chance[np.isfinite(chance)]
    if tested and len(defined):
        row["p_value"] = p_value(row["estimate"], defined)
        if len(defined) < len(chance):
            row["note"] = join(row["note"], f"{len(chance) - len(defined)} permutations are undefined")
    return row


def _fold_all(table: Array, fold: Callable[[Array], float]) -> Array:
    """[R, K] -> [R]; NaN where one of a row's values is undefined."""
    return np.array([fold(row) if np.isfinite(row).all() else np.nan for row in table])


def _adjust(rows: list[Row]) -> None:
    """Replace the p-values of one metric's gaps by Holm's, and say so in each note."""
    tested = [row for row in rows if row["p_value"] is not None]
    adjusted = holm(np.array([row["p_value"] for row in tested]))
    for row, value in zip(tested, adjusted, strict=True):
        if len(tested) > 1:
            words = f"p adjusted by Holm over {len(tested)} attributes, {row['p_value']:.3g} before"
            row["note"] = join(row["note"], words)
        row["p_value"] = float(value)
