"""The audit: from predictions to a table of every metric in every group, with what chance would give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from equigen.cohort import suggestion
from equigen.errors import InputError, Problem
from equigen.fairness.cells import CASES, Cell, Least, evaluate, macro
from equigen.fairness.predictions import Columns, Predictions, read_predictions
from equigen.fairness.resamples import Draws, draw
from equigen.fairness.rows import COLUMNS, Series, adjust, row_of, series_of
from equigen.fairness.standardisation import Mix
from equigen.fairness.thresholds import Threshold, task_threshold

HIGH_RISK = ":high_risk"
Limits: TypeAlias = dict[tuple[str, Any, str], Threshold]  # recipe, seed, task
DEFAULT_BASELINE = "real"  # may be absent


@dataclass(frozen=True)
class Pair:
    """A recipe and the baseline measured on the rows that both have; ``note`` says when these are not all rows."""

    own: Cell
    baseline: Cell
    note: str = ""


def audit(
    predictions: pd.DataFrame | str | Path,
    groups: Sequence[str] | None = None,
    *,
    truth: str = "truth",
    score: str = "probability",
    patient: str = "patient",
    site: str | None = "site",
    positive: str | None = None,
    unknown: Iterable[str] = (),
    only: Mapping[str, Sequence[str]] | None = None,
    replicates: int = 500,
    permutations: int = 500,
    baseline: str | None = DEFAULT_BASELINE,
    min_patients: int = 30,
    min_cases: int | None = None,
    standardise: str | None = None,
    threshold: float | None = None,
    target_sensitivity: float | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Audit predictions for groups of patients: the rows of ``fairness.parquet``.

    For each recipe, task, domain (``all``, ``id``, ``ood`` and each site, where the columns are there) and
    metric: group ``*`` is everything; then each level of each attribute; ``gap`` = max - min over groups;
    ``worst`` = the worst group's value; ``es`` = AUC / (1 + sum_g |AUC_g - AUC|) (METHODS section 5). ``dpd``
    and ``deodds`` are gaps by nature and stand in group ``gap``. A recipe with several training seeds is
    averaged over them in every replicate. Labels with several tasks also get ``<label>:macro``, their mean
    AUC.

    Statistics (METHODS section 6). Patients are resampled whole; thresholds are held. Intervals (95 %) of a metric
    over everything and in a group are Wilson's with the effective number that the bootstrap gives
    (``equigen.statistics.share_interval``); those of gaps, worst and es are percentiles, and ece has none.
    ``null_low`` and ``null_high``: the middle 95 % of what chance gives if all groups had one value and each its own
    noise (``equigen.fairness.null_bands``). ``p_value``: one-sided, of gaps, dpd and deodds, adjusted by Holm over the
    attributes within one recipe, task, domain and metric. Differences: to ``baseline`` by the paired cluster
    bootstrap on the same rows; ``note`` says so where one recipe has rows that the other has not. A cell with fewer
    than ``min_patients`` patients, or with fewer than ``min_cases`` of a class that a metric divides by, has no
    estimate and says "too small" in ``note``, where replicates without a value are counted as well; it enters no
    gap. The interval of a gap leans upwards (a maximum of noisy values does), which its note says.

    Args:
        predictions: table, or path of a csv, tsv or parquet file. Only truth, score and patient are needed;
            recipe, seed, task, image, split and domain are used when there.
        groups: names of attributes (columns ``attr.<name>`` or ``<name>``); None takes all ``attr.*``, an
            empty list gives the overall numbers alone.
        truth: column of 0 and 1, or of two words of which ``positive`` is one.
        score: column of the probability of 1.
        patient: column of the unit of resampling.
        site: column of the site, or None; the default name may be absent.
        positive: the word in the column of the truth that means 1; every other word means 0.
        unknown: words that mean "not known" in a group, besides ``equigen.cohort.tables.unknown_words.UNKNOWN_WORDS``.
        only: column to levels: rows with another level are left out.
        replicates: bootstrap replicates.
        permutations: draws of what chance gives; without replicates there are none.
        baseline: the recipe that others are compared with, or None.
        min_patients: patients below which a cell is too small to show.
        min_cases: patients with the condition (sensitivity), without it (specificity) or of each class (AUC, PR AUC,
            balanced accuracy) below which a cell is too small; None takes 10, or ``min_patients`` if that is lower.
        standardise: "truth" or a column of traits: each group is weighted so that its strata have the shares they
            have over all groups (direct standardisation), which takes differences in prevalence or case mix out.
        threshold: a fixed operating point, instead of one chosen on the rows with split ``val``.
        target_sensitivity: choose the threshold for this sensitivity on validation, instead of for balanced
            accuracy.
        seed: of the resampling.

    Returns:
        The table; ``attrs["notes"]`` and ``note`` of the rows of everything say which rows were left out and how
        unusual cells were read.

    Raises:
        InputError: with every problem of the table; see ``read_predictions``.

    """
    _check_settings(replicates, permutations, threshold, target_sensitivity)
    least = Least(min_patients, min(CASES, min_patients) if min_cases is None else min_cases)
    columns = Columns(truth, score, patient, site, positive)
    known, names, mix = _read(predictions, groups, columns, standardise, unknown=unknown, only=only)
    table = known.table
    test = table[table["split"] == "test"]
    notes = known.notes + _check_runs(table, test, baseline)
    limits = _thresholds(table, threshold, target_sensitivity)
    levels = {name: sorted(test[f"attr.{name}"].dropna().unique()) for name in names}
    rows: list[dict[str, Any]] = []
    done: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    reference = baseline if baseline in set(test["recipe"]) else None
    for domain, part in _domains(test):
        units = tuple(part["unit"])
        if units in done:  # the only site out of distribution is `ood` itself
            rows += [row | {"domain": domain} for row in done[units]]
            continue
        start = len(rows)
        draws = draw(part, levels, replicates=replicates, permutations=permutations, seed=seed)
        for task, cells, pairs in _cells(part, draws, limits, least, mix, reference):
            rows += _rows(task, domain, cells, pairs, reference, least)
        done[units] = rows[start:]
    table = adjust(pd.DataFrame(rows, columns=COLUMNS))
    numbers = COLUMNS[8:14] + COLUMNS[15:18]
    table = table.astype(dict.fromkeys(numbers, float)).reset_index(drop=True)
    everything = table["group"] == "*"
    table.loc[everything, "note"] = ["; ".join([note, *notes]).removeprefix("; ") for note in table["note"][everything]]
    table.attrs["notes"] = notes
    return table


