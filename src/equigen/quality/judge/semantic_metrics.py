"""Per group: how well a judge tells in the generated images what was asked for, beside the same on real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd

from equigen.quality.cells import INTERSECTION_SEPARATOR, Cell, Rows
from equigen.quality.estimates import measure_mean, measure_weighted
from equigen.quality.judge.questions import Judged, JudgePredictions
from equigen.quality.metric_inputs import Array, Estimate, MeasurementPlan, MetricResult
from equigen.quality.rows import join_notes
from equigen.statistics import WEIGHTS_IN_MEMORY, percentile_interval, weighted_auc

Side: TypeAlias = Literal["real", "generated"]
Statistic: TypeAlias = Callable[[Sequence[JudgePredictions], Side, Rows, Array], Array]
LEAST = 5  # images of a class, and of the others, without which it does not enter a cell's mean
SHOWN = 6  # cells named in a note
CEILING = (
    "the floor column holds the judge's own score on held-out real images, a ceiling; a gap that it shows too is the "
    "judge's, not the generator's"
)
OTHERS = "in a group, the mean over the attributes that do not make the group"
OWN = (
    "in a group, of the attribute that makes the group, its own level; no p-value: a judge that leans to one level "
    "does so on real images too, so hold each group against its floor"
)


def macro_auc(answers: Sequence[JudgePredictions], side: Side, rows: Rows, weights: Array) -> Array:
    """One-vs-rest ROC AUC of the judge's probability against the level asked for (real images: shown).

    Mean over the classes of a column (two classes have one AUC), then over columns. A class counts where at
    least 5 of the weighted rows ask for it and 5 for another; a row whose level is unknown does not count.

    Args:
        answers: of one or several judges.
        side: "real" or "generated".
        rows: [n] of that side.
        weights: [R, n] multiplicities.

    Returns:
        [R]; NaN where no class counts.

    """
    columns: dict[str, list[Array]] = {}
    for answer in answers:
        columns.setdefault(answer.target.column, []).extend(_class_aucs(answer, side, rows, weights))
    return _mean_of_defined([_mean_of_defined(parts) for parts in columns.values()])


def _class_aucs(answer: JudgePredictions, side: Side, rows: Rows, weights: Array) -> Iterator[Array]:
    scores, levels = _of(answer, side)
    known = np.flatnonzero(levels[rows] >= 0)
    scores, levels = scores[rows[known]], levels[rows[known]]
    step = max(1, WEIGHTS_IN_MEMORY // max(1, len(rows)))
    classes = range(1, 2) if scores.shape[1] == 2 else range(scores.shape[1])
    found = {code: [np.zeros(0)] for code in classes}
    for start in range(0, len(weights), step):
        block = weights[start : start + step]
        block = block if len(known) == len(rows) else block[:, known]
        for code in classes:
            inside = levels == code
            counts = np.minimum(block @ inside, block @ ~inside)
            found[code].append(np.where(counts >= LEAST, weighted_auc(inside, scores[:, code], block), np.nan))
    return (np.concatenate(parts) for parts in found.values())


def _of(answer: JudgePredictions, side: Side) -> tuple[Array, Rows]:
    return (answer.real, answer.truth) if side == "real" else (answer.generated, answer.requested)


def _mean_of_defined(parts: list[Array]) -> Array:
    """[R] mean over the parts that are defined; NaN where none is."""
    table = np.stack(parts)
    count = np.isfinite(table).sum(axis=0)
    total = np.where(np.isfinite(table), table, 0).sum(axis=0)
    return np.asarray(np.divide(total, count, out=np.full(table.shape[1], np.nan), where=count > 0))


def requested_probability(answers: Sequence[JudgePredictions], side: Side, rows: Rows, weights: Array) -> Array:
    """Mean calibrated probability that the judge gives to the level asked for (real images: shown).

    Arguments and result as of ``macro_auc``. Unlike an AUC it is defined where all rows ask for one level.
    """
    parts = []
    for answer in answers:
        scores, levels = _of(answer, side)
        known = np.flatnonzero(levels[rows] >= 0)
        own = scores[rows[known], levels[rows[known]]]
        total, top = weights[:, known].sum(axis=1), weights[:, known] @ own
        parts.append(np.divide(top, total, out=np.full(len(weights), np.nan), where=total > 0))
    return _mean_of_defined(parts)


def measure_semantic(judged: Judged, plan: MeasurementPlan) -> list[MetricResult]:
    """Rows of quality.parquet that say whether generated images show what was asked for, in each cell.

    * ``semantic_auc``: ``macro_auc`` over the label columns;
    * ``semantic_attribute_auc``: over the attributes. Within a group of an attribute its level does not vary,
      so there the mean runs over the other attributes; the whole set has all of them;
    * ``semantic_attribute_probability``: ``requested_probability`` of the attribute that makes the group, which is
      what the AUC cannot say (does the image asked for as female look female); the whole set has all of them;
    * ``judge_agreement``: see there, where an oracle's readings were given.

    All are shares: higher is better, equity-scaled as ES-AUC. The ``floor`` is the same figure of the judge on
    the cell's held-out real images. Where a group's figure is over fewer attributes than the whole set's, the
    whole set's figure over the same ones is in ``estimates["*", attribute]``, for the equity-scaled value.
    Replicates draw generated images as the plan does. A metric whose judges could not be trained has no
    estimate, and its note says why; without any column of its kind it is not there.
    """
    labels, attributes = (
        [answer for answer in judged.answers if answer.target.column.startswith(kind)] for kind in ("label.", "attr.")
    )
    result = []
    if "label" in judged.notes:
        note = join_notes(judged.notes["label"], _head(labels, macro_auc, plan), _absent(labels, plan))
        result.append(_measure("semantic_auc", macro_auc, lambda _: labels, plan, note))
    if "attr" in judged.notes:
        note = judged.notes["attr"]
        words = join_notes(note, _head(attributes, macro_auc, plan), OTHERS, _absent(attributes, plan))
        result.append(_measure("semantic_attribute_auc", macro_auc,
                               lambda name: _others(attributes, name), plan, words))
        words = join_notes(note, _head(attributes, requested_probability, plan), OWN)
        asked = _measure("semantic_attribute_probability", requested_probability,
                         lambda name: _own(attributes, name), plan, words)
        result.append(replace(asked, null={}))
    return result + judge_agreement(judged, plan)


def _own(answers: list[JudgePredictions], attribute: str) -> list[JudgePredictions]:
    """Answers about the attributes that make a group; about all for the whole set."""
    made_of = [f"attr.{name}" for name in [attribute, *attribute.split(INTERSECTION_SEPARATOR)]]
    return [answer for answer in answers if attribute == "*" or answer.target.column in made_of]


def _others(answers: list[JudgePredictions], attribute: str) -> list[JudgePredictions]:
    """Answers about the attributes that do not make a group; about all for the whole set."""
    own = [] if attribute == "*" else _own(answers, attribute)
    return [answer for answer in answers if answer not in own]


def _measure(
    metric: str, statistic: Statistic, chosen: Callable[[str], list[JudgePredictions]], plan: MeasurementPlan, note: str
) -> MetricResult:
    """A statistic of the chosen answers in the cells of each attribute, through ``measure_weighted``."""
    result = MetricResult(metric, "share", {}, {}, note)
    for attribute in dict.fromkeys(cell.attribute for cell in plan.cells):
        answers = chosen(attribute)
        if answers:
            part = _measure_attribute(metric, statistic, answers, _only(plan, attribute))
            result.estimates.update(part.estimates)
            result.null.update(part.null)
            if len(answers) < len(chosen("*")) and plan.eligible("*"):
                result.estimates["*", attribute] = _whole(statistic, answers, plan)
    return result


def _measure_attribute(
    metric: str, statistic: Statistic, answers: list[JudgePredictions], plan: MeasurementPlan
) -> MetricResult:
    def value(_: Rows, rows: Rows, __: Array, weights: Array) -> Array:
        return statistic(answers, "generated", rows, weights)

    def floor(cell: Cell) -> float:
        return _once(statistic, answers, "real", cell.real)
    return measure_weighted(metric, "share", value, floor, plan)


def _only(plan: MeasurementPlan, attribute: str) -> MeasurementPlan:
    """The plan of one attribute's cells."""
    null = {name: pool for name, pool in plan.draws.null.items() if name == attribute}
    cells = [cell for cell in plan.cells if cell.attribute == attribute]
    return replace(plan, cells=cells, draws=replace(plan.draws, null=null))


