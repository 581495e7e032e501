"""Measurement of all metrics in every cell of real and generated features, one family of cells at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.errors import InputError, Problem
from equigen.progress import Bar
from equigen.quality.cells import Cell, GroupedImages, ResamplingSettings, cross_groups, make_cells, matched_n
from equigen.quality.copy_power import PlantedCopies
from equigen.quality.exchangeability import group_heterogeneity
from equigen.quality.features import Features
from equigen.quality.judge.judge import AnnotatedFeatures, Judges, SetPredictions
from equigen.quality.judge.phantom_oracle import measure_semantic
from equigen.quality.judge.reconstruction_check import RECONSTRUCTION, add_reconstruction_notes
from equigen.quality.metric_inputs import MeasurementPlan, MetricResult, ResultCache
from equigen.quality.metrics.frechet import PARTS, measure_frechet
from equigen.quality.metrics.kernel import kernel_data, measure_kernel
from equigen.quality.metrics.manifold import measure_manifold
from equigen.quality.metrics.memorisation import NearestTraining, TrainingSearch, measure_memorisation, search_training
from equigen.quality.metrics.scores import measure_inception
from equigen.quality.resamples import make_draws
from equigen.quality.rows import join_notes
from equigen.quality.settings import FIDELITY, MEMORISATION, METRICS, SEMANTIC

KINDS = {
    "fd": "lower",
    "fd_inf": "lower",
    "kd": "lower",
    "is": "higher",
    "density": "higher",
    "mifid": "lower",
    "nn_ratio": "higher",
    "near_copies": "lower",
}
HIGHER_IS_BETTER = tuple(name for name in METRICS if KINDS.get(name, "share") != "lower")
BLOCK = 8192  # rows whose features are checked at a time
BANDS = "interval and null band to first order"
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class EncodedImages(GroupedImages):
    """Images with their features and table; ``thumbnails`` [N, D] where copies are searched for."""

    features: Features
    frame: pd.DataFrame
    thumbnails: NDArray[np.float16] | None = None

    def annotated(self) -> AnnotatedFeatures:
        """Features, table and patients, in the form that a judge takes."""
        return AnnotatedFeatures(self.features.values, self.frame, self.patients)


@dataclass(frozen=True)
class FamilyResult:
    """Metrics of one generated set in one family of cells: those of the attributes, or of their intersections.

    ``n`` is the matched n, None where no cell is large enough. ``closest`` is None without training images.
    """

    cells: list[Cell]
    metrics: list[MetricResult]
    n: int | None
    closest: NearestTraining | None = None


@dataclass(frozen=True)
class EvaluationInputs:
    """Inputs of an evaluation: the real images, the generated sets by name, the metrics, and what some of them need.

    ``streams``: name of the random stream of each set's bootstrap; sets with the same requests share it.
    ``planted``: held-out images with which the power of the copy check is measured.
    """

    real: EncodedImages
    sets: dict[str, EncodedImages]
    metrics: list[str]
    train: EncodedImages | None = None
    judges: Judges | None = None
    streams: dict[str, str] | None = None
    planted: PlantedCopies | None = None


@dataclass(frozen=True)
class SharedResults:
    """Results that both families of cells and all sets share, each computed at its first use."""

    inputs: EvaluationInputs
    cache: ResultCache = field(default_factory=ResultCache)
    searches: dict[str, TrainingSearch] = field(default_factory=dict)
    judgements: dict[str, SetPredictions] = field(default_factory=dict)

    def search(self, name: str, bar: Bar) -> TrainingSearch | None:
        """Neighbours of a set among the training images, None where no metric needs them.

        Those of the held-out images are the same for all sets.
        """
        real, generated, train = self.inputs.real, self.inputs.sets[name], self.inputs.train
        if train is None or not set(MEMORISATION) & set(self.inputs.metrics):
            return None
        if name not in self.searches:
            bar.note("nearest training images")
            values = real.features.values, generated.features.values, train.features.values
            held_out = next((search.held_out for search in self.searches.values()), None)
            thumbnails = None
            if real.thumbnails is not None and generated.thumbnails is not None and train.thumbnails is not None:
                thumbnails = real.thumbnails, generated.thumbnails, train.thumbnails
            self.searches[name] = search_training(
                *values,
                real.patients,
                train.patients,
                generated_patients=generated.patients,
                held_out=held_out,
                thumbnails=thumbnails,
            )
            bar.note("")
        return self.searches[name]

    def judged(self, name: str) -> SetPredictions | None:
        """Judges' predictions for a set, None without judges."""
        if self.inputs.judges is None:
            return None
        if name not in self.judgements:
            judged = self.inputs.judges.judge(self.inputs.sets[name].annotated())
            if name != RECONSTRUCTION:
                held_out = self.judged(RECONSTRUCTION) if RECONSTRUCTION in self.inputs.sets else None
                answers = None if held_out is None else held_out.judges
                judged = replace(judged, notes=add_reconstruction_notes(judged.notes, answers))
            self.judgements[name] = judged
        return self.judgements[name]