def _read(
    predictions: pd.DataFrame | str | Path,
    groups: Sequence[str] | None,
    columns: Columns,
    standardise: str | None,
    **rest: Any,
) -> tuple[Predictions, list[str], Mix | None]:
    """The predictions, the attributes to compare, and the case mix to weight to."""
    if standardise is None or standardise in ("truth", columns.truth):
        known = read_predictions(predictions, groups, columns, **rest)
        return known, known.names, None if standardise is None else Mix("truth", "truth", ["0", "1"])
    control = standardise.removeprefix("attr.")
    asked = read_predictions(predictions, None, columns, **rest).names if groups is None else groups
    asked = [name.removeprefix("attr.") for name in asked if name.removeprefix("attr.") != control]
    known = read_predictions(predictions, [*asked, control], columns, **rest)
    levels = sorted(known.table.loc[known.table["split"] == "test", f"attr.{control}"].dropna().unique())
    return known, asked, Mix(control, f"attr.{control}", levels)


def _check_settings(
    replicates: int, permutations: int, threshold: float | None, target: float | None
) -> None:
    """Refuse settings that have no meaning."""
    problems = []
    if replicates < 0 or permutations < 0:
        problems.append(Problem("replicates and permutations count draws", "give 0 or more"))
    if threshold is not None and target is not None:
        problems.append(Problem("threshold and target_sensitivity exclude each other", "give one of them"))
    if target is not None and not 0 < target <= 1:
        problems.append(Problem(f"target_sensitivity is {target}", "give a number above 0 and at most 1"))
    if threshold is not None and not 0 <= threshold <= 1:
        problems.append(Problem(f"threshold is {threshold}", "give a number from 0 to 1"))
    if problems:
        raise InputError("The audit cannot run with these settings.", problems)