def _once(statistic: Statistic, answers: Sequence[JudgePredictions], side: Side, rows: Rows) -> float:
    return float(statistic(answers, side, rows, np.ones((1, len(rows))))[0])


def _whole(statistic: Statistic, answers: list[JudgePredictions], plan: MeasurementPlan) -> Estimate:
    cell = plan.eligible("*")[0]
    value = _once(statistic, answers, "generated", cell.generated)
    replicates = statistic(answers, "generated", cell.generated, plan.weights(cell)[1])
    return Estimate(value, replicates, _once(statistic, answers, "real", cell.real))


def _head(answers: list[JudgePredictions], statistic: Statistic, plan: MeasurementPlan) -> str:
    """What the floor is, with its interval on the whole set, and the value of each column there."""
    cells = plan.eligible("*")
    if not answers or not cells:
        return ""
    ceiling = _once(statistic, answers, "real", cells[0].real)
    drawn = statistic(answers, "real", cells[0].real, plan.weights(cells[0])[0])
    if not np.isfinite(ceiling) or not np.isfinite(drawn).any():
        return "there is no ceiling: too few held-out real images have a known level"
    low, high = percentile_interval(drawn[np.isfinite(drawn)])
    names = list(dict.fromkeys(answer.target.column for answer in answers))
    parts = [(name, _once(statistic, [a for a in answers if a.target.column == name], "generated",
                          cells[0].generated)) for name in names]
    each = ", ".join(f"{name} {value:.3g}" if np.isfinite(value) else f"{name} undefined" for name, value in parts)
    spread = f"{CEILING} ({ceiling:.3g}, {low:.3g} to {high:.3g}, on the whole set)"
    return join_notes(spread, f"on the whole set by column: {each}" if len(names) > 1 else "")


