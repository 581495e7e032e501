"""Rows of fairness.parquet from a measured cell: estimates, intervals, null bands, differences, notes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.fairness.cells import Cell, Frame, Least
from equigen.fairness.metrics import FOLLOWS_PREVALENCE, HIGHER_IS_BETTER
from equigen.fairness.null_bands import effective_numbers
from equigen.statistics import holm, p_value, percentile_interval, share_interval

Floats = NDArray[np.float64]
COLUMNS = [
    "recipe",
    "task",
    "domain",
    "metric",
    "attribute",
    "group",
    "n",
    "n_patients",
    "estimate",
    "ci_low",
    "ci_high",
    "null_low",
    "null_high",
    "p_value",
    "difference_to",
    "difference",
    "difference_low",
    "difference_high",
    "note",
]
BIASED = "no interval: sampling noise alone makes a calibration error positive"
LEANS = "the interval of a largest less a smallest never holds 0: read the gap beside the chance band"
MIXES = {  # what else than the classifier a gap can come from
    True: "follows prevalence: part of the gap may come from unequal prevalence",
    False: "part of the gap may be case mix",
}
ENOUGH = 0.5  # share of replicates that must have a value before an interval or a null band is shown


@dataclass(frozen=True)
class Series:
    """What becomes one row: values [1 + R] with the estimate first, null values [B] or None, and notes.

    ``resting``: the patients the metric rests on, where its interval is that of a share; None for percentiles.
    """

    metric: str
    attribute: str
    group: str
    n: int
    n_patients: int
    values: Floats
    null: Floats | None = None
    tested: bool = False
    resting: int | None = None
    notes: list[str] = field(default_factory=list)


def series_of(cell: Cell, least: Least) -> list[Series]:
    """Every row a cell gives: overall, groups, and gap, worst and equity-scaled value of each attribute."""
    made = [_overall(cell, metric, least) for metric in cell.overall if metric in HIGHER_IS_BETTER]
    for frame in cell.frames:
        for metric in (name for name in frame.groups if name in HIGHER_IS_BETTER):
            made += _groups(frame, metric, least) + _derived(frame, metric)
        if "selection_rate" in frame.groups:
            made += [
                _between(frame, "dpd", ("selection_rate",)),
                _between(frame, "deodds", ("sensitivity", "specificity")),
            ]
    return [replace(item, notes=[note for note in [*item.notes, cell.note] if note]) for item in made]


def _resting(metric: str, patients: int) -> int | None:
    """Patients of an interval of a share; a calibration error is no share."""
    return None if metric == "ece" or patients < 2 else patients


def _overall(cell: Cell, metric: str, least: Least) -> Series:
    """The row over all groups."""
    values, notes, sizes = cell.overall[metric], [], cell.sizes
    if not np.isfinite(values[0]):
        notes = [least.missing(metric, sizes) or "too small: one class only"]
    resting = _resting(metric, cell.resting[metric])
    return Series(metric, "*", "*", sizes.n, sizes.patients, values, resting=resting, notes=notes)


def _groups(frame: Frame, metric: str, least: Least) -> list[Series]:
    """One row for each level."""
    made = []
    for index, level in enumerate(frame.levels):
        values, sizes = frame.groups[metric][index], frame.sizes[index]
        notes = []
        if not np.isfinite(values[0]):
            notes = [least.missing(metric, sizes) or f"too small: {frame.absent or 'one class only'}"]
        resting = _resting(metric, int(frame.resting[metric][index]))
        head = (metric, frame.attribute, level, sizes.n, sizes.patients)
        made.append(Series(*head, values, resting=resting, notes=[*notes, frame.note]))
    return made


def _usable(frame: Frame, metrics: tuple[str, ...]) -> tuple[NDArray[np.int64], list[str]]:
    """Groups with an estimate in every metric, and the notes on what was left out."""
    ok = np.all([np.isfinite(frame.groups[metric][:, 0]) for metric in metrics], axis=0)
    left = [level for level, inside in zip(frame.levels, ok, strict=True) if not inside]
    notes = [f"without {', '.join(left)} (too small)"] if left else []
    notes += [f"{frame.unknown} rows of unknown {frame.attribute} left out"] if frame.unknown else []
    return np.flatnonzero(ok), [*notes, frame.note]


def _spread(values: Floats) -> Floats:
    """Gap between groups, max - min, in each column."""
    return np.asarray(values.max(axis=0) - values.min(axis=0), dtype=np.float64)


def _counts(frame: Frame, used: NDArray[np.int64]) -> tuple[int, int]:
    """Rows and patients in the groups compared; a patient with rows in two groups counts in each."""
    return sum(frame.sizes[index].n for index in used), sum(frame.sizes[index].patients for index in used)


def _nothing(frame: Frame, metric: str, group: str, used: NDArray[np.int64]) -> Series:
    """The row of a comparison that needs two groups and has not got them."""
    columns = next(iter(frame.groups.values())).shape[1] if frame.levels else 1
    reason = "too small: fewer than two groups" if frame.levels else f"no row has a known {frame.attribute}"
    return Series(
        metric,
        frame.attribute,
        group,
        *_counts(frame, used),
        np.full(columns, np.nan),
        notes=[reason, frame.note],
    )


def _derived(frame: Frame, metric: str) -> list[Series]:
    """Gap, worst group and, for AUC, the equity-scaled value."""
    used, notes = _usable(frame, (metric,))
    names = ["gap", "worst", *(["es"] if metric == "auc" else [])]
    if len(used) < 2:
        return [_nothing(frame, metric, name, used) for name in names]
    values, null = frame.groups[metric][used], frame.null[metric][used]
    worst = np.min if HIGHER_IS_BETTER[metric] else np.max
    named = frame.levels[used[(np.argmin if HIGHER_IS_BETTER[metric] else np.argmax)(values[:, 0])]]
    head, counts = (metric, frame.attribute), _counts(frame, used)
    made = [
        Series(*head, "gap", *counts, _spread(values), _spread(null), tested=True, notes=_warned(metric, frame, notes)),
        Series(
            *head,
            "worst",
            *counts,
            worst(values, axis=0),
            worst(null, axis=0),
            notes=[f"worst is {named}", *notes],
        ),
    ]
    if metric == "auc":
        scaled = _equity_scaled(frame.overall[metric], values)
        chance = _equity_scaled(_overall_by_chance(frame, metric, used), null)
        made.append(Series(*head, "es", *counts, scaled, chance, notes=notes))
    return made


def _warned(metric: str, frame: Frame, notes: list[str]) -> list[str]:
    """Notes of a gap with what it must not be taken for; sensitivity and specificity do not follow prevalence."""
    return [*notes, LEANS, "" if frame.standardised else MIXES[metric in FOLLOWS_PREVALENCE]]


def _overall_by_chance(frame: Frame, metric: str, used: NDArray[np.int64]) -> Floats:
    """The metric over all groups, moved in each draw by what the groups, weighted by their rows, move, [B]."""
    null, rows = frame.null[metric][used], np.array([frame.sizes[index].n for index in used], dtype=np.float64)
    if null.shape[1] == 0:
        return np.zeros(0)
    return np.asarray(frame.overall[metric][0] + (rows / rows.sum()) @ (null - null.mean(axis=1, keepdims=True)))


def _equity_scaled(overall: Floats, groups: Floats) -> Floats:
    """ES-AUC in each column (``equigen.statistics.equity_scaled`` has it for one); NaN stays NaN."""
    return np.asarray(overall / (1 + np.abs(groups - overall).sum(axis=0)), dtype=np.float64)


def _between(frame: Frame, name: str, metrics: tuple[str, ...]) -> Series:
    """The larger of the groups' gaps in some rates: dpd of one rate, deodds of two."""
    used, notes = _usable(frame, metrics)
    if len(used) < 2:
        return _nothing(frame, name, "gap", used)
    values = np.max([_spread(frame.groups[metric][used]) for metric in metrics], axis=0)
    null = np.max([_spread(frame.null[metric][used]) for metric in metrics], axis=0)
    counts, warned = _counts(frame, used), _warned(name, frame, notes)
    return Series(name, frame.attribute, "gap", *counts, values, null, tested=True, notes=warned)


