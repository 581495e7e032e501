"""From features of both sides to the metrics of every cell: which there are, and one pass over a family of cells."""

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

FIDELITY = ["fd", "fd_inf", "kd", "is", "precision", "recall", "density", "coverage"]
MEMORISATION = ["mifid", "nn_ratio", "authenticity", "near_copies"]
SEMANTIC = ["semantic_auc", "semantic_attribute_auc", "semantic_attribute_probability", "judge_agreement"]
KNOWN = [*FIDELITY, *MEMORISATION, *SEMANTIC]
KINDS = {"fd": "lower", "fd_inf": "lower", "kd": "lower", "is": "higher", "density": "higher", "mifid": "lower",
         "nn_ratio": "higher", "near_copies": "lower"}
BLOCK = 8192  # rows whose features are checked at a time
BANDS = "interval and null band to first order"
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class EncodedImages(GroupedImages):
    """One side with its features, and the table of its images; ``thumbnails`` [N, D] where copies are looked for."""

    features: Features
    frame: pd.DataFrame
    thumbnails: NDArray[np.float16] | None = None

    def annotated(self) -> AnnotatedFeatures:
        """As the judge takes it."""
        return AnnotatedFeatures(self.features.values, self.frame, self.patients)


@dataclass(frozen=True)
class FamilyResult:
    """One generated set measured in the cells of one family: the attributes, or their intersections.

    ``n`` is the matched n, None where no cell is large enough. ``closest`` is there where training images are.
    """

    cells: list[Cell]
    metrics: list[MetricResult]
    n: int | None
    closest: NearestTraining | None = None


