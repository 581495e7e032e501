"""screening.parquet: how often a screen accepts each group's images, beside how it treats real ones of the group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.quality import (
    LEANS,
    GroupMeans,
    Question,
    Settings,
    clustered,
    independent,
    interval,
    join,
    questions_about,
    share_interval,
)
from equigen.statistics import gap, holm, p_value, percentile_interval, wilson_interval
from equigen.synthesis.screening.rules import Rule

Array = NDArray[np.float64]
Row = dict[str, Any]
COLUMNS = [
    "run", "field", "metric", "attribute", "group", "n", "n_patients", "count", "estimate", "ci_low", "ci_high",
    "null_low", "null_high", "p_value", "note",
]
NUMBERS = ["estimate", "ci_low", "ci_high", "null_low", "null_high", "p_value"]
EXCESS = "share refused at first less that of real images; the mix of labels in a group may differ between the two"


@dataclass(frozen=True)
class Judged:
    """Verdicts on one side: ``frame`` [N] with ``label.*`` and ``attr.*``, and ``ok`` [N] by field, NaN unchecked.

    The field ``*`` is all of them together. ``patients`` [N] of real images; None where each image stands alone.
    """

    frame: pd.DataFrame
    ok: Mapping[str, Array]
    patients: NDArray[Any] | None = None


@dataclass(frozen=True)
class Figure:
    """One number an image, [N], NaN where it does not count, and its mean in every cell with its resamples.

    ``name``: the field it is about.
    """

    run: str
    name: str
    metric: str
    values: Array
    patients: NDArray[Any] | None
    draws: dict[str, GroupMeans] = field(default_factory=dict)


def judged(frame: pd.DataFrame, verdicts: pd.DataFrame, patients: NDArray[Any] | None = None) -> Judged:
    """One side from its verdicts; an image of which no field was checked does not count in the field ``*``."""
    names = [str(name) for name in verdicts.columns if str(name).startswith("ok.")]
    checked = verdicts[names].notna().any(axis=1).to_numpy(dtype=bool)
    accepted = verdicts["accepted"].to_numpy(dtype=np.float64)
    fields = {name.removeprefix("ok."): verdicts[name].to_numpy(dtype=np.float64) for name in names}
    return Judged(frame, {"*": np.where(checked, accepted, np.nan), **fields}, patients)


def groupings(
    frames: Sequence[pd.DataFrame], levels: Mapping[str, Sequence[str]], kinds: Mapping[str, str]
) -> list[Question]:
    """Attributes and labels of the first table, each with its groups; those of ``levels`` first, then others found."""
    found = []
    for column in (str(name) for name in frames[0].columns if str(name).startswith(("attr.", "label."))):
        cells = pd.concat([frame[column] for frame in frames if column in frame], ignore_index=True)
        for question in questions_about(column, cells, kinds, {}):
            more = [] if question.finding else list(levels.get(column, ()))
            found.append(Question(column, list(dict.fromkeys([*more, *question.levels])), question.finding))
    return found


def attribute_name(question: Question) -> str:
    """``sex`` for the attribute ``attr.sex``; labels keep their column's name: ``label.dx``."""
    return question.name.removeprefix("attr.")


