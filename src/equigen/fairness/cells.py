"""One recipe, task and domain: every metric over everything and in each group, with its replicates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.fairness.draws import Attribute, Draws, permuted_members
from equigen.fairness.metrics import measure
from equigen.fairness.thresholds import Threshold

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Measured = dict[str, Floats]


@dataclass(frozen=True)
class Frame:
    """One attribute in a cell: ``groups`` are [G, 1 + R] (column 0 the estimate), ``null`` [G, B].

    ``overall`` is the metric over all rows, [1 + R]. ``large`` says which groups have enough patients.
    """

    attribute: str
    levels: list[str]
    n: list[int]
    n_patients: list[int]
    large: list[bool]
    unknown: int
    overall: Measured
    groups: Measured
    null: Measured
    note: str = ""


@dataclass(frozen=True)
class Cell:
    """Metrics over all rows, [1 + R] each, and one frame for each attribute."""

    n: int
    n_patients: int
    large: bool
    key: tuple[str, ...]  # units and truth: cells with equal keys are compared as pairs
    overall: Measured
    frames: list[Frame]
    note: str = ""


def evaluate(runs: Sequence[tuple[pd.DataFrame, Threshold]], draws: Draws, *, min_patients: int) -> Cell:
    """Measure the runs (training seeds) of one recipe on one task, averaged over runs in every replicate.

    Args:
        runs: for each seed its rows (unit, truth, probability) in this domain, and its threshold.
        draws: the domain's draws.
        min_patients: groups with fewer patients are not large.

    """
    table = runs[0][0]
    rows = draws.rows_of(table["unit"])
    n_patients = len(np.unique(draws.patients[rows]))
    overall = _mean([_bootstrap(run, threshold, draws, None) for run, threshold in runs])
    frames = [_frame(attribute, runs, draws, overall, min_patients) for attribute in draws.attributes]
    notes = [f"mean of {len(runs)} seeds"] if len(runs) > 1 else []
    notes += sorted({threshold.note for _, threshold in runs} - {""})
    key = (*table["unit"], *table["truth"].astype(str))
    return Cell(len(table), n_patients, n_patients >= min_patients, key, overall, frames, "; ".join(notes))


def _frame(
    attribute: Attribute,
    runs: Sequence[tuple[pd.DataFrame, Threshold]],
    draws: Draws,
    overall: Measured,
    least: int,
) -> Frame:
    """All groups of one attribute."""
    rows = draws.rows_of(runs[0][0]["unit"])
    codes, patients = attribute.codes[rows], draws.patients[rows]
    every = range(len(attribute.levels))
    n = [int((codes == group).sum()) for group in every]
    n_patients = [len(np.unique(patients[codes == group])) for group in every]
    large = [count >= least for count in n_patients]
    groups, null = [], []
    for group in every:
        if large[group]:
            groups.append(_mean([_bootstrap(run, limit, draws, (attribute, group)) for run, limit in runs]))
            null.append(_mean([_null(run, limit, draws, attribute, group) for run, limit in runs]))
        else:
            groups.append({name: np.full(len(values), np.nan) for name, values in overall.items()})
            null.append({name: np.full(attribute.permuted.shape[1], np.nan) for name in overall})
    return Frame(
        attribute.name,
        attribute.levels,
        n,
        n_patients,
        large,
        int((codes < 0).sum()),
        overall,
        _stack(groups, overall),
        _stack(null, overall),
    )


def _stack(parts: list[Measured], names: Measured) -> Measured:
    """[G, ..] for each metric; without any group [0, 1 + R]."""
    return {
        name: np.stack([part[name] for part in parts]) if parts else np.empty((0, len(values)))
        for name, values in names.items()
    }


def _mean(parts: list[Measured]) -> Measured:
    """Mean over seeds of each metric."""
    return (
        parts[0]
        if len(parts) == 1
        else {name: np.mean([p[name] for p in parts], axis=0) for name in parts[0]}
    )


def _joined(blocks: Iterator[Measured]) -> Measured:
    """Blocks of replicates one behind the other."""
    parts = list(blocks)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _bootstrap(
    run: pd.DataFrame, limit: Threshold, draws: Draws, group: tuple[Attribute, int] | None
) -> Measured:
    """Estimate and bootstrap replicates over all rows, or over one group's."""
    rows = draws.rows_of(run["unit"])
    chosen = np.ones(len(rows), dtype=bool) if group is None else group[0].codes[rows] == group[1]
    truth, score = run["truth"].to_numpy()[chosen], run["probability"].to_numpy()[chosen]
    return _joined(
        measure(truth, score, weights, threshold=limit.value) for _, weights in draws.bootstrap(rows[chosen])
    )