@dataclass(frozen=True)
class EvaluationInputs:
    """What is measured: the real side, the generated sets by name, and what some metrics need beside them.

    ``streams``: name of the random stream of each set's bootstrap; sets that answer the same requests share it.
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
    """What both families of cells and all sets have in common, each computed when it is first asked for."""

    inputs: EvaluationInputs
    cache: ResultCache = field(default_factory=ResultCache)
    searches: dict[str, TrainingSearch] = field(default_factory=dict)
    judgements: dict[str, SetPredictions] = field(default_factory=dict)

    def search(self, name: str, bar: Bar) -> TrainingSearch | None:
        """Neighbours of one set among the training images, None where they are not wanted.

        Those of the held-out images are the same for all sets.
        """
        real, made, train = self.inputs.real, self.inputs.sets[name], self.inputs.train
        if train is None or not set(MEMORISATION) & set(self.inputs.metrics):
            return None
        if name not in self.searches:
            bar.note("nearest training images")
            values = real.features.values, made.features.values, train.features.values
            earlier = next((found.held_out for found in self.searches.values()), None)
            self.searches[name] = search_training(*values, real.patients, train.patients,
                                                  generated_patients=made.patients, held_out=earlier,
                                                  thumbnails=_thumbnails(real, made, train))
            bar.note("")
        return self.searches[name]

    def judged(self, name: str) -> SetPredictions | None:
        """What the judges say of one set, None where there are none."""
        if self.inputs.judges is None:
            return None
        if name not in self.judgements:
            made = self.inputs.judges.judge(self.inputs.sets[name].annotated())
            if name != RECONSTRUCTION:
                held_out = self.judged(RECONSTRUCTION) if RECONSTRUCTION in self.inputs.sets else None
                answers = None if held_out is None else held_out.judges
                made = replace(made, notes=add_reconstruction_notes(made.notes, answers))
            self.judgements[name] = made
        return self.judgements[name]


def select_metrics(metrics: Sequence[str] | None, *, train: bool, labels: bool, classes: bool = True) -> list[str]:
    """The metrics to measure; None takes all that the inputs allow.

    Raises:
        InputError: an unknown name, with those that are known; or a metric whose input is missing.

    """
    possible = [*FIDELITY, *(MEMORISATION if train else []), *(SEMANTIC if labels else [])]
    if metrics is None:
        return [name for name in possible if classes or name != "is"]
    unknown = [name for name in metrics if name not in KNOWN]
    problems = [Problem(f"no metric '{name}'", f"known are {', '.join(KNOWN)}") for name in unknown]
    for name in metrics:
        if name in MEMORISATION and not train:
            problems.append(Problem(f"'{name}' needs training images", "give train"))
        elif name in SEMANTIC and not labels:
            problems.append(Problem(f"'{name}' needs label.* columns on both sides", "add them, or leave it out"))
        elif name == "is" and not classes:
            problems.append(Problem("'is' needs an encoder with classes", "choose another encoder, or leave it out"))
    if problems or not metrics:
        raise InputError("These metrics cannot be measured.", problems or [Problem("no metric", "name one")])
    return [name for name in KNOWN if name in metrics]


def count_passes(wanted: list[str]) -> int:
    """How often the cells are gone through: the length of the progress bar in cells."""
    own = set(wanted)
    shared = [{"fd", "fd_inf"}, {"kd"}, {"is"}, {"precision", "recall", "density", "coverage"}]
    groups = [set(MEMORISATION), set(SEMANTIC)]
    return sum(bool(own & names) for names in shared) + sum(len(names) for names in groups if own & names)


def check_features(side: EncodedImages, name: str) -> None:
    """Raise InputError where features are not finite, in blocks, so that no copy of them is made."""
    values = side.features.values
    if values.ndim != 2 or values.shape[1] == 0 or len(values) != len(side.patients):
        problem = Problem(f"shape {values.shape} for {len(side.patients)} images", "give [N, D], one row per image")
        raise InputError(f"{name} features must be a matrix.", [problem])
    for start in range(0, len(values), BLOCK):
        bad = np.flatnonzero(~np.isfinite(values[start : start + BLOCK]).all(axis=1))
        if len(bad):
            problem = Problem(f"rows of features are not finite, the first is {start + bad[0]}", "look at this image")
            raise InputError(f"{name} features hold NaN or infinity.", [problem])


def measure_families(
    inputs: EvaluationInputs, levels: dict[str, list[str]], settings: ResamplingSettings, bar: Bar, *,
    intersections: bool,
) -> dict[str, list[FamilyResult]]:
    """Measure each set in the cells of its attributes, and in those of their intersections as a second family.

    Within a family all sets are measured at one matched n.

    Raises:
        InputError: features are not finite.

    """
    for name, side in {"Real": inputs.real, **inputs.sets, "Training": inputs.train}.items():
        if side is not None:
            check_features(side, name)
    shared = SharedResults(inputs)
    families = [_family(shared, inputs.real, inputs.sets, levels, settings, bar)]
    if intersections and len(levels) > 1:
        names = list(inputs.sets)
        crossed, pairs = cross_groups([inputs.real, *inputs.sets.values()], levels)
        sides = [replace(side, groups=other.groups)
                 for side, other in zip([inputs.real, *inputs.sets.values()], crossed, strict=True)]
        families.append(_family(shared, sides[0], dict(zip(names, sides[1:], strict=True)), pairs, settings, bar))
    return {name: [family[name] for family in families] for name in inputs.sets}


def _family(
    shared: SharedResults, real: EncodedImages, sets: Mapping[str, EncodedImages], levels: dict[str, list[str]],
    settings: ResamplingSettings, bar: Bar,
) -> dict[str, FamilyResult]:
    inputs = shared.inputs
    cells = {name: make_cells(real, made, levels, settings) for name, made in sets.items()}
    possible = [matched_n(own, settings) for own in cells.values()]
    n = min((value for value in possible if value is not None), default=None)
    result = {}
    for name, made in sets.items():
        if n is None or all(cell.reason is not None for cell in cells[name]):
            result[name] = FamilyResult(cells[name], [_nothing(metric) for metric in inputs.metrics], n)
            bar.advance(count_passes(inputs.metrics) * len(cells[name]))
            continue
        stream = (inputs.streams or {}).get(name, "generated")
        draws = make_draws(real, made, cells[name], settings, stream)
        plan = MeasurementPlan(cells[name], draws, n, settings, bar, shared.cache)
        measured, closest = measure_set(real, made, plan, inputs.metrics, inputs.train, shared.judged(name),
                                        shared.search(name, bar))
        result[name] = FamilyResult(cells[name], measured, n, closest)
    return result


def _thumbnails(
    real: EncodedImages, made: EncodedImages, train: EncodedImages
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None:
    if real.thumbnails is None or made.thumbnails is None or train.thumbnails is None:
        return None
    return real.thumbnails, made.thumbnails, train.thumbnails


def _nothing(metric: str) -> MetricResult:
    return MetricResult(metric, KINDS.get(metric, "share"), {})


def measure_set(
    real: EncodedImages, made: EncodedImages, plan: MeasurementPlan, wanted: list[str],
    train: EncodedImages | None = None, judged: SetPredictions | None = None, search: TrainingSearch | None = None,
) -> tuple[list[MetricResult], NearestTraining | None]:
    """All wanted metrics of one generated set in all cells of a plan, in the order of ``wanted``.

    ``search`` is what was found for these images already (``search_training``); None searches now.
    """
    values = real.features.values, made.features.values
    patients = np.unique(np.concatenate([real.patients, made.patients]), return_inverse=True)[1].astype(np.int64)
    codes = patients[: len(real.patients)], patients[len(real.patients) :]
    found = _frechets(values, plan, [name for name in wanted if name in {"fd", "fd_inf"}])
    if "kd" in wanted:
        kernel = measure_kernel(kernel_data(*values, *codes), plan)
        found.append(replace(kernel, heterogeneity=group_heterogeneity(*values, plan)))
    classes = real.features.probabilities, made.features.probabilities
    if "is" in wanted and classes[0] is not None and classes[1] is not None:
        alike = group_heterogeneity(classes[0], classes[1], plan)
        found.append(replace(measure_inception(classes[0], classes[1], plan), heterogeneity=alike))
    if {"precision", "recall", "density", "coverage"} & set(wanted):
        found += measure_manifold(*values, plan, patients=codes)
    closest = None
    if train is not None and set(MEMORISATION) & set(wanted):
        own, closest = measure_memorisation(*values, train.features.values, real.patients, train.patients, plan,
                                            generated_patients=made.patients, search=search)
        found += own
    if judged is not None and set(SEMANTIC) & set(wanted):
        found += measure_semantic(judged, plan)
    order = [name for name in KNOWN if name in wanted]
    return sorted((item for item in found if item.metric in wanted or item.metric not in KNOWN),
                  key=lambda item: order.index(item.metric) if item.metric in order else len(order)), closest


def _frechets(values: tuple[Any, Any], plan: MeasurementPlan, names: list[str]) -> list[MetricResult]:
    """FD and FD-infinity; the latter gets words and no number where n has no quarter of two images."""
    d, n = values[0].shape[1], plan.n
    few = f"n {n} is below the {d} features, so FD is mostly bias: quote its excess, or KD" if n < d else ""
    bent = f"n/4 is {n // PARTS}, below the {d} features, where FD is not linear in 1/n: bias remains, quote KD"
    notes = {"fd": join_notes(few, BANDS),
             "fd_inf": join_notes("intercept of FD at n, n/2, n/3 and n/4, may be negative",
                                  bent if n < PARTS * d else "", BANDS)}
    small = n < 2 * PARTS
    possible = [name for name in names if name == "fd" or not small]
    measured = measure_frechet(*values, plan, possible, notes) if possible else []
    if possible != names:
        note = f"n {n} is too small to extrapolate from n/4: at least {2 * PARTS}"
        measured.append(MetricResult("fd_inf", "lower", {}, {}, note))
    return measured
