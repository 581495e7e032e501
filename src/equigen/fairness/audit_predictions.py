"""The audit of predictions: a table of every metric in every group, with intervals and null bands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from equigen.config import update_settings
from equigen.errors import InputError, Problem, suggestion
from equigen.fairness.cells import Cell, MinimumSizes, evaluate, macro_average
from equigen.fairness.metrics import HIGHER_IS_BETTER
from equigen.fairness.predictions import Columns, Predictions, read_predictions
from equigen.fairness.resamples import Resamples, draw_resamples
from equigen.fairness.rows import COLUMNS, Series, adjust, cell_series, table_row
from equigen.fairness.settings import DEFAULT_BASELINE, MIN_CASES, AuditSettings
from equigen.fairness.standardisation import CaseMix
from equigen.fairness.thresholds import Threshold, task_threshold
from equigen.group_table import GroupTable

HIGH_RISK = ":high_risk"
Thresholds: TypeAlias = dict[tuple[str, Any, str], Threshold]  # recipe, seed, task


@dataclass(frozen=True)
class Evaluation:
    """The settings of all cells of one domain."""

    resamples: Resamples
    thresholds: Thresholds
    minimum: MinimumSizes
    mix: CaseMix | None
    baseline: str | None


@dataclass(frozen=True)
class BaselinePair:
    """Metrics of a recipe and of the baseline on their shared rows; ``note`` where these are not all rows."""

    recipe: Cell
    baseline: Cell
    note: str = ""


@dataclass(frozen=True, repr=False)
class Audit(GroupTable):
    """Rows of fairness.parquet in ``table``; views ``overall``, ``by_group``, ``gaps``, ``worst``, ``differences``."""

    index_columns = ("recipe", "task", "domain")
    title = "Audit"
    worst_is_low = tuple(name for name, higher in HIGHER_IS_BETTER.items() if higher)

    @property
    def differences(self) -> pd.DataFrame:
        """Paired differences of recipes to the baseline, with intervals."""
        rows = self.table[self.table["difference"].notna()]
        columns = ["difference_to", "difference", "difference_low", "difference_high"]
        return rows.set_index([*self._distinct(), "attribute", "group", "metric"])[columns]


def audit(
    predictions: pd.DataFrame | str | Path,
    groups: Sequence[str] | None = None,
    *,
    settings: AuditSettings | None = None,
    **options: Any,
) -> Audit:
    """Audit predictions for groups of patients: the rows of ``fairness.parquet``.

    For each recipe, task, domain (``all``, ``id``, ``ood`` and each site, where there are such columns) and metric:
    group ``*`` is all rows; then each level of each attribute; ``gap`` = max - min over groups; ``worst`` = the worst
    group's value; ``es`` = AUC / (1 + sum_g |AUC_g - AUC|) (METHODS section 5). ``dpd`` and ``deodds`` are gaps and
    have the group ``gap``. A recipe with several training seeds is averaged over them in every replicate. Labels with
    several tasks also have ``<label>:macro``, their mean AUC.

    Statistics (METHODS section 6). Patients are resampled as clusters; thresholds are fixed. Intervals (95 %) of a
    metric over all rows and in a group are Wilson's with the effective number of the bootstrap
    (``equigen.statistics.share_interval``); those of gaps, worst and es are percentiles, and ece has none.
    ``null_low`` and ``null_high``: the middle 95 % of the null distribution in which all groups have one value and
    each its own noise (``equigen.fairness.null_bands``). ``p_value``: one-sided, of gaps, dpd and deodds, adjusted by
    Holm over the attributes within one recipe, task, domain and metric. Differences: to ``baseline`` by the paired
    cluster bootstrap on the shared rows, with a ``note`` where these are not all rows. A cell with fewer than
    ``min_patients`` patients, or with fewer than ``min_cases`` of a class that a metric divides by, has no estimate and
    a ``note`` "too small", and enters no gap; the note also counts undefined replicates. The interval of a gap is
    biased upwards (as a maximum of noisy values), stated in its note.

    Args:
        predictions: table, or path of a csv, tsv or parquet file. Only truth, score and patient are required;
            recipe, seed, task, image, split and domain are optional.
        groups: attributes to compare, which overrides ``settings.groups``.
        settings: columns of the table, and how it is audited; None takes the defaults.
        options: single fields of ``AuditSettings``, which override ``settings``.

    Returns:
        The ``table`` with views of it; ``notes``, and ``note`` in the rows of group ``*``, list rows left out and the
        reading of unusual cells.

    Raises:
        InputError: with every problem of the table; see ``read_predictions``.

    """
    options |= {} if groups is None else {"groups": [groups] if isinstance(groups, str) else list(groups)}
    settings = update_settings(settings or AuditSettings(), options, "The audit cannot run with these settings.")
    min_patients, min_cases, baseline = settings.min_patients, settings.min_cases, settings.baseline
    minimum = MinimumSizes(min_patients, min(MIN_CASES, min_patients) if min_cases is None else min_cases)
    result, names, mix = _read(predictions, settings)
    table = result.table
    test = table[table["split"] == "test"]
    notes = result.notes + _check_runs(table, test, baseline)
    thresholds: Thresholds = {}
    for (recipe, run_seed, task), rows in table.groupby(["recipe", "seed", "task"]):
        validation = rows[rows["split"] == "val"]
        thresholds[str(recipe), run_seed, str(task)] = (
            task_threshold(validation, target_sensitivity=settings.target_sensitivity)
            if settings.threshold is None else Threshold(settings.threshold)
        )  # fmt: skip
    levels = {name: sorted(test[f"attr.{name}"].dropna().unique()) for name in names}
    domains = [("all", test)]  # also in and out of distribution, and each site
    for column in ("domain", "site"):
        domains += [(name, test[test[column] == name]) for name in sorted(test[column].dropna().unique())]
    audit_rows: list[dict[str, Any]] = []
    by_units: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    reference = baseline if baseline in set(test["recipe"]) else None
    for domain, subset in domains:
        units = tuple(subset["unit"])
        if units in by_units:  # the only site out of distribution equals `ood`
            audit_rows += [row | {"domain": domain} for row in by_units[units]]
            continue
        start = len(audit_rows)
        resamples = draw_resamples(
            subset, levels, replicates=settings.replicates, permutations=settings.permutations, seed=settings.seed
        )
        for task_name, cells, pairs in _task_cells(subset, Evaluation(resamples, thresholds, minimum, mix, reference)):
            head = {"task": task_name, "domain": domain}
            audit_rows += [head | row for row in _task_rows(cells, pairs, reference, minimum)]
        by_units[units] = audit_rows[start:]
    table = adjust(pd.DataFrame(audit_rows, columns=COLUMNS))
    numbers = COLUMNS[8:14] + COLUMNS[15:18]
    table = table.astype(dict.fromkeys(numbers, float)).reset_index(drop=True)
    overall = table["group"] == "*"
    table.loc[overall, "note"] = ["; ".join([note, *notes]).removeprefix("; ") for note in table["note"][overall]]
    table.attrs["notes"] = notes
    return Audit(table)


def _read(
    predictions: pd.DataFrame | str | Path, settings: AuditSettings
) -> tuple[Predictions, list[str], CaseMix | None]:
    """The predictions, the attributes to compare, and the case mix to standardise to."""
    groups, standardise = settings.groups, settings.standardise
    columns = Columns(settings.truth, settings.score, settings.patient, settings.site, settings.positive)
    options: dict[str, Any] = {"unknown": settings.unknown, "only": settings.only}
    if standardise is None or standardise in ("truth", columns.truth):
        result = read_predictions(predictions, groups, columns, **options)
        return result, result.names, None if standardise is None else CaseMix("truth", "truth", ["0", "1"])
    trait = standardise.removeprefix("attr.")
    names = read_predictions(predictions, None, columns, **options).names if groups is None else groups
    names = [name.removeprefix("attr.") for name in names if name.removeprefix("attr.") != trait]
    result = read_predictions(predictions, [*names, trait], columns, **options)
    levels = sorted(result.table.loc[result.table["split"] == "test", f"attr.{trait}"].dropna().unique())
    return result, names, CaseMix(trait, f"attr.{trait}", levels)


def _check_runs(table: pd.DataFrame, test: pd.DataFrame, baseline: str | None) -> list[str]:
    """Notes on recipes without test rows; InputError for an unknown baseline or seeds with different rows."""
    recipes, problems = sorted(table["recipe"].unique()), []
    if baseline not in {None, DEFAULT_BASELINE, *recipes}:
        mend = suggestion(str(baseline), recipes)
        problems.append(Problem(f"no recipe is called '{baseline}', the baseline", mend, column="recipe"))
    for (recipe, task), rows in test.groupby(["recipe", "task"]):
        runs = {seed: set(zip(run["unit"], run["truth"], strict=True)) for seed, run in rows.groupby("seed")}
        first = next(iter(runs))
        for seed in [seed for seed, units in runs.items() if units != runs[first]]:
            extra, lacking = len(runs[seed] - runs[first]), len(runs[first] - runs[seed])
            message = (
                f"seeds of recipe '{recipe}' were not run on the same rows of task '{task}': "
                f"seed {seed!s} has {extra} rows that seed {first!s} lacks, and lacks {lacking}"
            )
            problems.append(Problem(message, "predict the same images with every seed", column="seed"))
    if problems:
        raise InputError("The predictions table cannot be audited.", problems)
    absent = sorted(set(recipes) - set(test["recipe"]))
    return [f"recipe '{recipe}' has no row of split 'test' and is left out" for recipe in absent]


def _task_cells(
    table: pd.DataFrame, evaluation: Evaluation
) -> Iterator[tuple[str, dict[str, Cell], dict[str, BaselinePair]]]:
    """Cells of every recipe and their pairs with the baseline, by task; a label's macro average follows its tasks."""
    labels: dict[str, list[str]] = {}
    for task in sorted(table["task"].unique()):
        labels.setdefault(task.split(":", 1)[0], []).append(task)
    baseline, resamples = evaluation.baseline, evaluation.resamples
    for label, tasks in labels.items():
        by_recipe: dict[str, dict[str, Cell]] = {}
        pairs_by_recipe: dict[str, dict[str, BaselinePair]] = {}
        for task in tasks:
            rows = {str(recipe): rows for recipe, rows in table[table["task"] == task].groupby("recipe")}
            cells = {recipe: _cell(recipe_rows, evaluation) for recipe, recipe_rows in rows.items()}
            pairs = _baseline_pairs(rows, cells, evaluation)
            yield task, cells, pairs
            for recipe, cell in cells.items():
                by_recipe.setdefault(recipe, {}).update({} if task.endswith(HIGH_RISK) else {task: cell})
            for recipe, pair in pairs.items():
                pairs_by_recipe.setdefault(recipe, {}).update({} if task.endswith(HIGH_RISK) else {task: pair})
        if sum(not task.endswith(HIGH_RISK) for task in tasks) < 2:
            continue
        means = {recipe: macro_average(cells, resamples) for recipe, cells in by_recipe.items() if cells}
        mean_pairs = {}
        for recipe, pairs in pairs_by_recipe.items():
            if not pairs:
                continue
            union = by_recipe[recipe].keys() | by_recipe[str(baseline)].keys()
            notes = [f"difference over {len(pairs)} of {len(union)} tasks"] if len(pairs) < len(union) else []
            if any(pair.note for pair in pairs.values()):
                notes.append("difference on shared rows alone")
            mean_pairs[recipe] = BaselinePair(
                macro_average({task: pair.recipe for task, pair in pairs.items()}, resamples),
                macro_average({task: pair.baseline for task, pair in pairs.items()}, resamples),
                "; ".join(notes),
            )
        yield f"{label}:macro", means, mean_pairs