def _check_runs(table: pd.DataFrame, test: pd.DataFrame, baseline: str | None) -> list[str]:
    """Notes on recipes without test rows; refuses an unknown baseline and seeds that were run on different rows."""
    recipes, problems = sorted(table["recipe"].unique()), []
    if baseline not in {None, DEFAULT_BASELINE, *recipes}:
        mend = suggestion(str(baseline), recipes)
        problems.append(Problem(f"no recipe is called '{baseline}', the baseline", mend, column="recipe"))
    for (recipe, task), rows in test.groupby(["recipe", "task"]):
        runs = {seed: set(zip(run["unit"], run["truth"], strict=True)) for seed, run in rows.groupby("seed")}
        first = next(iter(runs))
        for seed in [seed for seed, units in runs.items() if units != runs[first]]:
            more, fewer = len(runs[seed] - runs[first]), len(runs[first] - runs[seed])
            message = (
                f"seeds of recipe '{recipe}' were not run on the same rows of task '{task}': "
                f"seed {seed!s} has {more} rows that seed {first!s} lacks, and lacks {fewer}"
            )
            problems.append(Problem(message, "predict the same images with every seed", column="seed"))
    if problems:
        raise InputError("The predictions table cannot be audited.", problems)
    absent = sorted(set(recipes) - set(test["recipe"]))
    return [f"recipe '{recipe}' has no row of split 'test' and is left out" for recipe in absent]


def _thresholds(
    table: pd.DataFrame, fixed: float | None, target: float | None
) -> Limits:
    """Operating point of every recipe, seed and task, from validation rows."""
    limits: Limits = {}
    for (recipe, seed, task), rows in table.groupby(["recipe", "seed", "task"]):
        validation = rows[rows["split"] == "val"]
        limits[str(recipe), seed, str(task)] = (
            Threshold(fixed) if fixed is not None else task_threshold(validation, target_sensitivity=target)
        )
    return limits


