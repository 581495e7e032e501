"""The tables of a comparison: figures by seed, then over seeds beside the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from equigen.comparison.estimates import Figure, Place, Scored
from equigen.quality import join_notes
from equigen.statistics import SeedMean, holm, mean_over_seeds

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
MEANS = "gap_of_means"  # of the groups' means over seeds: the chance of single trainings weighs less in it
Row = dict[str, Any]


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
    """Each figure over seeds, with its paired difference to the reference; ``about`` is noted in overall rows.

    Beside them stands ``gap_of_means``: largest less smallest of the groups' means over seeds.
    """
    teams: dict[tuple[str, ...], dict[int, Scored]] = {}
    for sample in scored:
        key = tuple(sample.head[name] for name in ("setting", "mechanism", "plan", "guidance"))
        teams.setdefault(key, {})[sample.head["seed"]] = sample
    rows: list[Row] = []
    for key, team in teams.items():
        other = (key[0], reference, key[2], "common" if key[3] == "calibrated" else key[3])
        first, against = next(iter(team.values())), teams.get(other)
        for place in first.figures:
            row: Row = dict(zip(["setting", "mechanism", "plan", "guidance", *PLACE], [*key, *place], strict=True))
            row |= {"n": first.n, **_over_seeds(team, place), **_against(team, against, place, other, key)}
            row["note"] = join_notes(row["note"], row.pop("against"))
            rows.append(row)
            if place[2] == "gap":
                rows.append({**row, "figure": MEANS, **_gap_of_means(team, against, place, key == other)})
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
    figures = list(found.values())
    row, nulls = _summed(figures), [figure.null for figure in figures if np.isfinite(figure.null)]
    row["null_gap"] = float(np.mean(nulls)) if nulls else None
    return {**row, "note": join_notes(words, _words(_mean(figures)), BIASED if place[2] == "gap" else "")}


def _summed(figures: Sequence[Figure]) -> Row:
    """Mean over seeds and its intervals."""
    if not figures:
        return {"seeds": 0}
    result = _mean(figures)
    row: Row = {"seeds": result.seeds, "estimate": result.estimate}
    for name, ends in (("seed", result.seed), ("patient", result.patient), ("ci", result.joint)):
        row |= {f"{name}_low": None, f"{name}_high": None} if ends is None else dict(
            zip((f"{name}_low", f"{name}_high"), ends, strict=True))
    return row


def _mean(figures: Sequence[Figure]) -> SeedMean:
    values, draws = np.array([own.value for own in figures]), np.stack([own.replicates for own in figures])
    return mean_over_seeds(values, draws, patients=min(own.patients for own in figures))


def _words(result: SeedMean) -> str:
    lost = f"{result.lost} resamples of the patients are undefined" if result.lost else ""
    few = "too few to give a patient interval" if result.patient is None else ""
    return join_notes(ONE_SEED if result.seeds == 1 else "", lost, few)


def _notes(notes: Mapping[int, str]) -> str:
    """The notes of the seeds, each once, with its seeds where they differ."""
    kinds: dict[str, list[int]] = {}
    for seed, note in notes.items():
        kinds.setdefault(note, []).append(seed)
    if len(kinds) == 1:
        return next(iter(kinds))
    return join_notes(*(f"{note} (seed {', '.join(map(str, seeds))})" for note, seeds in kinds.items() if note))


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
    left_out = f"difference without seed {', '.join(map(str, alone))}, which one of the two lacks" if alone else ""
    lone = "difference of one seed: nothing follows about the mechanism" if result.seeds == 1 < len(team) else ""
    return {"reference": words, **_difference(result), "against": join_notes(left_out, lone)}


def _difference(result: SeedMean) -> Row:
    ends = result.joint or result.patient or result.seed or (None, None)
    return {"difference": result.estimate, "difference_low": ends[0], "difference_high": ends[1],
            "p_value": result.p_value}


def _gap_of_means(
    team: Mapping[int, Scored], other: Mapping[int, Scored] | None, place: Place, same: bool
) -> Row:
    """What a row of ``gap_of_means`` has in place of those of the mean of the seeds' gaps."""
    mine = _apart(team, place, list(_defined(team, place)))
    theirs = {} if other is None or same else _apart(other, place, list(_defined(other, place)))
    both = [seed for seed in mine if seed in theirs]
    row: Row = {**_summed(list(mine.values())), "null_gap": _chance_of_means(team, place, list(mine))}
    if not both:
        return row
    if len(both) < max(len(mine), len(theirs)):  # the groups farthest apart are those of the seeds that both have
        mine, theirs = _apart(team, place, both), _apart(other or {}, place, both)
    return row | _difference(_mean([_less(mine[seed], theirs[seed]) for seed in both]))


def _groups(scored: Scored, place: Place) -> dict[str, Figure]:
    """The groups of an attribute that take part in its gap."""
    return {name: figure for (metric, attribute, name), figure in scored.figures.items()
            if (metric, attribute) == place[:2] and figure.chance is not None}


def _apart(team: Mapping[int, Scored], place: Place, seeds: Sequence[int]) -> dict[int, Figure]:
    """Of each seed, the difference between the two groups whose means over these seeds are farthest apart."""
    groups = {seed: _groups(team[seed], place) for seed in seeds}
    if not seeds:
        return {}
    means = {name: np.mean([own[name].value for own in groups.values()]) for name in groups[seeds[0]]}
    high, low = max(means, key=lambda name: means[name]), min(means, key=lambda name: means[name])
    return {seed: _less(own[high], own[low]) for seed, own in groups.items()}


def _chance_of_means(team: Mapping[int, Scored], place: Place, seeds: Sequence[int]) -> float | None:
    """Mean gap of the groups' means over seeds where labels mean nothing."""
    tables = [[figure.chance for figure in _groups(team[seed], place).values()] for seed in seeds]
    count = min((len(chance) for own in tables for chance in own if chance is not None), default=0)
    if not count:
        return None
    means = np.mean([[chance[:count] for chance in own if chance is not None] for own in tables], axis=0)
    return float(np.ptp(means, axis=0).mean())


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
    frame.loc[whole, "note"] = [join_notes(note, about) for note in frame.loc[whole, "note"]]
    return frame
