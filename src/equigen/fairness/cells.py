"""Metrics of one recipe, task and domain, overall and in each group, with bootstrap replicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.fairness.metrics import BINS, SUPPORT, calibration_parts, measure
from equigen.fairness.null_bands import null_calibration_errors, null_values, replace_degenerate
from equigen.fairness.resamples import Attribute, Resamples
from equigen.fairness.standardisation import CaseMix, standardise_weights
from equigen.fairness.thresholds import Threshold

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
MetricValues = dict[str, Floats]
SeedRuns = Sequence[tuple[pd.DataFrame, Threshold]]


@dataclass(frozen=True)
class Sizes:
    """Numbers of rows and patients of a set, and of patients with a positive and with a negative row."""

    n: int
    patients: int
    positives: int
    negatives: int

    def support(self, metric: str) -> int:
        """Patients that limit the precision of a metric: of a metric of both classes those of the smaller one."""
        counts = {
            "both": min(self.positives, self.negatives),
            "positives": self.positives,
            "negatives": self.negatives,
        }
        return counts[SUPPORT[metric]] if metric in SUPPORT else self.patients


@dataclass(frozen=True)
class MinimumSizes:
    """Numbers of patients, and of patients of a class, below which a metric has no estimate."""

    patients: int
    cases: int

    def missing(self, metric: str, sizes: Sizes) -> str:
        """Why a metric of a set of these sizes has no estimate; empty where it has one."""
        if sizes.patients < self.patients:
            return f"too small: {sizes.patients} patients, at least {self.patients} are needed"
        count = sizes.support(metric)
        if metric not in SUPPORT or count >= max(1, self.cases):
            return ""
        if count == 0:
            return "too small: one class only"
        positive = SUPPORT[metric] == "positives" or (SUPPORT[metric] == "both" and sizes.positives == count)
        return f"too small: {count} patients {'with' if positive else 'without'} the condition, {self.cases} are needed"


@dataclass(frozen=True)
class Frame:
    """Metrics by group of one attribute: ``groups`` [G, 1 + R] (column 0 the estimate), ``null`` [G, B].

    ``overall`` [1 + R] is the metric over all rows, ``sizes`` the groups' sizes, ``support`` [G] the patients that
    limit the precision of a metric in each group.
    """

    attribute: str
    levels: list[str]
    sizes: list[Sizes]
    unknown: int
    overall: MetricValues
    groups: MetricValues
    null: MetricValues
    support: dict[str, Codes]
    note: str = ""
    standardised: bool = False
    absent: str = ""  # why a group with enough patients and cases may have no estimate


@dataclass(frozen=True)
class Cell:
    """Metrics over all rows [1 + R], and one frame for each attribute."""

    sizes: Sizes
    key: tuple[str, ...]  # units and truth: cells of equal keys are paired
    overall: MetricValues
    support: dict[str, int]
    frames: list[Frame]
    note: str = ""


def evaluate(runs: SeedRuns, resamples: Resamples, minimum: MinimumSizes, mix: CaseMix | None = None) -> Cell:
    """Metrics of one recipe on one task, averaged over its runs (training seeds) in every replicate.

    Args:
        runs: for each seed its rows (unit, truth, probability) in this domain, and its threshold.
        resamples: those of the domain.
        minimum: sizes below which a metric has no estimate.
        mix: the case mix that groups are standardised to, or None.

    """
    table = runs[0][0]
    rows = resamples.rows_of(table["unit"])
    sizes = _sizes(resamples.patients[rows], table["truth"].to_numpy())
    overall = _mean([_bootstrap(run, threshold, resamples, None) for run, threshold in runs])
    overall = _valid_values(overall, sizes, minimum, resamples, "*", "*")
    frames = [_attribute_frame(attribute, runs, resamples, overall, minimum, mix) for attribute in resamples.attributes]
    notes = [f"mean of {len(runs)} seeds"] if len(runs) > 1 else []
    notes += sorted({threshold.note for _, threshold in runs} - {""})
    key = (*table["unit"], *table["truth"].astype(str))
    support = {metric: sizes.support(metric) for metric in overall}
    return Cell(sizes, key, overall, support, frames, "; ".join(notes))


def _sizes(patients: Codes, truth: NDArray[np.int64]) -> Sizes:
    """Sizes of a set of rows."""
    counts = [len(np.unique(subset)) for subset in (patients, patients[truth == 1], patients[truth == 0])]
    return Sizes(len(patients), *counts)


def _valid_values(
    values: MetricValues, sizes: Sizes, minimum: MinimumSizes, resamples: Resamples, *names: str
) -> MetricValues:
    """Values of the metrics that a set is large enough for, NaN for the others; degenerate replicates replaced."""
    valid = {}
    for metric, series in values.items():
        if minimum.missing(metric, sizes):
            valid[metric] = np.full_like(series, np.nan)
        elif metric == "ece":
            valid[metric] = series
        else:
            rng = resamples.stream("steadied", *names, metric)
            valid[metric] = replace_degenerate(series, sizes.support(metric), rng)
    return valid


def _attribute_frame(
    attribute: Attribute,
    runs: SeedRuns,
    resamples: Resamples,
    overall: MetricValues,
    minimum: MinimumSizes,
    mix: CaseMix | None,
) -> Frame:
    """Metrics of all groups of one attribute."""
    table = runs[0][0]
    rows = resamples.rows_of(table["unit"])
    codes, patients, truth = attribute.codes[rows], resamples.patients[rows], table["truth"].to_numpy()
    target = None if mix is None else mix.target(table, codes >= 0)
    sizes, values = [], []
    for group, level in enumerate(attribute.levels):
        mask = codes == group
        sizes.append(_sizes(patients[mask], truth[mask]))
        if sizes[-1].patients >= minimum.patients:
            strata = None if mix is None or target is None else (mix.strata(table)[mask], target)
            means = _mean([_bootstrap(run, threshold, resamples, mask, strata) for run, threshold in runs])
            values.append(_valid_values(means, sizes[-1], minimum, resamples, attribute.name, level))
        else:
            values.append({name: np.full(len(series), np.nan) for name, series in overall.items()})
    groups = {name: np.stack([group[name] for group in values]) if values else np.empty((0, len(series)))
              for name, series in overall.items()}  # fmt: skip
    support = {metric: np.array([size.support(metric) for size in sizes], dtype=np.int64) for metric in overall}
    null = {metric: _null(groups[metric], support[metric], resamples, attribute, metric) for metric in overall}
    if attribute.levels:
        large = [bool(np.isfinite(value)) for value in groups["ece"][:, 0]]
        errors = [_calibration_null(run, codes, large, resamples, mix, target) for run, _ in runs]
        null["ece"] = np.mean(errors, axis=0)
    unknown = int((codes < 0).sum())
    frame = Frame(attribute.name, attribute.levels, sizes, unknown, overall, groups, null, support)
    if mix is None:
        return frame
    return replace(frame, note=mix.note(table), standardised=True, absent=f"a stratum of {mix.name} has no row")


def _null(values: Floats, support: Codes, resamples: Resamples, attribute: Attribute, metric: str) -> Floats:
    """Groups' values under equal values, [G, B]; B is 0 without bootstrap replicates."""
    count = resamples.null_draws if values.ndim == 2 and values.shape[1] > 2 else 0
    rng = resamples.stream("chance", attribute.name, metric)
    return null_values(values, support, count, rng, mixed=attribute.mixed)