def row_of(series: Series, other: Series | None, to: str | None, shared: Series | None = None) -> dict[str, Any]:
    """One row of the table; ``other`` is the same series of the baseline on the same rows.

    ``shared`` is the series on those rows, where they are not all rows.
    """
    estimate, notes = series.values[0], list(series.notes)
    low, high = _interval(series.values[1:], np.isfinite(estimate), "replicates", notes)
    if low is not None and series.resting is not None:
        number = float(effective_numbers(series.values[None, :], np.array([series.resting]))[0])
        low, high = share_interval(float(estimate), number, series.resting - 1.0)
    if series.metric == "ece" and series.group != "gap" and low is not None:
        low, high = None, None
        notes.append(BIASED)
    null_low, null_high, chance = None, None, None
    if series.null is not None and np.isfinite(estimate):
        null_low, null_high = _interval(series.null, True, "draws of chance", notes)
        valid = series.null[np.isfinite(series.null)]
        chance = p_value(float(estimate), valid) if series.tested and null_low is not None else None
    row = dict(
        zip(
            COLUMNS[3:8],
            (series.metric, series.attribute, series.group, series.n, series.n_patients),
            strict=True,
        )
    )
    row |= {
        "estimate": _number(estimate),
        "ci_low": low,
        "ci_high": high,
        "null_low": null_low,
        "null_high": null_high,
        "p_value": chance,
        "difference_to": to,
    }
    return row | _difference(shared or series, other) | {"note": "; ".join(note for note in notes if note)}


def _difference(series: Series, other: Series | None) -> dict[str, float | None]:
    """Difference to the baseline with the interval of the paired cluster bootstrap."""
    names = ("difference", "difference_low", "difference_high")
    if other is None or not (np.isfinite(series.values[0]) and np.isfinite(other.values[0])):
        return dict.fromkeys(names)
    values = series.values - other.values
    return dict(zip(names, (_number(values[0]), *_interval(values[1:], True, "pairs", [])), strict=True))


def _interval(values: Floats, wanted: bool, what: str, notes: list[str]) -> tuple[float | None, float | None]:
    """Percentile interval of the replicates with a value; those without one are counted in the notes."""
    if not wanted or len(values) == 0:
        return None, None
    valid = values[np.isfinite(values)]
    if len(valid) < len(values):
        notes.append(f"{len(values) - len(valid)} of {len(values)} {what} had a group of one class")
    return percentile_interval(valid) if len(valid) >= ENOUGH * len(values) else (None, None)


def _number(value: float) -> float | None:
    """A float, or None for what is undefined."""
    return float(value) if np.isfinite(value) else None


def adjust(table: pd.DataFrame) -> pd.DataFrame:
    """Holm over attributes: p-values of one recipe, task, domain and metric are one family."""
    tested = table["p_value"].notna()
    adjusted = table["p_value"].astype(float).copy()
    for _, family in table[tested].groupby(["recipe", "task", "domain", "metric"]):
        adjusted.loc[family.index] = holm(family["p_value"].to_numpy(dtype=float))
    return table.assign(p_value=adjusted)
