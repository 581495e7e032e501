"""Rows of fairness.parquet from the metrics of a cell: estimates, intervals, null bands, differences, notes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.fairness.cells import Cell, Frame, MinimumSizes
from equigen.fairness.metrics import FOLLOWS_PREVALENCE, HIGHER_IS_BETTER
from equigen.fairness.null_bands import effective_numbers
from equigen.statistics import Estimate, equity_scaled_rows, holm, p_value, replicate_interval, share_interval

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
CASE_MIX_NOTES = {  # by whether a metric follows prevalence
    True: "follows prevalence: part of the gap may come from unequal prevalence",
    False: "part of the gap may be case mix",
}


@dataclass(frozen=True)
class Series(Estimate):
    """The estimate of one row, with null values [B] or None, and notes.

    ``support``: patients that limit the precision, for an interval of a share; None for a percentile interval.
    """

    metric: str
    attribute: str
    group: str
    n: int
    n_patients: int
    null: Floats | None = None
    tested: bool = False
    support: int | None = None
    notes: list[str] = field(default_factory=list)


def _series(values: Floats, *head: Any, **options: Any) -> Series:
    """The series of values [1 + R], the estimate first."""
    return Series(float(values[0]), values[1:], *head, **options)


def cell_series(cell: Cell, minimum: MinimumSizes) -> list[Series]:
    """The series of a cell: overall, groups, and gap, worst and equity-scaled value of each attribute."""
    series = []
    for metric in (name for name in cell.overall if name in HIGHER_IS_BETTER):
        values, sizes = cell.overall[metric], cell.sizes
        notes = [] if np.isfinite(values[0]) else [minimum.missing(metric, sizes) or "too small: one class only"]
        support = _share_support(metric, cell.support[metric])
        series.append(_series(values, metric, "*", "*", sizes.n, sizes.patients, support=support, notes=notes))
    for frame in cell.frames:
        for metric in (name for name in frame.groups if name in HIGHER_IS_BETTER):
            for index, level in enumerate(frame.levels):
                values, sizes = frame.groups[metric][index], frame.sizes[index]
                notes = [frame.note]
                if not np.isfinite(values[0]):
                    reason = minimum.missing(metric, sizes) or f"too small: {frame.absent or 'one class only'}"
                    notes = [reason, frame.note]
                support = _share_support(metric, int(frame.support[metric][index]))
                head = (metric, frame.attribute, level, sizes.n, sizes.patients)
                series.append(_series(values, *head, support=support, notes=notes))
            series += _group_summaries(frame, metric)
        if "selection_rate" in frame.groups:
            series.append(_rate_gap(frame, "dpd", ("selection_rate",)))
            series.append(_rate_gap(frame, "deodds", ("sensitivity", "specificity")))
    return [replace(item, notes=[note for note in [*item.notes, cell.note] if note]) for item in series]


def _share_support(metric: str, patients: int) -> int | None:
    """Support of the interval of a share; None for a calibration error, which is not a share."""
    return None if metric == "ece" or patients < 2 else patients


def _valid_groups(frame: Frame, metrics: tuple[str, ...]) -> tuple[NDArray[np.int64], list[str]]:
    """Indices of the groups with an estimate in every metric, and notes on groups and rows left out."""
    valid = np.all([np.isfinite(frame.groups[metric][:, 0]) for metric in metrics], axis=0)
    small = [level for level, large in zip(frame.levels, valid, strict=True) if not large]
    notes = [f"without {', '.join(small)} (too small)"] if small else []
    notes += [f"{frame.unknown} rows of unknown {frame.attribute} left out"] if frame.unknown else []
    return np.flatnonzero(valid), [*notes, frame.note]


def _counts(frame: Frame, indices: NDArray[np.int64]) -> tuple[int, int]:
    """Rows and patients of some groups; a patient with rows in two groups counts in each."""
    return sum(frame.sizes[index].n for index in indices), sum(frame.sizes[index].patients for index in indices)


def _undefined(frame: Frame, metric: str, group: str, indices: NDArray[np.int64]) -> Series:
    """The series of a summary of fewer than two groups."""
    columns = next(iter(frame.groups.values())).shape[1] if frame.levels else 1
    reason = "too small: fewer than two groups" if frame.levels else f"no row has a known {frame.attribute}"
    counts, undefined = _counts(frame, indices), np.full(columns, np.nan)
    return _series(undefined, metric, frame.attribute, group, *counts, notes=[reason, frame.note])


def _group_summaries(frame: Frame, metric: str) -> list[Series]:
    """Gap, worst group and, for AUC, the equity-scaled value."""
    indices, notes = _valid_groups(frame, (metric,))
    names = ["gap", "worst", *(["es"] if metric == "auc" else [])]
    if len(indices) < 2:
        return [_undefined(frame, metric, name, indices) for name in names]
    values, null = frame.groups[metric][indices], frame.null[metric][indices]
    worst, arg_worst = (np.min, np.argmin) if HIGHER_IS_BETTER[metric] else (np.max, np.argmax)
    head, counts = (metric, frame.attribute), _counts(frame, indices)
    gap_notes = _gap_notes(metric, frame, notes)
    worst_notes = [f"worst is {frame.levels[indices[arg_worst(values[:, 0])]]}", *notes]
    series = [
        _series(np.ptp(values, axis=0), *head, "gap", *counts, np.ptp(null, axis=0), tested=True, notes=gap_notes),
        _series(worst(values, axis=0), *head, "worst", *counts, worst(null, axis=0), notes=worst_notes),
    ]
    if metric == "auc":
        overall, overall_null = frame.overall[metric], np.zeros(0)
        if null.shape[1]:  # the overall value moves with the groups, weighted by their rows
            rows = np.array([frame.sizes[index].n for index in indices], dtype=np.float64)
            overall_null = overall[0] + (rows / rows.sum()) @ (null - null.mean(axis=1, keepdims=True))
        scaled, scaled_null = _equity_scaled(overall, values), _equity_scaled(overall_null, null)
        series.append(_series(scaled, *head, "es", *counts, scaled_null, notes=notes))
    return series


def _gap_notes(metric: str, frame: Frame, notes: list[str]) -> list[str]:
    """Notes of a gap, with those on its interval and on case mix."""
    return [*notes, LEANS, "" if frame.standardised else CASE_MIX_NOTES[metric in FOLLOWS_PREVALENCE]]


def _equity_scaled(overall: Floats, groups: Floats) -> Floats:
    """ES-AUC of each column of [R] overall and [G, R] group values; NaN where one is undefined."""
    return equity_scaled_rows(overall, groups.T, relative=False, higher_is_better=True)


def _rate_gap(frame: Frame, name: str, metrics: tuple[str, ...]) -> Series:
    """The largest of the groups' gaps in some rates: dpd of one rate, deodds of two."""
    indices, notes = _valid_groups(frame, metrics)
    if len(indices) < 2:
        return _undefined(frame, name, "gap", indices)
    values = np.max([np.ptp(frame.groups[metric][indices], axis=0) for metric in metrics], axis=0)
    null = np.max([np.ptp(frame.null[metric][indices], axis=0) for metric in metrics], axis=0)
    notes = _gap_notes(name, frame, notes)
    head = name, frame.attribute, "gap"
    return _series(values, *head, *_counts(frame, indices), null, tested=True, notes=notes)


