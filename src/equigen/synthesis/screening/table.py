"""screening.parquet: acceptance rates of generated images and false rejection rates of real images, by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.quality import (
    GAP_BIAS_NOTE,
    GroupMeans,
    ResamplingSettings,
    Target,
    clustered_group_means,
    column_targets,
    independent_group_means,
    interval_row,
    join_notes,
    patient_share_interval,
)
from equigen.statistics import Estimate, gap, holm, p_value, percentile_interval, wilson_interval
from equigen.synthesis.screening.rounds import Rule

Array = NDArray[np.float64]
Row = dict[str, Any]
COLUMNS = [
    "run",
    "field",
    "metric",
    "attribute",
    "group",
    "n",
    "n_patients",
    "count",
    "estimate",
    "ci_low",
    "ci_high",
    "null_low",
    "null_high",
    "p_value",
    "note",
]
NUMBERS = ["estimate", "ci_low", "ci_high", "null_low", "null_high", "p_value"]
EXCESS = "share refused at first less that of real images; the mix of labels in a group may differ between the two"


@dataclass(frozen=True)
class FieldVerdicts:
    """Verdicts on images: ``frame`` [N] with ``label.*`` and ``attr.*``, and ``ok`` [N] by field, NaN unchecked.

    The field ``*`` is all fields together. ``patients`` [N] of real images; None for generated images, which are
    independent.
    """

    frame: pd.DataFrame
    ok: Mapping[str, Array]
    patients: NDArray[Any] | None = None


@dataclass(frozen=True)
class Metric:
    """One metric of a field (``name``): a value of each image [N], NaN where undefined.

    ``means``: mean and resamples in every cell, by attribute.
    """

    run: str
    name: str
    metric: str
    values: Array
    patients: NDArray[Any] | None
    means: dict[str, GroupMeans] = field(default_factory=dict)


def field_verdicts(frame: pd.DataFrame, verdicts: pd.DataFrame, patients: NDArray[Any] | None = None) -> FieldVerdicts:
    """Verdicts by field from a rule's table; an image without any checked field is NaN in the field ``*``."""
    names = [str(name) for name in verdicts.columns if str(name).startswith("ok.")]
    checked = verdicts[names].notna().any(axis=1).to_numpy(dtype=bool)
    accepted = verdicts["accepted"].to_numpy(dtype=np.float64)
    fields = {name.removeprefix("ok."): verdicts[name].to_numpy(dtype=np.float64) for name in names}
    return FieldVerdicts(frame, {"*": np.where(checked, accepted, np.nan), **fields}, patients)


def groupings(
    frames: Sequence[pd.DataFrame], levels: Mapping[str, Sequence[str]], kinds: Mapping[str, str]
) -> list[Target]:
    """Attributes and labels of the first table with their groups: those of ``levels``, then others in the tables."""
    groups = []
    for column in (str(name) for name in frames[0].columns if str(name).startswith(("attr.", "label."))):
        cells = pd.concat([frame[column] for frame in frames if column in frame], ignore_index=True)
        for question in column_targets(column, cells, kinds, {}):
            declared = [] if question.finding else list(levels.get(column, ()))
            groups.append(Target(column, list(dict.fromkeys([*declared, *question.levels])), question.finding))
    return groups


def attribute_name(question: Target) -> str:
    """``sex`` for the attribute ``attr.sex``; labels keep their column's name: ``label.dx``."""
    return question.name.removeprefix("attr.")