def _calibration_null(
    run: pd.DataFrame, codes: Codes, large: list[bool], resamples: Resamples, mix: CaseMix | None, target: Floats | None
) -> Floats:
    """Groups' calibration errors under equal recalibration curves, [G, B]."""
    rows = resamples.rows_of(run["unit"])
    truth, score = run["truth"].to_numpy(), run["probability"].to_numpy()
    width = resamples.multiplicity.shape[1]
    residuals, shares = np.full((len(large), BINS, width), np.nan), np.zeros((len(large), BINS))
    for group in np.flatnonzero(large):
        mask = codes == group
        strata = None if mix is None or target is None else (mix.strata(run)[mask], target)
        y, p = truth[mask], score[mask]
        shares[group] = calibration_parts(y, p, _weights(np.ones((len(y), 1)), strata))[1]
        for block, weights in resamples.bootstrap(rows[mask]):
            residuals[group][:, block] = calibration_parts(y, p, _weights(weights, strata))[0]
    counts = [(int((codes == g).sum()), len(np.unique(resamples.patients[rows][codes == g])))
              for g in range(len(large))]  # fmt: skip
    n, patients = np.array(counts, dtype=np.int64).T
    return null_calibration_errors(residuals, shares, n, patients, resamples.null_draws if width > 2 else 0)


