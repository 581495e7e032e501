"""What is known of one sample of a comparison: its figures, each with its resamples and what chance gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from equigen.quality import Array, Cell, Estimate, MetricResult, cells_with_estimate, join_notes
from equigen.statistics import gap

Place = tuple[str, str, str]  # metric, attribute, figure


@dataclass(frozen=True)
class Figure:
    """One figure of one sample: its value (NaN: ``note`` says why), and that in each resample [R] of real patients.

    ``patients``: how many real ones it stands on, of a gap those of the smallest group. ``null``: the mean gap under
    permuted labels, NaN where it does not apply. ``chance``: of a group that takes part in worst and gap, its values
    under permuted labels; empty where none are defined; None of all other figures.
    """

    value: float
    replicates: Array
    patients: int
    null: float = float("nan")
    note: str = ""
    chance: Array | None = None


@dataclass(frozen=True)
class Scored:
    """One sample: the columns that name it, its matched n, and its figures."""

    head: dict[str, Any]
    n: int | None
    figures: dict[Place, Figure]


def score(
    metrics: Sequence[str], heads: Sequence[dict[str, Any]], cells: Sequence[list[Cell]],
    measured: Sequence[list[MetricResult]], n: int | None,
) -> list[Scored]:
    """Figures of the samples of one plan; worst and gap over the groups that have a number in all of them."""
    figures: list[dict[Place, Figure]] = [{} for _ in heads]
    for metric in metrics:
        items = [next((item for item in own if item.metric == metric), None) for own in measured]
        for attribute in dict.fromkeys(cell.attribute for cell in cells[0]):
            groups = _shared(items, cells, attribute)
            for own, item, found in zip(cells, items, figures, strict=True):
                found |= {(metric, attribute, name): figure
                          for name, figure in _figures(item, own, attribute, groups).items()}
    return [Scored(dict(head), n, found) for head, found in zip(heads, figures, strict=True)]


def _shared(items: Sequence[MetricResult | None], cells: Sequence[list[Cell]], attribute: str) -> list[str]:
    """The groups of an attribute in which every sample has a number."""
    found = [[cell.group for cell in cells_with_estimate(item, own, attribute)] if item is not None else []
             for item, own in zip(items, cells, strict=True)]
    return [group for group in found[0] if all(group in other for other in found)]


def _figures(item: MetricResult | None, cells: list[Cell], attribute: str, groups: list[str]) -> dict[str, Figure]:
    """Each cell of an attribute, then (but for the whole set) worst and gap."""
    own = [cell for cell in cells if cell.attribute == attribute]
    single = {cell.group: _single(item, cell) for cell in own}
    if attribute == "*":
        return {"overall": single["*"]}
    out = [f"without {cell.group} ({cell.reason or 'no number in every sample'})" for cell in own
           if cell.group not in groups]
    if item is None or len(groups) < 2:
        note = join_notes("fewer than two groups have a number in every sample", *out)
        missing = Figure(float("nan"), np.zeros(0), 0, note=note)
        return {**single, "worst": missing, "gap": missing}
    parts = [single[group] for group in groups]
    values, draws = np.array([part.value for part in parts]), np.stack([part.replicates for part in parts], axis=1)
    patients, notes = min(part.patients for part in parts), join_notes(*out)
    place = int(values.argmax() if item.kind == "lower" else values.argmin())
    worst = draws.max(axis=1) if item.kind == "lower" else draws.min(axis=1)
    chance = _chance(item, own, groups)
    null = float(np.ptp(chance, axis=1).mean()) if len(chance) else float("nan")
    return {
        **single,
        **{group: replace(single[group], chance=chance[:, index]) for index, group in enumerate(groups)},
        "worst": Figure(float(values[place]), worst, patients, note=join_notes(f"worst group: {groups[place]}", notes)),
        "gap": Figure(gap(values), np.ptp(draws, axis=1), patients, null, notes),
    }


def _single(item: MetricResult | None, cell: Cell) -> Figure:
    """The excess where there is one, else the estimate."""
    estimate = None if item is None else item.estimates.get((cell.attribute, cell.group))
    if item is None or estimate is None or not np.isfinite(estimate.value):
        reason = cell.reason or "undefined in this cell"
        return Figure(float("nan"), np.zeros(0), cell.patients, note=join_notes(reason, cell.note))
    base = _floor(item, estimate)
    return Figure(estimate.value - base, estimate.replicates - base, cell.patients, note=cell.note)


def _floor(item: MetricResult, estimate: Estimate) -> float:
    return estimate.floor if item.kind == "lower" and estimate.floor is not None else 0.0


def _chance(item: MetricResult, cells: list[Cell], groups: list[str]) -> Array:
    """[R, G] values that permuted labels give to these groups, where all of them are defined; [0, G] where none is."""
    names = [cell.group for cell in cells if cell.reason is None]
    table = item.null.get(cells[0].attribute)
    if table is None:
        return np.zeros((0, len(groups)))
    chosen: Array = table[:, [names.index(group) for group in groups]]
    return chosen[np.isfinite(chosen).all(axis=1)]