def screening_table(
    rule: Rule,
    requested: FieldVerdicts,
    tries: NDArray[np.int64],
    given_up: NDArray[np.bool_],
    real: FieldVerdicts | None,
    groups: Sequence[Target],
    settings: ResamplingSettings,
) -> pd.DataFrame:
    """Rows of screening.parquet.

    * ``accepted_first`` (run ``generated``): share of the images accepted in their first draw, by all fields together
      (field ``*``) and by each; ``tries``: mean number of draws; ``given_up``: share refused in every draw;
    * ``false_rejection`` (run ``real``): share of the real held-out images that the same rule refuses;
    * ``excess_rejection`` (run ``generated``): share refused in the first draw less ``false_rejection`` of the same
      group, near 0 for a faithful generator.

    Each cell has n, n_patients of real images, ``count`` of the images that the metric counts and a 95 % interval
    (Wilson for shares of generated images, bootstrap over patients for real images, bootstrap for the others). Each
    attribute has a gap with the null band of permuted groups, p adjusted by Holm over the attributes. Groups below
    ``min_patients`` images (patients, of real images) have no estimate.

    Notes of the whole set state the number of images that a field could not check, and fields that the classifier
    reads no better than chance on real images.

    Args:
        rule: the rule of the screening.
        requested: verdicts on the images of the first draw.
        tries: [N] draws of each image.
        given_up: [N] whether each image was refused in every draw.
        real: verdicts on real held-out images; None leaves out the last two metrics.
        groups: attributes and labels.
        settings: ``replicates`` (bootstrap and permutations), ``seed`` and ``min_patients``.

    """
    metrics = [Metric("generated", name, "accepted_first", ok, None) for name, ok in requested.ok.items()]
    counted = np.isfinite(requested.ok["*"])
    metrics += [
        Metric("generated", "*", "tries", np.where(counted, tries.astype(np.float64), np.nan), None),
        Metric("generated", "*", "given_up", np.where(counted, given_up.astype(np.float64), np.nan), None),
    ]
    rows: list[Row] = []
    for metric in metrics:
        rows += _rows(metric, requested.frame, groups, settings)
    if real is not None:
        for name, ok in real.ok.items():
            refused = Metric("real", name, "false_rejection", 1 - ok, real.patients)
            refused_rows = _rows(refused, real.frame, groups, settings)
            refused_rows[0]["note"] = join_notes(refused_rows[0]["note"], _chance_note(refused, rule))
            first = next(metric for metric in metrics if metric.name == name and metric.metric == "accepted_first")
            rows += refused_rows + _excess_rows(first, refused, groups)
    table = pd.DataFrame(rows, columns=COLUMNS)
    counts = dict.fromkeys(("n", "n_patients", "count"), "Int64")
    return table.astype({**counts, **dict.fromkeys(NUMBERS, "float64"), "note": "str"})


def _rows(metric: Metric, frame: pd.DataFrame, groups: Sequence[Target], settings: ResamplingSettings) -> list[Row]:
    """Rows of the whole set, with a note on unchecked images, then of each attribute's groups and gap.

    Fills ``metric.means``.
    """
    rows: list[Row] = []
    for question in [None, *groups]:
        name = "*" if question is None else attribute_name(question)
        codes = np.zeros(len(frame), np.int64) if question is None else question.truth(frame)
        levels = ["*"] if question is None else question.levels
        purpose = f"screen/{metric.run}/{metric.name}/{metric.metric}/{name}"
        metric.means[name] = (
            independent_group_means(metric.values, codes, levels, settings, purpose) if metric.patients is None
            else clustered_group_means(metric.values, codes, levels, metric.patients, settings, purpose)
        )  # fmt: skip
        rows += [_cell_row(metric, name, group) for group in levels]
        if question is not None:
            rows.append(_gap_row(_head(metric), name, metric.means[name]))
    rows = _adjusted(rows)
    unchecked, total = int(np.isnan(metric.values).sum()), len(metric.values)
    if unchecked:
        note = f"{unchecked} of {total} images not checked: their level is unknown, to the table or to the classifier"
        rows[0]["note"] = join_notes(rows[0]["note"], note)
    return rows


def _chance_note(metric: Metric, rule: Rule) -> str:
    """A note where the mean over levels of the share of real images read correctly may be chance, 1 / L; else ""."""
    question = next((question for question in rule.questions if question.name == metric.name), None)
    if question is None or rule.threshold is not None or attribute_name(question) not in metric.means:
        return ""
    cells = metric.means[attribute_name(question)].cells
    large = [cells[level] for level in question.levels if level in cells and cells[level].is_large]
    correct = [1 - cell.replicates for cell in large]
    if len(correct) < len(question.levels):
        return ""
    means = np.mean(correct, axis=0)
    low, _ = percentile_interval(means[np.isfinite(means)])
    return (
        f"on real images the screen reads {metric.name} no better than chance: leave it out of the fields"
        if low <= 1 / len(question.levels)
        else ""
    )