def _baseline_pairs(
    rows: dict[str, pd.DataFrame], cells: dict[str, Cell], evaluation: Evaluation
) -> dict[str, BaselinePair]:
    """The pair with the baseline of each recipe that shares rows with it, on the shared rows of one task."""
    pairs: dict[str, BaselinePair] = {}
    baseline = evaluation.baseline
    without_null = replace(evaluation, resamples=replace(evaluation.resamples, null_draws=0))
    for recipe, cell in cells.items():
        if baseline is None or baseline not in cells or recipe == baseline:
            continue
        if cell.key == cells[baseline].key:
            pairs[recipe] = BaselinePair(cell, cells[baseline])
            continue
        first, second = rows[recipe], rows[baseline]
        keys = [pd.MultiIndex.from_frame(frame[["unit", "truth"]]) for frame in (first, second)]
        first, second = first[keys[0].isin(keys[1])], second[keys[1].isin(keys[0])]
        if not first.empty:
            note = f"difference on the {first['unit'].nunique():,} rows shared with {baseline}, "
            note += f"of {cell.sizes.n:,} and {cells[baseline].sizes.n:,}"
            pairs[recipe] = BaselinePair(_cell(first, without_null), _cell(second, without_null), note)
    return pairs


def _cell(rows: pd.DataFrame, evaluation: Evaluation) -> Cell:
    """Metrics of one recipe and task over its seeds; high-risk tasks also have ``high_risk_sensitivity``."""
    recipe, task = str(rows["recipe"].iloc[0]), str(rows["task"].iloc[0])
    runs = [(run, evaluation.thresholds[recipe, seed, task]) for seed, run in rows.groupby("seed")]
    cell = evaluate(runs, evaluation.resamples, evaluation.minimum, evaluation.mix)
    if task.endswith(HIGH_RISK):
        tables: list[dict[str, Any]] = [cell.overall, cell.support]
        tables += [table for frame in cell.frames for table in (frame.groups, frame.null, frame.support)]
        for table in tables:
            table["high_risk_sensitivity"] = table["sensitivity"]
    return cell