def _mean(runs: list[MetricValues]) -> MetricValues:
    """Mean over seeds of each metric."""
    if len(runs) == 1:
        return runs[0]
    return {name: np.mean([run[name] for run in runs], axis=0) for name in runs[0]}


def _bootstrap(
    run: pd.DataFrame,
    threshold: Threshold,
    resamples: Resamples,
    mask: NDArray[np.bool_] | None,
    strata: tuple[Codes, Floats] | None = None,
) -> MetricValues:
    """Estimate and bootstrap replicates over all rows, or over those of one group."""
    rows = resamples.rows_of(run["unit"])
    mask = np.ones(len(rows), dtype=bool) if mask is None else mask
    truth, score = run["truth"].to_numpy()[mask], run["probability"].to_numpy()[mask]
    blocks = [measure(truth, score, _weights(weights, strata), threshold=threshold.value)
              for _, weights in resamples.bootstrap(rows[mask])]  # fmt: skip
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _weights(weights: Floats, strata: tuple[Codes, Floats] | None) -> Floats:
    """Weights [N, R], standardised to a case mix in every replicate where ``strata`` (codes, target) are given."""
    return weights if strata is None else standardise_weights(weights, *strata)


def macro_average(cells: dict[str, Cell], resamples: Resamples, metric: str = "auc") -> Cell:
    """Mean of one metric over tasks, in every replicate.

    Over all rows it takes the tasks that have an estimate. For an attribute it takes only those with an estimate in
    every large group, so that groups are compared over the same tasks; ``note`` names the tasks left out. All cells
    come from the resamples of one domain.
    """
    first = next(iter(cells.values()))
    tasks = [task for task, cell in cells.items() if np.isfinite(cell.overall[metric][0])]
    frames = [_macro_frame(cells, tasks, index, metric, resamples) for index in range(len(first.frames))]
    sizes = _largest([cell.sizes for cell in cells.values()])
    key = tuple(item for task in sorted(cells) for item in (task, *cells[task].key))
    overall = {metric: _average([cells[task].overall[metric] for task in tasks], first.overall[metric])}
    support = {metric: min([cells[task].support[metric] for task in tasks], default=0)}
    return Cell(sizes, key, overall, support, frames, _tasks_note(tasks, list(cells)))


def _macro_frame(cells: dict[str, Cell], tasks: list[str], index: int, metric: str, resamples: Resamples) -> Frame:
    """The mean over tasks of one attribute's frame."""
    frames = {task: cell.frames[index] for task, cell in cells.items()}
    first, attribute = next(iter(frames.values())), resamples.attributes[index]
    large = np.any([np.isfinite(frame.groups["accuracy"][:, 0]) for frame in frames.values()], axis=0)
    tasks = [task for task in tasks if np.isfinite(frames[task].groups[metric][large, 0]).all()]
    groups = _average([frames[task].groups[metric] for task in tasks], first.groups[metric])
    counts = [frames[task].support[metric] for task in tasks]
    support = np.min(counts, axis=0) if counts else first.support[metric]
    return Frame(
        first.attribute,
        first.levels,
        [_largest(list(sizes)) for sizes in zip(*(frame.sizes for frame in frames.values()), strict=True)],
        max(frame.unknown for frame in frames.values()),
        {metric: _average([frames[task].overall[metric] for task in tasks], first.overall[metric])},
        {metric: groups},
        {metric: _null(groups, support, resamples, attribute, metric)},
        {metric: support},
        "; ".join(note for note in (first.note, _tasks_note(tasks, list(cells))) if note),
        first.standardised,
        first.absent,
    )


def _largest(sizes: list[Sizes]) -> Sizes:
    """Largest sizes over tasks, whose known rows may differ."""
    names = ("n", "patients", "positives", "negatives")
    return Sizes(*(max(getattr(size, name) for size in sizes) for name in names))


def _average(values: list[Floats], like: Floats) -> Floats:
    """Mean over tasks; NaN of the shape of ``like`` without any."""
    return np.mean(values, axis=0) if values else np.full_like(like, np.nan)


def _tasks_note(tasks: list[str], every: list[str]) -> str:
    """A note on a mean that leaves out some tasks; empty for a mean of all."""
    omitted = [task.split(":", 1)[1] for task in every if task not in tasks]
    return f"mean of {len(tasks)} of {len(every)} tasks, without {', '.join(omitted)}" if omitted else ""