def _head(metric: Metric) -> Row:
    return {"run": metric.run, "field": metric.name, "metric": metric.metric, "note": ""}


def _cell_row(metric: Metric, attribute: str, group: str) -> Row:
    """One metric in one group, with its interval and null band."""
    cell = metric.means[attribute].cells[group]
    patients = None if metric.patients is None else cell.patients
    row = _head(metric) | {
        "attribute": attribute,
        "group": group,
        "n": cell.n,
        "n_patients": patients,
        "count": round(cell.total),
    }
    if not cell.is_large:
        return row | {
            "note": f"too small: {cell.n if patients is None else patients} "
            f"{'images' if patients is None else 'patients'}"
        }
    estimate = interval_row(cell)
    row |= {name: estimate[name] for name in ("estimate", "ci_low", "ci_high", "note")}
    if metric.patients is None and metric.metric != "tries":
        row["ci_low"], row["ci_high"] = wilson_interval(round(cell.total), cell.n)
    elif metric.metric == "false_rejection":
        row["ci_low"], row["ci_high"], row["note"] = patient_share_interval(cell)
    if group in metric.means[attribute].null:
        row |= _band(metric.means[attribute].null[group])
    return row


def _band(null: Array) -> Row:
    low, high = percentile_interval(null[np.isfinite(null)])
    return {"null_low": low, "null_high": high}


def _gap_row(head: Row, attribute: str, means: GroupMeans) -> Row:
    """Largest less smallest value over the groups that are large enough, with its interval and null band."""
    large = {group: cell for group, cell in means.cells.items() if cell.is_large}
    left_out = [f"without {group} (too small)" for group in means.cells if group not in large]
    row = head | {"attribute": attribute, "group": "gap", "n": sum(cell.n for cell in large.values())}
    if len(large) < 2:
        return row | {"note": join_notes("fewer than two groups are large enough to compare", *left_out)}
    replicates = np.stack([cell.replicates for cell in large.values()], axis=1)
    value = gap(np.array([cell.value for cell in large.values()]))
    estimate = interval_row(Estimate(value, np.ptp(replicates, axis=1)))
    row |= {name: estimate[name] for name in ("estimate", "ci_low", "ci_high")}
    row["note"] = join_notes(*left_out, estimate["note"], GAP_BIAS_NOTE)
    if len(means.null) >= 2:
        null = np.ptp(np.stack(list(means.null.values()), axis=1), axis=1)
        null = null[np.isfinite(null)]
        row |= _band(null) | {"p_value": p_value(value, null, scale=1.0)}
    return row


def _excess_rows(first: Metric, refused: Metric, groups: Sequence[Target]) -> list[Row]:
    """Share refused in the first draw less false rejection, cell by cell, with independent resamples of the two."""
    rows: list[Row] = []
    head = {"run": "generated", "field": first.name, "metric": "excess_rejection", "note": ""}
    for name in ["*", *map(attribute_name, groups)]:
        excess = first.means[name].rejection_excess(refused.means[name])
        for group, cell in excess.cells.items():
            row = head | {"attribute": name, "group": group, "n": cell.n, "n_patients": cell.patients}
            if not cell.is_large:
                rows.append(row | {"note": "too small on one of the sides"})
                continue
            estimate = interval_row(cell)
            row |= {column: estimate[column] for column in ("estimate", "ci_low", "ci_high")}
            row |= _band(excess.null[group]) if group in excess.null else {}
            rows.append(row | {"note": join_notes(estimate["note"], EXCESS)})
        if name != "*":
            rows.append(_gap_row(head, name, excess))
    return _adjusted(rows)


def _adjusted(rows: list[Row]) -> list[Row]:
    """Rows with the p-values of gaps adjusted by Holm, stated in their notes."""
    tested = [row for row in rows if row.get("p_value") is not None]
    for row, value in zip(tested, holm(np.array([row["p_value"] for row in tested])), strict=True):
        if len(tested) > 1:
            note = f"p adjusted by Holm over {len(tested)} attributes and labels, {row['p_value']:.3g} before"
            row["note"] = join_notes(row["note"], note)
        row["p_value"] = float(value)
    return rows
