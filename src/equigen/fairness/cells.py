"""One recipe, task and domain: every metric over everything and in each group, with its replicates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.fairness.metrics import BINS, RESTS_ON, calibration_parts, measure
from equigen.fairness.null_bands import equal_calibration, equal_values, steadied
from equigen.fairness.resamples import Attribute, Draws
from equigen.fairness.standardisation import Mix, standardised
from equigen.fairness.thresholds import Threshold

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Measured = dict[str, Floats]
Runs = Sequence[tuple[pd.DataFrame, Threshold]]
CASES = 10  # patients with the condition, and without it, below which a metric that divides by them is too small


@dataclass(frozen=True)
class Sizes:
    """Rows and patients of one set, and its patients with a positive and with a negative row."""

    n: int
    patients: int
    positives: int
    negatives: int

    def resting(self, metric: str) -> int:
        """Patients that a metric rests on: with both classes, those of the rarer one."""
        both = min(self.positives, self.negatives)
        counts = {"both": both, "positives": self.positives, "negatives": self.negatives}
        return counts[RESTS_ON[metric]] if metric in RESTS_ON else self.patients


@dataclass(frozen=True)
class Least:
    """Patients, and patients of a class, below which there is no number."""

    patients: int
    cases: int

    def missing(self, metric: str, sizes: Sizes) -> str:
        """Why a metric of a set of these sizes is not shown; empty where it is."""
        if sizes.patients < self.patients:
            return f"too small: {sizes.patients} patients, at least {self.patients} are needed"
        count = sizes.resting(metric)
        if metric not in RESTS_ON or count >= max(1, self.cases):
            return ""
        if count == 0:
            return "too small: one class only"
        positive = RESTS_ON[metric] == "positives" or (RESTS_ON[metric] == "both" and sizes.positives == count)
        return f"too small: {count} patients {'with' if positive else 'without'} the condition, {self.cases} are needed"


@dataclass(frozen=True)
class Frame:
    """One attribute in a cell: ``groups`` are [G, 1 + R] (column 0 the estimate), ``null`` [G, B].

    ``overall`` is the metric over all rows, [1 + R]. ``sizes`` are the groups', ``resting`` the patients that a
    metric rests on in each group, [G].
    """

    attribute: str
    levels: list[str]
    sizes: list[Sizes]
    unknown: int
    overall: Measured
    groups: Measured
    null: Measured
    resting: dict[str, Codes]
    note: str = ""
    standardised: bool = False
    absent: str = ""  # what a group without a value lacks when it has enough patients and cases


@dataclass(frozen=True)
class Cell:
    """Metrics over all rows, [1 + R] each, and one frame for each attribute."""

    sizes: Sizes
    key: tuple[str, ...]  # units and truth: cells with equal keys are compared as pairs
    overall: Measured
    resting: dict[str, int]
    frames: list[Frame]
    note: str = ""


def evaluate(runs: Runs, draws: Draws, least: Least, mix: Mix | None = None) -> Cell:
    """Measure the runs (training seeds) of one recipe on one task, averaged over runs in every replicate.

    Args:
        runs: for each seed its rows (unit, truth, probability) in this domain, and its threshold.
        draws: the domain's draws.
        least: sizes below which a metric has no value.
        mix: the case mix that groups are weighted to, or None.

    """
    table = runs[0][0]
    rows = draws.rows_of(table["unit"])
    sizes = _sizes(draws.patients[rows], table["truth"].to_numpy())
    overall = _mean([_bootstrap(run, threshold, draws, None) for run, threshold in runs])
    overall = _shown(overall, sizes, least, draws, "*", "*")
    frames = [_frame(attribute, runs, draws, overall, least, mix) for attribute in draws.attributes]
    notes = [f"mean of {len(runs)} seeds"] if len(runs) > 1 else []
    notes += sorted({threshold.note for _, threshold in runs} - {""})
    key = (*table["unit"], *table["truth"].astype(str))
    resting = {metric: sizes.resting(metric) for metric in overall}
    return Cell(sizes, key, overall, resting, frames, "; ".join(notes))


def _sizes(patients: Codes, truth: NDArray[np.int64]) -> Sizes:
    """Sizes of a set of rows."""
    counts = [len(np.unique(part)) for part in (patients, patients[truth == 1], patients[truth == 0])]
    return Sizes(len(patients), *counts)


def _shown(values: Measured, sizes: Sizes, least: Least, draws: Draws, *names: str) -> Measured:
    """Values of the metrics that a set is large enough for, NaN for the others; collapsed replicates drawn anew."""
    shown = {}
    for metric, series in values.items():
        if least.missing(metric, sizes):
            shown[metric] = np.full_like(series, np.nan)
        elif metric == "ece":
            shown[metric] = series
        else:
            shown[metric] = steadied(series, sizes.resting(metric), draws.stream("steadied", *names, metric))
    return shown


def _frame(
    attribute: Attribute, runs: Runs, draws: Draws, overall: Measured, least: Least, mix: Mix | None
) -> Frame:
    """All groups of one attribute."""
    table = runs[0][0]
    rows = draws.rows_of(table["unit"])
    codes, patients, truth = attribute.codes[rows], draws.patients[rows], table["truth"].to_numpy()
    target = None if mix is None else mix.target(table, codes >= 0)
    sizes, groups = [], []
    for group, level in enumerate(attribute.levels):
        inside = codes == group
        sizes.append(_sizes(patients[inside], truth[inside]))
        if sizes[-1].patients >= least.patients:
            weighted = None if mix is None or target is None else mix.of(table, inside, target)
            found = _mean([_bootstrap(run, limit, draws, inside, weighted) for run, limit in runs])
            groups.append(_shown(found, sizes[-1], least, draws, attribute.name, level))
        else:
            groups.append({name: np.full(len(values), np.nan) for name, values in overall.items()})
    stacked = _stack(groups, overall)
    resting = {metric: np.array([size.resting(metric) for size in sizes], dtype=np.int64) for metric in overall}
    null = {metric: _null(stacked[metric], resting[metric], draws, attribute, metric) for metric in overall}
    if attribute.levels:
        large = [bool(np.isfinite(value)) for value in stacked["ece"][:, 0]]
        errors = [_calibration_null(run, codes, large, draws, mix, target) for run, _ in runs]
        null["ece"] = np.mean(errors, axis=0)
    unknown = int((codes < 0).sum())
    whole = Frame(attribute.name, attribute.levels, sizes, unknown, overall, stacked, null, resting)
    if mix is None:
        return whole
    return replace(whole, note=mix.note(table), standardised=True, absent=f"a stratum of {mix.name} has no row")


def _null(values: Floats, resting: Codes, draws: Draws, attribute: Attribute, metric: str) -> Floats:
    """Groups' values if all were equal, [G, B]; none where nothing was resampled."""
    count = draws.chance if values.ndim == 2 and values.shape[1] > 2 else 0
    return equal_values(values, resting, count, draws.stream("chance", attribute.name, metric), mixed=attribute.mixed)


