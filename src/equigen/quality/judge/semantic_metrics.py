"""Semantic metrics of every group: agreement of the judges' predictions with the requested levels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd

from equigen.quality.cells import INTERSECTION_SEPARATOR, Cell, Rows
from equigen.quality.estimates import measure_mean, measure_weighted
from equigen.quality.judge.questions import JudgePredictions, SetPredictions
from equigen.quality.metric_inputs import Array, CellEstimate, MeasurementPlan, MetricResult
from equigen.quality.rows import join_notes
from equigen.statistics import WEIGHTS_IN_MEMORY, defined_mean, percentile_interval, weighted_auc, weighted_mean

Origin: TypeAlias = Literal["real", "generated"]
Statistic: TypeAlias = Callable[[Sequence[JudgePredictions], Origin, Rows, Array], Array]
LEAST = 5  # fewest images of a class, and of the other classes, for the class to count in a cell's mean
LISTED = 6  # most cells named in a note
CEILING_NOTE = (
    "the floor column holds the judge's own score on held-out real images, a ceiling; a gap that it shows too is the "
    "judge's, not the generator's"
)
OTHER_ATTRIBUTES_NOTE = "in a group, the mean over the attributes that do not make the group"
GROUP_ATTRIBUTE_NOTE = (
    "in a group, of the attribute that makes the group, its own level; no p-value: a judge that leans to one level "
    "does so on real images too, so hold each group against its floor"
)


def macro_auc(predictions: Sequence[JudgePredictions], origin: Origin, rows: Rows, weights: Array) -> Array:
    """Return the mean one-vs-rest ROC AUC of the judges' probabilities against the requested (real: true) levels.

    Mean over the classes of a column (two classes have one AUC), then over columns. A class counts where at
    least 5 of the weighted rows have it and 5 have another; rows of unknown level do not count.

    Args:
        predictions: of one or several judges.
        origin: "real" or "generated".
        rows: [n] of the images of that origin.
        weights: [R, n] multiplicities.

    Returns:
        [R]; NaN where no class counts.

    """
    columns: dict[str, list[Array]] = {}
    for judge in predictions:
        columns.setdefault(judge.target.column, []).extend(_class_aucs(judge, origin, rows, weights))
    return defined_mean(np.stack([defined_mean(np.stack(parts), axis=0) for parts in columns.values()]), axis=0)


def _class_aucs(judge: JudgePredictions, origin: Origin, rows: Rows, weights: Array) -> Iterator[Array]:
    """Return the one-vs-rest AUC of each class [R], NaN where the class or the others are too rare."""
    scores, levels = _scores_and_levels(judge, origin)
    labelled = np.flatnonzero(levels[rows] >= 0)
    scores, levels = scores[rows[labelled]], levels[rows[labelled]]
    step = max(1, WEIGHTS_IN_MEMORY // max(1, len(rows)))
    classes = range(1, 2) if scores.shape[1] == 2 else range(scores.shape[1])
    aucs = {code: [np.zeros(0)] for code in classes}
    for start in range(0, len(weights), step):
        block = weights[start : start + step]
        block = block if len(labelled) == len(rows) else block[:, labelled]
        for code in classes:
            inside = levels == code
            counts = np.minimum(block @ inside, block @ ~inside)
            aucs[code].append(np.where(counts >= LEAST, weighted_auc(inside, scores[:, code], block), np.nan))
    return (np.concatenate(parts) for parts in aucs.values())


def _scores_and_levels(judge: JudgePredictions, origin: Origin) -> tuple[Array, Rows]:
    """Return the probabilities and levels of the real or generated images."""
    return (judge.real, judge.truth) if origin == "real" else (judge.generated, judge.requested)


def requested_probability(predictions: Sequence[JudgePredictions], origin: Origin, rows: Rows, weights: Array) -> Array:
    """Return the mean calibrated probability of the requested (real images: true) level.

    Arguments and result are those of ``macro_auc``. Unlike an AUC it is defined where all rows have one level.
    """
    parts = []
    for judge in predictions:
        scores, levels = _scores_and_levels(judge, origin)
        labelled = np.flatnonzero(levels[rows] >= 0)
        probabilities = scores[rows[labelled], levels[rows[labelled]]]
        parts.append(weighted_mean(probabilities, weights[:, labelled]))
    return defined_mean(np.stack(parts), axis=0)


def measure_semantic(predictions: SetPredictions, plan: MeasurementPlan) -> list[MetricResult]:
    """Return the metrics that compare the predicted levels of generated images with the requested ones, in each cell.

    * ``semantic_auc``: ``macro_auc`` over the label columns;
    * ``semantic_attribute_auc``: ``macro_auc`` over the attributes. Within a group of an attribute its level does not
      vary, so there the mean is over the other attributes; the whole set has all of them;
    * ``semantic_attribute_probability``: ``requested_probability`` of the attribute that makes the group, which the
      AUC cannot measure (whether images requested as female look female); the whole set has all attributes;
    * ``judge_agreement``: see the function, where an oracle's predictions are there.

    All are shares: higher is better, equity-scaled as ES-AUC. The ``floor`` is the same metric on the cell's held-out
    real images. Where a group's metric is over fewer attributes than the whole set's, the whole set's metric over the
    same attributes is in ``estimates["*", attribute]``, for the equity-scaled value. Replicates draw generated images
    as the plan does. A metric whose judges could not be trained has no estimate, and its note says why; without any
    column of its kind the metric is absent.
    """
    labels, attributes = (
        [judge for judge in predictions.judges if judge.target.column.startswith(kind)] for kind in ("label.", "attr.")
    )
    result = []
    if "label" in predictions.notes:
        note = join_notes(
            predictions.notes["label"], _ceiling_note(labels, macro_auc, plan), _omission_note(labels, plan)
        )
        result.append(_measure("semantic_auc", macro_auc, lambda _: labels, plan, note))
    if "attr" in predictions.notes:
        note = join_notes(
            predictions.notes["attr"],
            _ceiling_note(attributes, macro_auc, plan),
            OTHER_ATTRIBUTES_NOTE,
            _omission_note(attributes, plan),
        )
        result.append(
            _measure("semantic_attribute_auc", macro_auc, lambda name: _other_attributes(attributes, name), plan, note)
        )
        note = join_notes(
            predictions.notes["attr"], _ceiling_note(attributes, requested_probability, plan), GROUP_ATTRIBUTE_NOTE
        )
        probability = _measure(
            "semantic_attribute_probability",
            requested_probability,
            lambda name: _group_attributes(attributes, name),
            plan,
            note,
        )
        result.append(replace(probability, null={}))
    return result + judge_agreement(predictions, plan)


def _group_attributes(predictions: list[JudgePredictions], attribute: str) -> list[JudgePredictions]:
    """Return the predictions of the attributes that make a group, for the whole set those of all."""
    columns = [f"attr.{name}" for name in [attribute, *attribute.split(INTERSECTION_SEPARATOR)]]
    return [judge for judge in predictions if attribute == "*" or judge.target.column in columns]


def _other_attributes(predictions: list[JudgePredictions], attribute: str) -> list[JudgePredictions]:
    """Return the predictions of the attributes that do not make a group, for the whole set those of all."""
    excluded = [] if attribute == "*" else _group_attributes(predictions, attribute)
    return [judge for judge in predictions if judge not in excluded]


def _measure(
    metric: str, statistic: Statistic, select: Callable[[str], list[JudgePredictions]], plan: MeasurementPlan, note: str
) -> MetricResult:
    """Measure a statistic of the selected predictions in the cells of each attribute by ``measure_weighted``."""
    result = MetricResult(metric, "share", {}, {}, note)
    for attribute in dict.fromkeys(cell.attribute for cell in plan.cells):
        predictions = select(attribute)
        if not predictions:
            continue
        null = {name: pool for name, pool in plan.draws.null.items() if name == attribute}
        cells = [cell for cell in plan.cells if cell.attribute == attribute]
        subplan = replace(plan, cells=cells, draws=replace(plan.draws, null=null))
        cell_results = _measure_attribute(metric, statistic, predictions, subplan)
        result.estimates.update(cell_results.estimates)
        result.null.update(cell_results.null)
        if len(predictions) < len(select("*")) and plan.eligible("*"):
            cell = plan.eligible("*")[0]
            value = _value(statistic, predictions, "generated", cell.generated)
            replicates = statistic(predictions, "generated", cell.generated, plan.weights(cell)[1])
            floor = _value(statistic, predictions, "real", cell.real)
            result.estimates["*", attribute] = CellEstimate(value, replicates, floor)
    return result


def _measure_attribute(
    metric: str, statistic: Statistic, predictions: list[JudgePredictions], plan: MeasurementPlan
) -> MetricResult:
    """Measure a statistic of some predictions in the cells of one attribute."""

    def value(_: Rows, rows: Rows, __: Array, weights: Array) -> Array:
        return statistic(predictions, "generated", rows, weights)

    def floor(cell: Cell) -> float:
        return _value(statistic, predictions, "real", cell.real)

    return measure_weighted(metric, "share", value, floor, plan)


def _value(statistic: Statistic, predictions: Sequence[JudgePredictions], origin: Origin, rows: Rows) -> float:
    """Return the statistic of some rows with weights of one."""
    return float(statistic(predictions, origin, rows, np.ones((1, len(rows))))[0])


def _ceiling_note(predictions: list[JudgePredictions], statistic: Statistic, plan: MeasurementPlan) -> str:
    """Return a note on the floor, with its interval on the whole set, and the value of each column there."""
    cells = plan.eligible("*")
    if not predictions or not cells:
        return ""
    ceiling = _value(statistic, predictions, "real", cells[0].real)
    replicates = statistic(predictions, "real", cells[0].real, plan.weights(cells[0])[0])
    if not np.isfinite(ceiling) or not np.isfinite(replicates).any():
        return "there is no ceiling: too few held-out real images have a known level"
    low, high = percentile_interval(replicates[np.isfinite(replicates)])
    names = list(dict.fromkeys(judge.target.column for judge in predictions))
    texts = []
    for name in names:
        column = [judge for judge in predictions if judge.target.column == name]
        value = _value(statistic, column, "generated", cells[0].generated)
        texts.append(f"{name} {value:.3g}" if np.isfinite(value) else f"{name} undefined")
    return join_notes(
        f"{CEILING_NOTE} ({ceiling:.3g}, {low:.3g} to {high:.3g}, on the whole set)",
        f"on the whole set by column: {', '.join(texts)}" if len(names) > 1 else "",
    )


def _omission_note(predictions: list[JudgePredictions], plan: MeasurementPlan) -> str:
    """Return a note on the classes that are too rare for the mean of a cell, of generated or of real images."""
    origins: tuple[Origin, ...] = ("generated", "real")
    notes: list[str] = []
    for cell in (cell for cell in plan.cells if cell.reason is None):
        cell_name = "whole set" if cell.attribute == "*" else f"{cell.attribute} {cell.group}"
        for origin in origins:
            rows = cell.generated if origin == "generated" else cell.real
            names = [
                name
                for judge in _other_attributes(predictions, cell.attribute)
                for name in _rare_classes(judge, origin, rows)
            ]
            notes += [f"{cell_name} {origin}: {', '.join(names)}"] if names else []
    if not notes:
        return ""
    more = f" and {len(notes) - LISTED} more" if len(notes) > LISTED else ""
    return f"left out where fewer than {LEAST} images have a class, or another: {' | '.join(notes[:LISTED])}{more}"


def _rare_classes(judge: JudgePredictions, origin: Origin, rows: Rows) -> list[str]:
    """Return the names of classes with too few rows, or with too few rows of other classes."""
    levels = _scores_and_levels(judge, origin)[1][rows]
    counts = np.bincount(levels[levels >= 0], minlength=len(judge.target.levels))
    rare = np.minimum(counts, counts.sum() - counts) < LEAST
    if judge.target.finding is not None:
        return [judge.target.finding] if rare.any() else []
    return [level for level, is_rare in zip(judge.target.levels, rare, strict=True) if is_rare]


def judge_agreement(predictions: SetPredictions, plan: MeasurementPlan) -> list[MetricResult]:
    """Measure the share of images for which the judge's most probable level is that of an oracle.

    Over the label columns that both predict (no multi-label column), or the attributes where there is none; several
    columns count equally. Images in which the oracle detects nothing do not count. The floor is the agreement on the
    real images. The list is empty where no column is predicted by both.
    """
    common = [
        judge
        for judge in predictions.judges
        if judge.target.finding is None and judge.target.column.split(".", 1)[1] in predictions.oracle
    ]
    judges = [judge for judge in common if judge.target.column.startswith("label.")] or common
    if not judges:
        return []
    generated_columns, real_columns = [], []
    for judge in judges:
        real_levels, generated_levels = predictions.oracle[judge.target.column.split(".", 1)[1]]
        generated_columns.append(_agreement(judge, judge.generated, generated_levels))
        if real_levels is not None:
            real_columns.append(_agreement(judge, judge.real, real_levels))
    generated = defined_mean(np.stack(generated_columns), axis=0)
    real = defined_mean(np.stack(real_columns), axis=0) if len(real_columns) == len(judges) else None
    undetected = int(np.isnan(generated).sum())
    note = join_notes(
        f"judge and oracle on {', '.join(judge.target.column for judge in judges)}",
        "the floor column holds their agreement on real images" if real is not None else "",
        f"{undetected} generated images in which the oracle sees nothing do not count" if undetected else "",
    )
    return [measure_mean("judge_agreement", "share", generated, real, plan, note)]


def _agreement(judge: JudgePredictions, probabilities: Array, oracle: pd.Series) -> Array:
    """Return 1 where judge and oracle predict the same level, 0 where not, NaN where the oracle detects nothing [N]."""
    levels = np.array(judge.target.levels)[probabilities.argmax(axis=1)]
    same = (levels == np.array([str(value) for value in oracle])).astype(np.float64)
    return np.where(oracle.notna().to_numpy(dtype=bool), same, np.nan)