def _null(run: pd.DataFrame, limit: Threshold, draws: Draws, attribute: Attribute, group: int) -> Measured:
    """A group's metrics when group labels are permuted, [B] each."""
    if attribute.permuted.shape[1] == 0:
        return dict.fromkeys(measure(np.zeros(1), np.zeros(1)), np.empty(0))
    permuted = attribute.permuted[draws.rows_of(run["unit"])]
    truth, score = run["truth"].to_numpy(), run["probability"].to_numpy()
    return _joined(
        measure(truth, score, members, threshold=limit.value)
        for _, members in permuted_members(permuted, group)
    )


def macro(cells: dict[str, Cell], metric: str = "auc") -> Cell:
    """Mean of one metric over tasks, in every replicate and permutation.

    Over everything it takes the tasks that have a value there. For an attribute it takes only those with a
    value in every large group, so that groups are compared over the same tasks; ``note`` names what is left
    out. All cells come from the draws of one domain.
    """
    first = next(iter(cells.values()))
    used = [task for task, cell in cells.items() if np.isfinite(cell.overall[metric][0])]
    frames = [_macro_frame(cells, used, index, metric) for index in range(len(first.frames))]
    n, n_patients = max(cell.n for cell in cells.values()), max(cell.n_patients for cell in cells.values())
    key = tuple(part for task in sorted(cells) for part in (task, *cells[task].key))
    overall = {metric: _average([cells[task].overall[metric] for task in used], first.overall[metric])}
    return Cell(n, n_patients, first.large, key, overall, frames, _tasks_note(used, list(cells)))


def _macro_frame(cells: dict[str, Cell], tasks: list[str], index: int, metric: str) -> Frame:
    """The mean over tasks of one attribute's frame."""
    frames = {task: cell.frames[index] for task, cell in cells.items()}
    first = next(iter(frames.values()))
    large = np.array(first.large, dtype=bool)
    used = [task for task in tasks if np.isfinite(frames[task].groups[metric][large, 0]).all()]
    return Frame(
        first.attribute,
        first.levels,
        _largest(frame.n for frame in frames.values()),
        _largest(frame.n_patients for frame in frames.values()),
        first.large,
        max(frame.unknown for frame in frames.values()),
        {metric: _average([frames[task].overall[metric] for task in used], first.overall[metric])},
        {metric: _average([frames[task].groups[metric] for task in used], first.groups[metric])},
        {metric: _average([frames[task].null[metric] for task in used], first.null[metric])},
        _tasks_note(used, list(cells)),
    )


def _largest(lists: Iterator[list[int]]) -> list[int]:
    """Elementwise maximum over tasks, whose known rows may differ."""
    return [max(values) for values in zip(*lists, strict=True)]


def _average(parts: list[Floats], like: Floats) -> Floats:
    """Mean over tasks, NaN without any."""
    return np.mean(parts, axis=0) if parts else np.full_like(like, np.nan)


def _tasks_note(used: list[str], every: list[str]) -> str:
    """Which tasks a mean is over, when not over all."""
    left = [task.split(":", 1)[1] for task in every if task not in used]
    return f"mean of {len(used)} of {len(every)} tasks, without {', '.join(left)}" if left else ""
