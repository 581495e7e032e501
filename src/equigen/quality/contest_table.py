"""From measured samples to the tables of a contest: figures by seed, then over seeds beside the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from equigen.quality.cells import Cell
from equigen.quality.plan import Array, Estimate, Measured
from equigen.quality.rows import join, usable
from equigen.statistics import SeedsAndPatients, gap, holm, seeds_and_patients

HEAD = ["setting", "mechanism", "seed", "plan", "guidance"]
PLACE = ["metric", "attribute", "figure"]
SEED_COLUMNS = [*HEAD, *PLACE, "estimate", "note"]
_NUMBERS = [
    "estimate", "seed_low", "seed_high", "patient_low", "patient_high", "ci_low", "ci_high", "null_gap",
]
_DIFFERENCE = ["difference", "difference_low", "difference_high", "p_value", "p_holm"]
SUMMARY_COLUMNS = [
    "setting", "mechanism", "plan", "guidance", *PLACE, "seeds", "n", *_NUMBERS, "reference", *_DIFFERENCE, "note",
]
ONE_SEED = "one training seed: nothing follows about the mechanism; the interval holds the choice of patients alone"
BIASED = "a gap of noisy values is above 0 by chance alone: null_gap is its mean where group labels mean nothing"
Place = tuple[str, str, str]  # metric, attribute, figure
Row = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """One figure of one sample: its value (NaN: ``note`` says why), and that in each resample [R] of real patients.

    ``patients``: how many real ones it stands on, of a gap those of the smallest group. ``null``: the mean gap under
    permuted labels, NaN where it does not apply.
    """

    value: float
    replicates: Array
    patients: int
    null: float = float("nan")
    note: str = ""


@dataclass(frozen=True)
class Scored:
    """One sample: the columns that name it, its matched n, and its figures."""

    head: dict[str, Any]
    n: int | None
    figures: dict[Place, Figure]


def score(
    metrics: Sequence[str], heads: Sequence[dict[str, Any]], cells: Sequence[list[Cell]],
    measured: Sequence[list[Measured]], n: int | None,
) -> list[Scored]:
    """Figures of the samples of one plan; worst and gap over the groups that have a number in all of them."""
    figures: list[dict[Place, Figure]] = [{} for _ in heads]
    for metric in metrics:
        items = [next((item for item in own if item.metric == metric), None) for own in measured]
        for attribute in dict.fromkeys(cell.attribute for cell in cells[0]):
            groups = _shared(items, cells, attribute)
            for own, item, found in zip(cells, items, figures, strict=True):
                found |= {(metric, attribute, name): figure
                          for name, figure in _figures(item, own, attribute, groups).items()}
    return [Scored(dict(head), n, found) for head, found in zip(heads, figures, strict=True)]


def _shared(items: Sequence[Measured | None], cells: Sequence[list[Cell]], attribute: str) -> list[str]:
    """The groups of an attribute in which every sample has a number."""
    found = [[cell.group for cell in usable(item, own, attribute)] if item is not None else []
             for item, own in zip(items, cells, strict=True)]
    return [group for group in found[0] if all(group in other for other in found)]


def _figures(item: Measured | None, cells: list[Cell], attribute: str, groups: list[str]) -> dict[str, Figure]:
    """Each cell of an attribute, then (but for the whole set) worst and gap."""
    own = [cell for cell in cells if cell.attribute == attribute]
    single = {cell.group: _single(item, cell) for cell in own}
    if attribute == "*":
        return {"overall": single["*"]}
    out = [f"without {cell.group} ({cell.reason or 'no number in every sample'})" for cell in own
           if cell.group not in groups]
    if item is None or len(groups) < 2:
        note = join("fewer than two groups have a number in every sample", *out)
        missing = Figure(float("nan"), np.zeros(0), 0, note=note)
        return {**single, "worst": missing, "gap": missing}
    parts = [single[group] for group in groups]
    values, draws = np.array([part.value for part in parts]), np.stack([part.replicates for part in parts], axis=1)
    patients, notes = min(part.patients for part in parts), join(*out)
    place = int(values.argmax() if item.kind == "lower" else values.argmin())
    worst = draws.max(axis=1) if item.kind == "lower" else draws.min(axis=1)
    return {
        **single,
        "worst": Figure(float(values[place]), worst, patients, note=join(f"worst group: {groups[place]}", notes)),
        "gap": Figure(gap(values), np.ptp(draws, axis=1), patients, _null(item, own, groups), notes),
    }


def _single(item: Measured | None, cell: Cell) -> Figure:
    """The excess where there is one, else the estimate."""
    estimate = None if item is None else item.estimates.get((cell.attribute, cell.group))
    if item is None or estimate is None or not np.isfinite(estimate.value):
        reason = cell.reason or "undefined in this cell"
        return Figure(float("nan"), np.zeros(0), cell.patients, note=join(reason, cell.note))
    base = _floor(item, estimate)
    return Figure(estimate.value - base, estimate.replicates - base, cell.patients, note=cell.note)


def _floor(item: Measured, estimate: Estimate) -> float:
    return estimate.floor if item.kind == "lower" and estimate.floor is not None else 0.0


def _null(item: Measured, cells: list[Cell], groups: list[str]) -> float:
    """Mean gap of the values that permuted labels give to these groups; NaN where none is defined."""
    names = [cell.group for cell in cells if cell.reason is None]
    table = item.null.get(cells[0].attribute)
    if table is None:
        return float("nan")
    chosen = table[:, [names.index(group) for group in groups]]
    gaps = np.ptp(chosen[np.isfinite(chosen).all(axis=1)], axis=1)
    return float(gaps.mean()) if len(gaps) else float("nan")


def seeds_table(scored: Sequence[Scored]) -> pd.DataFrame:
    """A row for each sample and figure."""
    rows = [{**sample.head, **dict(zip(PLACE, place, strict=True)), "estimate": figure.value, "note": figure.note}
            for sample in scored for place, figure in sample.figures.items()]
    types = {"seed": "int64", "estimate": "float64"}
    return pd.DataFrame(rows, columns=SEED_COLUMNS).astype(types | dict.fromkeys(_text(SEED_COLUMNS), "str"))


def _text(columns: Sequence[str]) -> list[str]:
    numbers = {"seed", "seeds", "n", *_NUMBERS, *_DIFFERENCE}
    return [name for name in columns if name not in numbers]


def summary_table(scored: Sequence[Scored], reference: str, about: str = "") -> pd.DataFrame:
    """Each figure over seeds, with its paired difference to the reference; ``about`` is noted in overall rows."""
    teams: dict[tuple[str, ...], dict[int, Scored]] = {}
    for sample in scored:
        key = tuple(sample.head[name] for name in ("setting", "mechanism", "plan", "guidance"))
        teams.setdefault(key, {})[sample.head["seed"]] = sample
    rows: list[Row] = []
    for key, team in teams.items():
        other = (key[0], reference, key[2], "common" if key[3] == "calibrated" else key[3])
        first = next(iter(team.values()))
        for place in first.figures:
            row: Row = dict(zip(["setting", "mechanism", "plan", "guidance", *PLACE], [*key, *place], strict=True))
            row |= {"n": first.n, **_over_seeds(team, place), **_against(team, teams.get(other), place, other, key)}
            row["note"] = join(row["note"], row.pop("against"))
            rows.append(row)
    _adjust(rows)
    return _typed(rows, about)


def _defined(team: Mapping[int, Scored], place: Place) -> dict[int, Figure]:
    figures = {seed: sample.figures[place] for seed, sample in team.items()}
    return {seed: figure for seed, figure in figures.items() if np.isfinite(figure.value)}


def _over_seeds(team: Mapping[int, Scored], place: Place) -> Row:
    """Mean, intervals and null gap of one figure."""
    found, words = _defined(team, place), _notes({seed: sample.figures[place].note for seed, sample in team.items()})
    if not found:
        return {"seeds": 0, "note": words}
    result = _mean(list(found.values()))
    row: Row = {"seeds": result.seeds, "estimate": result.estimate}
    for name, ends in (("seed", result.seed), ("patient", result.patient), ("ci", result.joint)):
        row |= {f"{name}_low": None, f"{name}_high": None} if ends is None else dict(
            zip((f"{name}_low", f"{name}_high"), ends, strict=True))
    nulls = [figure.null for figure in found.values() if np.isfinite(figure.null)]
    row["null_gap"] = float(np.mean(nulls)) if nulls else None
    return {**row, "note": join(words, _words(result), BIASED if place[2] == "gap" else "")}


def _mean(figures: Sequence[Figure]) -> SeedsAndPatients:
    values, draws = np.array([own.value for own in figures]), np.stack([own.replicates for own in figures])
    return seeds_and_patients(values, draws, patients=min(own.patients for own in figures))


def _words(result: SeedsAndPatients) -> str:
    lost = f"{result.lost} resamples of the patients are undefined" if result.lost else ""
    few = "too few to give a patient interval" if result.patient is None else ""
    return join(ONE_SEED if result.seeds == 1 else "", lost, few)


def _notes(notes: Mapping[int, str]) -> str:
    """The notes of the seeds, each once, with its seeds where they differ."""
    kinds: dict[str, list[int]] = {}
    for seed, note in notes.items():
        kinds.setdefault(note, []).append(seed)
    if len(kinds) == 1:
        return next(iter(kinds))
    return join(*(f"{note} (seed {', '.join(map(str, seeds))})" for note, seeds in kinds.items() if note))


def _against(
    team: Mapping[int, Scored], other: Mapping[int, Scored] | None, place: Place, name: tuple[str, ...],
    key: tuple[str, ...],
) -> Row:
    """Paired difference to the reference: seed by seed, in the same resamples of the patients."""
    words = f"{name[1]} at guidance {name[3]}" if name[3] != "common" else f"{name[1]} at the common guidance"
    if key == name:
        return {"reference": "", "against": ""}
    if other is None:
        return {"reference": "", "against": f"no difference: {words} was not measured"}
    mine, theirs = _defined(team, place), _defined(other, place)
    both = [seed for seed in mine if seed in theirs]
    alone = sorted((set(team) | set(other)) - set(both))
    if not both:
        return {"reference": words, "against": "no difference: no seed has a number in both"}
    result = _mean([_less(mine[seed], theirs[seed]) for seed in both])
    ends = result.joint or result.patient or result.seed or (None, None)
    left_out = f"difference without seed {', '.join(map(str, alone))}, which one of the two lacks" if alone else ""
    lone = "difference of one seed: nothing follows about the mechanism" if result.seeds == 1 < len(team) else ""
    return {"reference": words, "difference": result.estimate, "difference_low": ends[0], "difference_high": ends[1],
            "p_value": result.p_value, "against": join(left_out, lone)}


def _less(figure: Figure, other: Figure) -> Figure:
    patients = min(figure.patients, other.patients)
    return Figure(figure.value - other.value, figure.replicates - other.replicates, patients)


def _adjust(rows: list[Row]) -> None:
    """Holm over the mechanisms of one setting, plan, guidance, metric, attribute and figure."""
    families: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row.get("p_value") is not None:
            families.setdefault(tuple(row[name] for name in ("setting", "plan", "guidance", *PLACE)), []).append(row)
    for own in families.values():
        adjusted = holm(np.array([row["p_value"] for row in own]))
        for row, value in zip(own, adjusted, strict=True):
            row["p_holm"] = float(value)


def _typed(rows: list[Row], about: str) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=SUMMARY_COLUMNS)
    types = dict.fromkeys([*_NUMBERS, *_DIFFERENCE], "float64") | {"seeds": "int64", "n": "Int64"}
    frame = frame.astype(types | dict.fromkeys(_text(SUMMARY_COLUMNS), "str"))
    whole = frame["figure"] == "overall"
    frame.loc[whole, "note"] = [join(note, about) for note in frame.loc[whole, "note"]]
    return frame
