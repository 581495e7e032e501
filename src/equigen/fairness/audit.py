"""The audit: from predictions to a table of every metric in every group, with what chance would give."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from equigen.errors import InputError, Problem
from equigen.fairness.cells import CASES, Cell, Least, evaluate, macro
from equigen.fairness.draws import Draws, draw
from equigen.fairness.mix import Mix
from equigen.fairness.rows import COLUMNS, Series, adjust, row_of, series_of
from equigen.fairness.table import Columns, read_predictions
from equigen.fairness.thresholds import Threshold, task_threshold

HIGH_RISK = ":high_risk"


def audit(
    predictions: pd.DataFrame | str | Path,
    groups: list[str] | None = None,
    *,
    truth: str = "truth",
    score: str = "probability",
    patient: str = "patient",
    site: str | None = "site",
    replicates: int = 500,
    permutations: int = 500,
    baseline: str | None = "real",
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
    (``equigen.statistics.share_interval``); those of ece, gaps, worst and es are percentiles. ``null_low`` and
    ``null_high``: the middle 95 % of what chance gives if all groups had one value and each its own noise
    (``equigen.fairness.chance``). ``p_value``: one-sided, of gaps, dpd and deodds, adjusted by Holm over the
    attributes within one recipe, task, domain and metric. Differences: to ``baseline`` by the paired cluster
    bootstrap on the same patients; absent where recipes were not run on the same rows. A cell with fewer than
    ``min_patients`` patients, or with fewer than ``min_cases`` of a class that a metric divides by, has no estimate
    and says "too small" in ``note``, where replicates without a value are counted as well; it enters no gap. The
    interval of a gap leans upwards (a maximum of noisy values does), which its note says.

    Args:
        predictions: table, or path of a csv, tsv or parquet file. Only truth, score and patient are needed;
            recipe, seed, task, image, split and domain are used when there.
        groups: names of attributes (columns ``attr.<name>`` or ``<name>``); None takes all ``attr.*``, an
            empty list gives the overall numbers alone.
        truth: column of 0 and 1.
        score: column of the probability of 1.
        patient: column of the unit of resampling.
        site: column of the site, or None; the default name may be absent.
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

    Raises:
        InputError: with every problem of the table; see ``read_predictions``.

    """
    _check_settings(replicates, permutations, threshold, target_sensitivity)
    least = Least(min_patients, min(CASES, min_patients) if min_cases is None else min_cases)
    table, names, mix = _read(predictions, groups, Columns(truth, score, patient, site), standardise)
    limits = _thresholds(table, threshold, target_sensitivity)
    test = table[table["split"] == "test"]
    levels = {name: sorted(test[f"attr.{name}"].dropna().unique()) for name in names}
    rows: list[dict[str, Any]] = []
    done: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for domain, part in _domains(test):
        units = tuple(part["unit"])
        if units in done:  # the only site out of distribution is `ood` itself
            rows += [row | {"domain": domain} for row in done[units]]
            continue
        start = len(rows)
        draws = draw(part, levels, replicates=replicates, permutations=permutations, seed=seed)
        for task, cells in _cells(part, draws, limits, least, mix):
            rows += _rows(task, domain, cells, baseline, least)
        done[units] = rows[start:]
    table = adjust(pd.DataFrame(rows, columns=COLUMNS))
    numbers = COLUMNS[8:14] + COLUMNS[15:18]
    return table.astype(dict.fromkeys(numbers, float)).reset_index(drop=True)


def _read(
    predictions: pd.DataFrame | str | Path, groups: list[str] | None, columns: Columns, standardise: str | None
) -> tuple[pd.DataFrame, list[str], Mix | None]:
    """The predictions, the attributes to compare, and the case mix to weight to."""
    if standardise is None or standardise in ("truth", columns.truth):
        table, names = read_predictions(predictions, groups, columns)
        return table, names, None if standardise is None else Mix("truth", "truth", ["0", "1"])
    control = standardise.removeprefix("attr.")
    asked = read_predictions(predictions, None, columns)[1] if groups is None else groups
    asked = [name.removeprefix("attr.") for name in asked]
    table, _ = read_predictions(predictions, [*(name for name in asked if name != control), control], columns)
    levels = sorted(table.loc[table["split"] == "test", f"attr.{control}"].dropna().unique())
    return table, [name for name in asked if name != control], Mix(control, f"attr.{control}", levels)


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
    if problems:
        raise InputError("The audit cannot run with these settings.", problems)