def select_metrics(metrics: Sequence[str] | None, *, train: bool, labels: bool, classes: bool = True) -> list[str]:
    """Metrics to measure, in the order of the table; None takes all that the inputs allow.

    Raises:
        InputError: an unknown name, with those that are known; or a metric whose input is missing.

    """
    possible = [*FIDELITY, *(MEMORISATION if train else []), *(SEMANTIC if labels else [])]
    if metrics is None:
        return [name for name in possible if classes or name != "is"]
    unknown = [name for name in metrics if name not in METRICS]
    problems = [Problem(f"no metric '{name}'", f"known are {', '.join(METRICS)}") for name in unknown]
    for name in metrics:
        if name in MEMORISATION and not train:
            problems.append(Problem(f"'{name}' needs training images", "give train"))
        elif name in SEMANTIC and not labels:
            problems.append(Problem(f"'{name}' needs label.* columns on both sides", "add them, or leave it out"))
        elif name == "is" and not classes:
            problems.append(Problem("'is' needs an encoder with classes", "choose another encoder, or leave it out"))
    if problems or not metrics:
        raise InputError("These metrics cannot be measured.", problems or [Problem("no metric", "name one")])
    return [name for name in METRICS if name in metrics]


def count_passes(metrics: list[str]) -> int:
    """Number of passes over the cells that the metrics need, which sets the length of the progress bar."""
    selection = set(metrics)
    shared = [{"fd", "fd_inf"}, {"kd"}, {"is"}, {"precision", "recall", "density", "coverage"}]
    groups = [set(MEMORISATION), set(SEMANTIC)]
    return sum(bool(selection & names) for names in shared) + sum(len(names) for names in groups if selection & names)


def check_features(images: EncodedImages, name: str) -> None:
    """Raise InputError where features are not finite; they are checked in blocks, without a copy."""
    values = images.features.values
    if values.ndim != 2 or values.shape[1] == 0 or len(values) != len(images.patients):
        problem = Problem(f"shape {values.shape} for {len(images.patients)} images", "give [N, D], one row per image")
        raise InputError(f"{name} features must be a matrix.", [problem])
    for start in range(0, len(values), BLOCK):
        bad = np.flatnonzero(~np.isfinite(values[start : start + BLOCK]).all(axis=1))
        if len(bad):
            problem = Problem(f"rows of features are not finite, the first is {start + bad[0]}", "look at this image")
            raise InputError(f"{name} features hold NaN or infinity.", [problem])


def measure_families(
    inputs: EvaluationInputs,
    levels: dict[str, list[str]],
    settings: ResamplingSettings,
    bar: Bar,
    *,
    intersections: bool,
) -> dict[str, list[FamilyResult]]:
    """Measure each set in the cells of its attributes, and in those of their intersections as a second family.

    Within a family all sets are measured at one matched n.

    Raises:
        InputError: features are not finite.

    """
    for name, images in {"Real": inputs.real, **inputs.sets, "Training": inputs.train}.items():
        if images is not None:
            check_features(images, name)
    shared = SharedResults(inputs)
    families = [_measure_family(shared, inputs.real, inputs.sets, levels, settings, bar)]
    if intersections and len(levels) > 1:
        crossed, pairs = cross_groups([inputs.real, *inputs.sets.values()], levels)
        real, *sets = [
            replace(images, groups=grouped.groups)
            for images, grouped in zip([inputs.real, *inputs.sets.values()], crossed, strict=True)
        ]
        families.append(_measure_family(shared, real, dict(zip(inputs.sets, sets, strict=True)), pairs, settings, bar))
    return {name: [family[name] for family in families] for name in inputs.sets}