def _calibration_null(
    run: pd.DataFrame, codes: Codes, large: list[bool], draws: Draws, mix: Mix | None, target: Floats | None
) -> Floats:
    """Groups' calibration errors if all had the same recalibration curve, [G, B]."""
    rows = draws.rows_of(run["unit"])
    truth, score = run["truth"].to_numpy(), run["probability"].to_numpy()
    width = draws.multiplicity.shape[1]
    surprise, shares = np.full((len(large), BINS, width), np.nan), np.zeros((len(large), BINS))
    for group in np.flatnonzero(large):
        inside = codes == group
        weighted = None if mix is None or target is None else mix.of(run, inside, target)
        y, p = truth[inside], score[inside]
        shares[group] = calibration_parts(y, p, _weights(np.ones((len(y), 1)), weighted))[1]
        for block, weights in draws.bootstrap(rows[inside]):
            surprise[group][:, block] = calibration_parts(y, p, _weights(weights, weighted))[0]
    counts = [(int((codes == g).sum()), len(np.unique(draws.patients[rows][codes == g]))) for g in range(len(large))]
    n, patients = np.array(counts, dtype=np.int64).T
    return equal_calibration(surprise, shares, n, patients, draws.chance if width > 2 else 0)


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
    run: pd.DataFrame,
    limit: Threshold,
    draws: Draws,
    inside: NDArray[np.bool_] | None,
    weighted: tuple[Codes, Floats] | None = None,
) -> Measured:
    """Estimate and bootstrap replicates over all rows, or over those of one group."""
    rows = draws.rows_of(run["unit"])
    chosen = np.ones(len(rows), dtype=bool) if inside is None else inside
    truth, score = run["truth"].to_numpy()[chosen], run["probability"].to_numpy()[chosen]
    return _joined(
        measure(truth, score, _weights(weights, weighted), threshold=limit.value)
        for _, weights in draws.bootstrap(rows[chosen])
    )