def _absent(answers: list[JudgePredictions], plan: MeasurementPlan) -> str:
    """Which classes do not enter the mean of which cell, on either side."""
    sides: tuple[Side, ...] = ("generated", "real")
    found: list[str] = []
    for cell in (cell for cell in plan.cells if cell.reason is None):
        own = [answer for answer in answers if answer not in _own(answers, cell.attribute) or cell.attribute == "*"]
        for side in sides:
            rows = cell.generated if side == "generated" else cell.real
            names = [name for answer in own for name in _few(answer, side, rows)]
            found += [f"{_place(cell)} {side}: {', '.join(names)}"] if names else []
    if not found:
        return ""
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"left out where fewer than {LEAST} images have a class, or another: {' | '.join(found[:SHOWN])}{more}"


def _place(cell: Cell) -> str:
    return "whole set" if cell.attribute == "*" else f"{cell.attribute} {cell.group}"


def _few(answer: JudgePredictions, side: Side, rows: Rows) -> list[str]:
    """Names of the classes that have too few rows, or leave too few for the others."""
    levels = _of(answer, side)[1][rows]
    counts = np.bincount(levels[levels >= 0], minlength=len(answer.target.levels))
    few = np.minimum(counts, counts.sum() - counts) < LEAST
    if answer.target.finding is not None:
        return [answer.target.finding] if few.any() else []
    return [level for level, is_few in zip(answer.target.levels, few, strict=True) if is_few]


def judge_agreement(judged: Judged, plan: MeasurementPlan) -> list[MetricResult]:
    """Share of images on which the judge's most probable level is the one that an oracle reads off them.

    Over the label columns that both judge (a multi-label one is no such column), or the attributes where there
    is none; several columns count alike. Images on which the oracle sees nothing do not count. The floor is the
    agreement on the real images. Gives no ``MetricResult`` where no column is judged by both.
    """
    both = [answer for answer in judged.answers
            if answer.target.finding is None and answer.target.column.split(".", 1)[1] in judged.oracle]
    labels = [answer for answer in both if answer.target.column.startswith("label.")]
    chosen = labels or both
    if not chosen:
        return []
    pairs = [(answer, *judged.oracle[answer.target.column.split(".", 1)[1]]) for answer in chosen]
    generated = _mean_of_defined([_agrees(answer, answer.generated, made) for answer, _, made in pairs])
    seen = [_agrees(answer, answer.real, read) for answer, read, _ in pairs if read is not None]
    real = _mean_of_defined(seen) if len(seen) == len(pairs) else None
    blind = int(np.isnan(generated).sum())
    note = join_notes(
        f"judge and oracle on {', '.join(answer.target.column for answer in chosen)}",
        "the floor column holds their agreement on real images" if real is not None else "",
        f"{blind} generated images in which the oracle sees nothing do not count" if blind else "",
    )
    return [measure_mean("judge_agreement", "share", generated, real, plan, note)]


def _agrees(answer: JudgePredictions, probabilities: Array, shown: pd.Series) -> Array:
    """[N] 1 where both give the same level, 0 where not, NaN where the oracle sees nothing."""
    levels = np.array(answer.target.levels)[probabilities.argmax(axis=1)]
    same = (levels == np.array([str(value) for value in shown])).astype(np.float64)
    return np.where(shown.notna().to_numpy(dtype=bool), same, np.nan)