def screening_table(
    rule: Rule, asked: Judged, tries: NDArray[np.int64], given_up: NDArray[np.bool_], real: Judged | None,
    groups: Sequence[Question], settings: Settings,
) -> pd.DataFrame:
    """Rows of screening.parquet.

    * ``accepted_first`` (run ``generated``): share of the images that the screen accepts as first drawn, by all
      fields together (field ``*``) and by each; ``tries``: mean number of images drawn for one; ``given_up``: share
      not accepted at the end;
    * ``false_rejection`` (run ``real``): share of the real held-out images that the same screen refuses;
    * ``excess_rejection`` (run ``generated``): share refused at first less ``false_rejection`` of the same group,
      which a faithful generator would have near 0.

    In each cell: n, and n_patients of real ones, ``count`` of those accepted, given up, refused or drawn, 95 %
    interval (Wilson for shares of generated images, bootstrap over patients for real ones, bootstrap for the rest),
    and for the groups of an attribute the gap with the band that permuted groups give, p adjusted by Holm over the
    attributes. Groups below ``min_patients`` images (patients, of real ones) get no number.

    Notes of the whole set say how many images a field could not check, and which field the screen reads no better than
    chance on real images.

    Args:
        rule: what was checked.
        asked: verdicts on the images as first drawn.
        tries: [N] images drawn for each.
        given_up: [N] not accepted at the end.
        real: verdicts on real held-out images; None: the last two metrics are left out.
        groups: attributes and labels.
        settings: ``replicates`` (bootstrap and permutations), ``seed`` and ``min_patients``.

    """
    figures = [Figure("generated", name, "accepted_first", ok, None) for name, ok in asked.ok.items()]
    counted = np.isfinite(asked.ok["*"])
    figures += [
        Figure("generated", "*", "tries", np.where(counted, tries.astype(np.float64), np.nan), None),
        Figure("generated", "*", "given_up", np.where(counted, given_up.astype(np.float64), np.nan), None),
    ]
    rows: list[Row] = []
    for figure in figures:
        own = _rows(figure, asked.frame, groups, settings)
        own[0]["note"] = join(own[0]["note"], _unchecked(figure))
        rows += own
    if real is not None:
        for name, ok in real.ok.items():
            refused = Figure("real", name, "false_rejection", 1 - ok, real.patients)
            own = _rows(refused, real.frame, groups, settings)
            own[0]["note"] = join(own[0]["note"], _unchecked(refused), _chance(refused, rule))
            rows += own
            first = next(item for item in figures if item.name == name and item.metric == "accepted_first")
            rows += _excess_rows(first, refused, groups, settings)
    table = pd.DataFrame(rows, columns=COLUMNS)
    counts = dict.fromkeys(("n", "n_patients", "count"), "Int64")
    return table.astype({**counts, **dict.fromkeys(NUMBERS, "float64"), "note": "str"})


def _rows(figure: Figure, frame: pd.DataFrame, groups: Sequence[Question], settings: Settings) -> list[Row]:
    """The whole set, then each attribute's groups and gap; the draws are kept in the figure."""
    rows: list[Row] = []
    for question in [None, *groups]:
        name = "*" if question is None else attribute_name(question)
        codes = np.zeros(len(frame), np.int64) if question is None else question.truth(frame)
        levels = ["*"] if question is None else question.levels
        purpose = f"screen/{figure.run}/{figure.name}/{figure.metric}/{name}"
        figure.draws[name] = (
            independent(figure.values, codes, levels, settings, purpose) if figure.patients is None
            else clustered(figure.values, codes, levels, figure.patients, settings, purpose)
        )  # fmt: skip
        rows += [_cell_row(figure, name, group) for group in levels]
        if question is not None:
            rows.append(_gap_row(_head(figure), name, figure.draws[name]))
    return _adjusted(rows)


def _unchecked(figure: Figure) -> str:
    lost, total = int(np.isnan(figure.values).sum()), len(figure.values)
    words = f"{lost} of {total} images not checked: their level is unknown, to the table or to the classifier"
    return words if lost else ""


def _chance(figure: Figure, rule: Rule) -> str:
    """A word where the mean over levels of the share of real images read rightly may be that of guessing, 1 / L."""
    question = next((own for own in rule.questions if own.name == figure.name), None)
    if question is None or rule.threshold is not None or attribute_name(question) not in figure.draws:
        return ""
    cells = figure.draws[attribute_name(question)].cells
    draws = [cells[level].draws for level in question.levels if level in cells]
    kept = [1 - values for values in draws if values is not None]
    if len(kept) < len(question.levels):
        return ""
    means = np.mean(kept, axis=0)
    low, _ = percentile_interval(means[np.isfinite(means)])
    return (f"on real images the screen reads {figure.name} no better than chance: leave it out of the fields"
            if low <= 1 / len(question.levels) else "")