def table_row(
    series: Series, baseline: Series | None, baseline_name: str | None, shared: Series | None = None
) -> dict[str, Any]:
    """One row of the table; ``baseline`` is the same series of the baseline on the shared rows.

    ``shared`` is the series on the rows shared with the baseline, where these are not all rows. The interval of the
    difference is that of the paired cluster bootstrap.
    """
    estimate, notes = series.value, list(series.notes)
    low, high = _interval(series.replicates, "replicates", notes) if np.isfinite(estimate) else (None, None)
    if low is not None and series.support is not None:
        values = np.concatenate([[estimate], series.replicates])[None, :]
        number = float(effective_numbers(values, np.array([series.support]))[0])
        low, high = share_interval(estimate, number, series.support - 1.0)
    if series.metric == "ece" and series.group != "gap" and low is not None:
        low, high = None, None
        notes.append(BIASED)
    null_low, null_high, chance = None, None, None
    if series.null is not None and np.isfinite(estimate):
        null_low, null_high = _interval(series.null, "draws of chance", notes)
        valid = series.null[np.isfinite(series.null)]
        chance = p_value(estimate, valid) if series.tested and null_low is not None else None
    difference: dict[str, float | None] = dict.fromkeys(("difference", "difference_low", "difference_high"))
    first = shared or series
    if baseline is not None and np.isfinite(first.value) and np.isfinite(baseline.value):
        pair = first - baseline
        limits = _interval(pair.replicates, "pairs", [])
        difference = dict(zip(difference, (_number(pair.value), *limits), strict=True))
    return {
        "metric": series.metric,
        "attribute": series.attribute,
        "group": series.group,
        "n": series.n,
        "n_patients": series.n_patients,
        "estimate": _number(estimate),
        "ci_low": low,
        "ci_high": high,
        "null_low": null_low,
        "null_high": null_high,
        "p_value": chance,
        "difference_to": baseline_name,
        **difference,
        "note": "; ".join(note for note in notes if note),
    }


def _interval(values: Floats, name: str, notes: list[str]) -> tuple[float | None, float | None]:
    """Percentile interval of the defined replicates; adds a note with the number of undefined ones."""
    lost = int((~np.isfinite(values)).sum())
    if lost:
        notes.append(f"{lost} of {len(values)} {name} had a group of one class")
    return replicate_interval(values, least=1) or (None, None)


def _number(value: float) -> float | None:
    """A float, or None where undefined."""
    return float(value) if np.isfinite(value) else None


def adjust(table: pd.DataFrame) -> pd.DataFrame:
    """P-values adjusted by Holm over attributes; those of one recipe, task, domain and metric are one family."""
    tested = table["p_value"].notna()
    adjusted = table["p_value"].astype(float).copy()
    for _, family in table[tested].groupby(["recipe", "task", "domain", "metric"]):
        adjusted.loc[family.index] = holm(family["p_value"].to_numpy(dtype=float))
    return table.assign(p_value=adjusted)
