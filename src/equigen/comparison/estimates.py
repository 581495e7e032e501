"""The quantities of one sample of a comparison: a value, its resamples, and its values under permuted labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from equigen.quality import Array, Cell, MetricResult, cells_with_estimate, join_notes
from equigen.statistics import Estimate, gap

Key = tuple[str, str, str]  # metric, attribute, quantity (the column ``figure``)


@dataclass(frozen=True)
class Quantity(Estimate):
    """One quantity of one sample, with its value in each resample [R] of the real patients.

    A value of NaN is explained by ``note``. ``patients``: number of real patients; of a gap that of the smallest group.
    ``null``: mean gap under permuted labels, NaN where it does not apply. ``chance``: of a group of the worst value and
    the gap, its values under permuted labels, empty where none are defined; None of all other quantities.
    """

    patients: int
    null: float = float("nan")
    note: str = ""
    chance: Array | None = None


@dataclass(frozen=True)
class SampleResult:
    """One sample: the columns that identify it, its matched n, and its quantities."""

    head: dict[str, Any]
    n: int | None
    quantities: dict[Key, Quantity]


def sample_results(
    metrics: Sequence[str],
    heads: Sequence[dict[str, Any]],
    cells: Sequence[list[Cell]],
    results: Sequence[list[MetricResult]],
    n: int | None,
) -> list[SampleResult]:
    """Return the quantities of the samples of one plan; worst and gap are of groups with an estimate in every sample.

    ``heads``, ``cells``, ``results``: one entry for each sample.
    """
    quantities: list[dict[Key, Quantity]] = [{} for _ in heads]
    for metric in metrics:
        by_sample = [next((result for result in sample if result.metric == metric), None) for sample in results]
        for attribute in dict.fromkeys(cell.attribute for cell in cells[0]):
            per_sample = [
                [] if result is None else [cell.group for cell in cells_with_estimate(result, sample_cells, attribute)]
                for result, sample_cells in zip(by_sample, cells, strict=True)
            ]
            groups = [group for group in per_sample[0] if all(group in names for names in per_sample)]
            for sample_cells, result, table in zip(cells, by_sample, quantities, strict=True):
                attribute_cells = [cell for cell in sample_cells if cell.attribute == attribute]
                table |= {
                    (metric, attribute, name): quantity
                    for name, quantity in _quantities(result, attribute_cells, groups).items()
                }
    return [SampleResult(dict(head), n, table) for head, table in zip(heads, quantities, strict=True)]


def _quantities(result: MetricResult | None, cells: list[Cell], groups: list[str]) -> dict[str, Quantity]:
    """Return the quantities of one attribute: each group's, then worst and gap; ``overall`` alone of the whole set."""
    single = {cell.group: _cell_quantity(result, cell) for cell in cells}
    if cells[0].attribute == "*":
        return {"overall": single["*"]}
    missing = [
        f"without {cell.group} ({cell.reason or 'no number in every sample'})"
        for cell in cells
        if cell.group not in groups
    ]
    if result is None or len(groups) < 2:
        note = join_notes("fewer than two groups have a number in every sample", *missing)
        undefined = Quantity(float("nan"), np.zeros(0), 0, note=note)
        return {**single, "worst": undefined, "gap": undefined}
    values = np.array([single[group].value for group in groups])
    replicates = np.stack([single[group].replicates for group in groups], axis=1)
    patients, note = min(single[group].patients for group in groups), join_notes(*missing)
    index = int(values.argmax() if result.kind == "lower" else values.argmin())
    worst = replicates.max(axis=1) if result.kind == "lower" else replicates.min(axis=1)
    chance = _chance(result, cells, groups)
    null = float(np.ptp(chance, axis=1).mean()) if len(chance) else float("nan")
    worst_note = join_notes(f"worst group: {groups[index]}", note)
    return {
        **single,
        **{group: replace(single[group], chance=chance[:, column]) for column, group in enumerate(groups)},
        "worst": Quantity(float(values[index]), worst, patients, note=worst_note),
        "gap": Quantity(gap(values), np.ptp(replicates, axis=1), patients, null, note),
    }


def _cell_quantity(result: MetricResult | None, cell: Cell) -> Quantity:
    """Return the excess of a cell if the metric has a floor, else the estimate."""
    estimate = None if result is None else result.estimates.get((cell.attribute, cell.group))
    if result is None or estimate is None or not np.isfinite(estimate.value):
        reason = cell.reason or "undefined in this cell"
        return Quantity(float("nan"), np.zeros(0), cell.patients, note=join_notes(reason, cell.note))
    floor = estimate.floor if result.kind == "lower" and estimate.floor is not None else 0.0
    return Quantity(estimate.value - floor, estimate.replicates - floor, cell.patients, note=cell.note)


def _chance(result: MetricResult, cells: list[Cell], groups: list[str]) -> Array:
    """Return the [R, G] values of these groups under permuted labels, for the permutations that define all of them."""
    names = [cell.group for cell in cells if cell.reason is None]
    table = result.null.get(cells[0].attribute)
    if table is None:
        return np.zeros((0, len(groups)))
    columns: Array = table[:, [names.index(group) for group in groups]]
    return columns[np.isfinite(columns).all(axis=1)]