def _weights(weights: Floats, weighted: tuple[Codes, Floats] | None) -> Floats:
    """Weights [N, R] after weighting to a case mix, in every replicate anew."""
    return weights if weighted is None else standardised(weights, *weighted)


def macro(cells: dict[str, Cell], draws: Draws, metric: str = "auc") -> Cell:
    """Mean of one metric over tasks, in every replicate.

    Over everything it takes the tasks that have a value there. For an attribute it takes only those with a
    value in every large group, so that groups are compared over the same tasks; ``note`` names what is left
    out. All cells come from the draws of one domain.
    """
    first = next(iter(cells.values()))
    used = [task for task, cell in cells.items() if np.isfinite(cell.overall[metric][0])]
    frames = [_macro_frame(cells, used, index, metric, draws) for index in range(len(first.frames))]
    sizes = _largest([cell.sizes for cell in cells.values()])
    key = tuple(part for task in sorted(cells) for part in (task, *cells[task].key))
    overall = {metric: _average([cells[task].overall[metric] for task in used], first.overall[metric])}
    resting = {metric: min([cells[task].resting[metric] for task in used], default=0)}
    return Cell(sizes, key, overall, resting, frames, _tasks_note(used, list(cells)))


def _macro_frame(cells: dict[str, Cell], tasks: list[str], index: int, metric: str, draws: Draws) -> Frame:
    """The mean over tasks of one attribute's frame."""
    frames = {task: cell.frames[index] for task, cell in cells.items()}
    first, attribute = next(iter(frames.values())), draws.attributes[index]
    large = np.any([np.isfinite(frame.groups["accuracy"][:, 0]) for frame in frames.values()], axis=0)
    used = [task for task in tasks if np.isfinite(frames[task].groups[metric][large, 0]).all()]
    groups = _average([frames[task].groups[metric] for task in used], first.groups[metric])
    counts = [frames[task].resting[metric] for task in used]
    resting = np.min(counts, axis=0) if counts else first.resting[metric]
    return Frame(
        first.attribute,
        first.levels,
        [_largest(list(sizes)) for sizes in zip(*(frame.sizes for frame in frames.values()), strict=True)],
        max(frame.unknown for frame in frames.values()),
        {metric: _average([frames[task].overall[metric] for task in used], first.overall[metric])},
        {metric: groups},
        {metric: _null(groups, resting, draws, attribute, metric)},
        {metric: resting},
        "; ".join(note for note in (first.note, _tasks_note(used, list(cells))) if note),
        first.standardised,
        first.absent,
    )


def _largest(sizes: list[Sizes]) -> Sizes:
    """Largest sizes over tasks, whose known rows may differ."""
    names = ("n", "patients", "positives", "negatives")
    return Sizes(*(max(getattr(size, name) for size in sizes) for name in names))


def _average(parts: list[Floats], like: Floats) -> Floats:
    """Mean over tasks, NaN without any."""
    return np.mean(parts, axis=0) if parts else np.full_like(like, np.nan)


def _tasks_note(used: list[str], every: list[str]) -> str:
    """Which tasks a mean is over, when not over all."""
    left = [task.split(":", 1)[1] for task in every if task not in used]
    return f"mean of {len(used)} of {len(every)} tasks, without {', '.join(left)}" if left else ""