def _task_rows(
    cells: dict[str, Cell], pairs: dict[str, BaselinePair], baseline: str | None, minimum: MinimumSizes
) -> list[dict[str, Any]]:
    """Rows of one task in one domain, recipe by recipe."""
    rows: list[dict[str, Any]] = []
    for recipe, cell in cells.items():
        pair = pairs.get(recipe)
        items = cell_series(cell, minimum)
        if pair is None:
            unpaired = baseline is not None and recipe != baseline
            note = f"no row is shared with {baseline}" if unpaired else ""
            rows += [{"recipe": recipe} | table_row(_with_note(item, note), None, None) for item in items]
            continue
        shared = {_quantity(item): item for item in cell_series(pair.recipe, minimum)}
        reference = {_quantity(item): item for item in cell_series(pair.baseline, minimum)}
        for item in items:
            row = table_row(
                _with_note(item, pair.note), reference.get(_quantity(item)), baseline, shared.get(_quantity(item))
            )
            rows.append({"recipe": recipe} | row)
    return rows


def _with_note(series: Series, note: str) -> Series:
    """The series with another note, if there is one."""
    return replace(series, notes=[*series.notes, note]) if note else series


def _quantity(series: Series) -> tuple[str, str, str]:
    """Key of the quantity of a series: metric, attribute and group."""
    return series.metric, series.attribute, series.group