def _head(figure: Figure) -> Row:
    return {"run": figure.run, "field": figure.name, "metric": figure.metric, "note": ""}


def _cell_row(figure: Figure, attribute: str, group: str) -> Row:
    cell = figure.draws[attribute].cells[group]
    patients = None if figure.patients is None else cell.patients
    row = _head(figure) | {"attribute": attribute, "group": group, "n": cell.n, "n_patients": patients,
                           "count": round(cell.total)}
    if cell.draws is None:
        return row | {"note": f"too small: {cell.n if patients is None else patients} "
                              f"{'images' if patients is None else 'patients'}"}
    found = interval(cell.value, cell.draws)
    row |= {name: found[name] for name in ("estimate", "ci_low", "ci_high", "note")}
    if figure.patients is None and figure.metric != "tries":
        row["ci_low"], row["ci_high"] = wilson_interval(round(cell.total), cell.n)
    elif figure.metric == "false_rejection":
        row["ci_low"], row["ci_high"], row["note"] = share_interval(cell)
    if group in figure.draws[attribute].null:
        row |= _band(figure.draws[attribute].null[group])
    return row


def _band(null: Array) -> Row:
    low, high = percentile_interval(null[np.isfinite(null)])
    return {"null_low": low, "null_high": high}


def _gap_row(head: Row, attribute: str, found: GroupMeans) -> Row:
    """Largest less smallest value over the groups that are large enough, with its interval and chance band."""
    large = {group: cell for group, cell in found.cells.items() if cell.draws is not None}
    left_out = [f"without {group} (too small)" for group in found.cells if group not in large]
    row = head | {"attribute": attribute, "group": "gap", "n": sum(cell.n for cell in large.values())}
    if len(large) < 2:
        return row | {"note": join("fewer than two groups are large enough to compare", *left_out)}
    draws = np.stack([cell.draws for cell in large.values() if cell.draws is not None], axis=1)
    value = gap(np.array([cell.value for cell in large.values()]))
    summed = interval(value, np.ptp(draws, axis=1))
    row |= {name: summed[name] for name in ("estimate", "ci_low", "ci_high")}
    row["note"] = join(*left_out, summed["note"], LEANS)
    if len(found.null) >= 2:
        chance = np.ptp(np.stack(list(found.null.values()), axis=1), axis=1)
        chance = chance[np.isfinite(chance)]
        row |= _band(chance) | {"p_value": p_value(value, chance, scale=1.0)}
    return row


def _excess_rows(first: Figure, refused: Figure, groups: Sequence[Question], settings: Settings) -> list[Row]:
    """Share refused at first less false rejection, cell by cell, the resamples of both sides taken apart."""
    rows: list[Row] = []
    head = {"run": "generated", "field": first.name, "metric": "excess_rejection", "note": ""}
    for name in ["*", *map(attribute_name, groups)]:
        both = first.draws[name].refused_less(refused.draws[name])
        for group, cell in both.cells.items():
            row = head | {"attribute": name, "group": group, "n": cell.n, "n_patients": cell.patients}
            if cell.draws is None:
                rows.append(row | {"note": "too small on one of the sides"})
                continue
            found = interval(cell.value, cell.draws)
            row |= {part: found[part] for part in ("estimate", "ci_low", "ci_high")}
            row |= _band(both.null[group]) if group in both.null else {}
            rows.append(row | {"note": join(found["note"], EXCESS)})
        if name != "*":
            rows.append(_gap_row(head, name, both))
    return _adjusted(rows)


def _adjusted(rows: list[Row]) -> list[Row]:
    """Rows with the p-values of their gaps adjusted by Holm, which the notes say."""
    tested = [row for row in rows if row.get("p_value") is not None]
    for row, value in zip(tested, holm(np.array([row["p_value"] for row in tested])), strict=True):
        if len(tested) > 1:
            words = f"p adjusted by Holm over {len(tested)} attributes and labels, {row['p_value']:.3g} before"
            row["note"] = join(row["note"], words)
        row["p_value"] = float(value)
    return rows