def _domains(test: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The test rows as a whole, in and out of distribution, and of each site."""
    yield "all", test
    for column in ("domain", "site"):
        for name in sorted(test[column].dropna().unique()):
            yield name, test[test[column] == name]


def _cells(
    part: pd.DataFrame, draws: Draws, limits: Limits, least: Least, mix: Mix | None, baseline: str | None
) -> Iterator[tuple[str, dict[str, Cell], dict[str, Pair]]]:
    """Cells of every recipe and its pair with the baseline, task by task; the macro mean after one label's tasks."""
    labels: dict[str, list[str]] = {}
    for task in sorted(part["task"].unique()):
        labels.setdefault(task.split(":", 1)[0], []).append(task)
    for label, tasks in labels.items():
        made: dict[str, dict[str, Cell]] = {}
        paired: dict[str, dict[str, Pair]] = {}
        for task in tasks:
            rows = {str(recipe): rows for recipe, rows in part[part["task"] == task].groupby("recipe")}
            cells = {recipe: _cell(own, draws, limits, least, mix) for recipe, own in rows.items()}
            pairs = _pairs(rows, cells, draws, limits, least, mix=mix, baseline=baseline)
            yield task, cells, pairs
            for recipe, cell in cells.items():
                made.setdefault(recipe, {}).update({} if task.endswith(HIGH_RISK) else {task: cell})
            for recipe, pair in pairs.items():
                paired.setdefault(recipe, {}).update({} if task.endswith(HIGH_RISK) else {task: pair})
        if sum(not task.endswith(HIGH_RISK) for task in tasks) > 1:
            means = {recipe: macro(cells, draws) for recipe, cells in made.items() if cells}
            shared = {
                recipe: _macro_pair(pairs, made[recipe], made[str(baseline)], draws)
                for recipe, pairs in paired.items()
                if pairs
            }
            yield f"{label}:macro", means, shared


def _pairs(
    rows: dict[str, pd.DataFrame],
    cells: dict[str, Cell],
    draws: Draws,
    limits: Limits,
    least: Least,
    *,
    mix: Mix | None,
    baseline: str | None,
) -> dict[str, Pair]:
    """For each recipe that shares rows with the baseline, both measured on the shared rows of one task."""
    pairs: dict[str, Pair] = {}
    bare = replace(draws, chance=0)
    for recipe, cell in cells.items():
        if baseline is None or baseline not in cells or recipe == baseline:
            continue
        if cell.key == cells[baseline].key:
            pairs[recipe] = Pair(cell, cells[baseline])
            continue
        sides = [rows[recipe], rows[baseline]]
        units = [pd.MultiIndex.from_frame(side[["unit", "truth"]]) for side in sides]
        inside = [side[mine.isin(others)] for side, mine, others in zip(sides, units, units[::-1], strict=True)]
        if not inside[0].empty:
            note = f"difference on the {inside[0]['unit'].nunique():,} rows shared with {baseline}, "
            note += f"of {cell.sizes.n:,} and {cells[baseline].sizes.n:,}"
            own, other = (_cell(side, bare, limits, least, mix) for side in inside)
            pairs[recipe] = Pair(own, other, note)
    return pairs


def _macro_pair(pairs: dict[str, Pair], own: dict[str, Cell], other: dict[str, Cell], draws: Draws) -> Pair:
    """The mean over the tasks that a recipe shares with the baseline, on the rows that they share."""
    every = own.keys() | other.keys()
    notes = [f"difference over {len(pairs)} of {len(every)} tasks"] if len(pairs) < len(every) else []
    if any(pair.note for pair in pairs.values()):
        notes.append("difference on shared rows alone")
    return Pair(
        macro({task: pair.own for task, pair in pairs.items()}, draws),
        macro({task: pair.baseline for task, pair in pairs.items()}, draws),
        "; ".join(notes),
    )


def _cell(rows: pd.DataFrame, draws: Draws, limits: Limits, least: Least, mix: Mix | None) -> Cell:
    """One recipe and task, its seeds together; high-risk tasks name their sensitivity."""
    recipe, task = str(rows["recipe"].iloc[0]), str(rows["task"].iloc[0])
    runs = [(run, limits[recipe, seed, task]) for seed, run in rows.groupby("seed")]
    cell = evaluate(runs, draws, least, mix)
    if task.endswith(HIGH_RISK):
        parts: list[dict[str, Any]] = [cell.overall, cell.resting]
        parts += [part for frame in cell.frames for part in (frame.groups, frame.null, frame.resting)]
        for part in parts:
            part["high_risk_sensitivity"] = part["sensitivity"]
    return cell


def _rows(
    task: str, domain: str, cells: dict[str, Cell], pairs: dict[str, Pair], baseline: str | None, least: Least
) -> list[dict[str, Any]]:
    """Rows of one task in one domain, the recipes side by side."""
    made: list[dict[str, Any]] = []
    for recipe, cell in cells.items():
        head = {"recipe": recipe, "task": task, "domain": domain}
        pair = pairs.get(recipe)
        items = series_of(cell, least)
        if pair is None:
            alone = baseline is not None and recipe != baseline
            note = f"no row is shared with {baseline}" if alone else ""
            made += [head | row_of(_noted(item, note), None, None) for item in items]
            continue
        own = {_name(item): item for item in series_of(pair.own, least)}
        other = {_name(item): item for item in series_of(pair.baseline, least)}
        for item in items:
            shared = own.get(_name(item)), other.get(_name(item))
            made.append(head | row_of(_noted(item, pair.note), shared[1], baseline, shared[0]))
    return made


def _noted(series: Series, note: str) -> Series:
    """The series with one note more; without any the series itself."""
    return replace(series, notes=[*series.notes, note]) if note else series


def _name(series: Series) -> tuple[str, str, str]:
    """What makes two series the same quantity."""
    return series.metric, series.attribute, series.group