def _measure_family(
    shared: SharedResults,
    real: EncodedImages,
    sets: Mapping[str, EncodedImages],
    levels: dict[str, list[str]],
    settings: ResamplingSettings,
    bar: Bar,
) -> dict[str, FamilyResult]:
    """Measure all sets in the cells of one family, at one matched n."""
    inputs = shared.inputs
    cells = {name: make_cells(real, generated, levels, settings) for name, generated in sets.items()}
    sizes = [matched_n(family, settings) for family in cells.values()]
    n = min((size for size in sizes if size is not None), default=None)
    result = {}
    for name, generated in sets.items():
        if n is None or all(cell.reason is not None for cell in cells[name]):
            empty = [MetricResult(metric, KINDS.get(metric, "share"), {}) for metric in inputs.metrics]
            result[name] = FamilyResult(cells[name], empty, n)
            bar.advance(count_passes(inputs.metrics) * len(cells[name]))
            continue
        stream = (inputs.streams or {}).get(name, "generated")
        draws = make_draws(real, generated, cells[name], settings, stream)
        plan = MeasurementPlan(cells[name], draws, n, settings, bar, shared.cache)
        metrics, closest = measure_set(
            real, generated, plan, inputs.metrics, inputs.train, shared.judged(name), shared.search(name, bar)
        )
        result[name] = FamilyResult(cells[name], metrics, n, closest)
    return result


def measure_set(
    real: EncodedImages,
    generated: EncodedImages,
    plan: MeasurementPlan,
    metrics: list[str],
    train: EncodedImages | None = None,
    judged: SetPredictions | None = None,
    search: TrainingSearch | None = None,
) -> tuple[list[MetricResult], NearestTraining | None]:
    """All ``metrics`` of one generated set in all cells of a plan, in the order of the table.

    ``search`` is the result of ``search_training`` for these images; None searches here.
    """
    values = real.features.values, generated.features.values
    patients = np.unique(np.concatenate([real.patients, generated.patients]), return_inverse=True)[1].astype(np.int64)
    codes = patients[: len(real.patients)], patients[len(real.patients) :]
    results = _measure_frechet(values, plan, [name for name in metrics if name in {"fd", "fd_inf"}])
    if "kd" in metrics:
        results.append(measure_kernel(kernel_data(*values, *codes), plan))
    classes = real.features.probabilities, generated.features.probabilities
    if "is" in metrics and classes[0] is not None and classes[1] is not None:
        results.append(measure_inception(classes[0], classes[1], plan))
    if {"precision", "recall", "density", "coverage"} & set(metrics):
        results += measure_manifold(*values, plan, patients=codes)
    if {"kd", "density"} & set(metrics):  # their permutations hold the level in groups that are alike alone
        heterogeneity = group_heterogeneity(*values, plan)
        results = [
            replace(result, heterogeneity=heterogeneity) if result.metric in {"kd", "density"} else result
            for result in results
        ]
    closest = None
    if train is not None and set(MEMORISATION) & set(metrics):
        memorisation, closest = measure_memorisation(
            *values,
            train.features.values,
            real.patients,
            train.patients,
            plan,
            generated_patients=generated.patients,
            search=search,
        )
        results += memorisation
    if judged is not None and set(SEMANTIC) & set(metrics):
        results += measure_semantic(judged, plan)
    order = [name for name in METRICS if name in metrics]
    return sorted(
        (result for result in results if result.metric in metrics or result.metric not in METRICS),
        key=lambda result: order.index(result.metric) if result.metric in order else len(order),
    ), closest


def _measure_frechet(values: tuple[Any, Any], plan: MeasurementPlan, names: list[str]) -> list[MetricResult]:
    """FD and FD-infinity; the latter has a note and no number where n/4 is less than two images."""
    d, n = values[0].shape[1], plan.n
    bias = f"n {n} is below the {d} features, so FD is mostly bias: quote its excess, or KD" if n < d else ""
    curvature = f"n/4 is {n // PARTS}, below the {d} features, where FD is not linear in 1/n: bias remains, quote KD"
    notes = {
        "fd": join_notes(bias, BANDS),
        "fd_inf": join_notes(
            "intercept of FD at n, n/2, n/3 and n/4, may be negative", curvature if n < PARTS * d else "", BANDS
        ),
    }
    small = n < 2 * PARTS
    possible = [name for name in names if name == "fd" or not small]
    results = measure_frechet(*values, plan, possible, notes) if possible else []
    if possible != names:
        note = f"n {n} is too small to extrapolate from n/4: at least {2 * PARTS}"
        results.append(MetricResult("fd_inf", "lower", {}, {}, note))
    return results