def _thresholds(
    table: pd.DataFrame, fixed: float | None, target: float | None
) -> dict[tuple[str, int, str], Threshold]:
    """Operating point of every recipe, seed and task, from validation rows."""
    limits = {}
    for (recipe, seed, task), rows in table.groupby(["recipe", "seed", "task"]):
        validation = rows[rows["split"] == "val"]
        limits[str(recipe), int(str(seed)), str(task)] = (
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
    part: pd.DataFrame,
    draws: Draws,
    limits: dict[tuple[str, int, str], Threshold],
    least: Least,
    mix: Mix | None,
) -> Iterator[tuple[str, dict[str, Cell]]]:
    """Cells of every recipe, task by task, with the macro mean after the tasks of one label."""
    labels: dict[str, list[str]] = {}
    for task in sorted(part["task"].unique()):
        labels.setdefault(task.split(":", 1)[0], []).append(task)
    for label, tasks in labels.items():
        made: dict[str, dict[str, Cell]] = {}
        for task in tasks:
            cells = {
                str(recipe): _cell(rows, draws, limits, least, mix)
                for recipe, rows in part[part["task"] == task].groupby("recipe")
            }
            yield task, cells
            for recipe, cell in cells.items():
                made.setdefault(recipe, {}).update({} if task.endswith(HIGH_RISK) else {task: cell})
        if sum(not task.endswith(HIGH_RISK) for task in tasks) > 1:
            yield f"{label}:macro", {recipe: macro(cells, draws) for recipe, cells in made.items() if cells}


def _cell(
    rows: pd.DataFrame,
    draws: Draws,
    limits: dict[tuple[str, int, str], Threshold],
    least: Least,
    mix: Mix | None,
) -> Cell:
    """One recipe and task, its seeds together; high-risk tasks name their sensitivity."""
    recipe, task = str(rows["recipe"].iloc[0]), str(rows["task"].iloc[0])
    runs = [(run, limits[recipe, int(str(seed)), task]) for seed, run in rows.groupby("seed")]
    units = [tuple(run["unit"]) for run, _ in runs]
    if any(other != units[0] for other in units):
        problem = Problem(
            f"seeds of recipe '{recipe}' were not run on the same rows of task '{task}'",
            "predict the same images with every seed",
            column="seed",
        )
        raise InputError("The predictions table cannot be audited.", [problem])
    cell = evaluate(runs, draws, least, mix)
    if task.endswith(HIGH_RISK):
        parts: list[dict[str, Any]] = [cell.overall, cell.resting]
        parts += [part for frame in cell.frames for part in (frame.groups, frame.null, frame.resting)]
        for part in parts:
            part["high_risk_sensitivity"] = part["sensitivity"]
    return cell


def _rows(
    task: str, domain: str, cells: dict[str, Cell], baseline: str | None, least: Least
) -> list[dict[str, Any]]:
    """Rows of one task in one domain, the recipes side by side."""
    made: list[dict[str, Any]] = []
    series = {recipe: series_of(cell, least) for recipe, cell in cells.items()}
    for recipe, items in series.items():
        to = baseline if baseline in cells and recipe != baseline else None
        paired = to is not None and cells[to].key == cells[recipe].key
        others = {_name(item): item for item in series[to]} if paired and to is not None else {}
        head = {"recipe": recipe, "task": task, "domain": domain}
        made += [head | row_of(item, others.get(_name(item)), to if paired else None) for item in items]
    return made


def _name(series: Series) -> tuple[str, str, str]:
    """What makes two series the same quantity."""
    return series.metric, series.attribute, series.group
