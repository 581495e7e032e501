"""Checks of a table of predictions, of single cells and between rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from equigen.cohort import is_rounded, means_unknown, normalize_cell, unknown_words
from equigen.errors import Problem, suggestion
from equigen.fairness.parsing import clip_rounding

if TYPE_CHECKING:
    from equigen.fairness.predictions import Columns

MAX_LEVELS = 30  # of a numeric attribute; more are a measurement, not groups
MAX_CLASSES = 12  # of a truth in words; more are not classes
DOMAINS = ("all", "id", "ood")
SUMMARIES = ("*", "gap", "worst", "es")
SPLITS = ("train", "val", "test")


def find_problems(table: pd.DataFrame, raw: pd.DataFrame, names: Mapping[str, str], columns: Columns) -> list[Problem]:
    """All problems of a table of predictions.

    Args:
        table: predictions with standard column names, NaN for unreadable truths and scores, by row number.
        raw: the same rows as text, under the user's names.
        names: attribute to column.
        columns: the user's names of the other columns.

    """
    problems = _truth_problems(table, raw, columns) + _score_problems(table, raw, columns)
    mend = "name the patient, or the image where nothing else is known"
    problems += _cell_problems(raw[columns.patient], table["patient"].isna(), mend)
    mend = "write the table anew with this column as text"
    patients = raw[columns.patient]
    rounded = {cell: normalize_cell(cell) for cell in patients.unique() if is_rounded(normalize_cell(cell))}
    problems += [
        Problem(f"the patient '{rounded[cell]}' is a number that was rounded, so patients may share it", mend,
                row=int(str(row)), column=str(patients.name))
        for row, cell in patients[patients.isin(rounded)].items()
    ]  # fmt: skip
    problems += _split_problems(table) + _name_problems(table, raw, names, columns)
    return problems + _image_problems(table)


def _cell_problems(cells: pd.Series, invalid: pd.Series, mend: str) -> list[Problem]:
    """One problem for each invalid cell."""
    unknown = unknown_words()
    problems = []
    for row, cell in cells[invalid].items():
        message = "nothing is given" if means_unknown(cell, unknown) else f"'{cell}' is not usable"
        problems.append(Problem(message, mend, row=int(str(row)), column=str(cells.name)))
    return problems


def _truth_problems(table: pd.DataFrame, raw: pd.DataFrame, columns: Columns) -> list[Problem]:
    """Truths that are neither 1 nor 0; a single problem where the column has classes in words."""
    cells, unknown = raw[columns.truth], unknown_words()
    classes = sorted({normalize_cell(cell) for cell in cells.unique() if not means_unknown(cell, unknown)})
    if columns.positive is not None and normalize_cell(columns.positive) not in classes:
        message = f"no row says '{columns.positive}', which was named as the positive word"
        return [Problem(message, suggestion(normalize_cell(columns.positive), classes), column=columns.truth)]
    invalid = table["truth"].isna()
    if columns.positive is None and invalid.all() and 1 < len(classes) <= MAX_CLASSES:
        listed = ", ".join(f"'{name}'" for name in classes)
        mend = f"say which one is positive: positive='{classes[-1]}', or --positive '{classes[-1]}' of the command"
        return [Problem(f"the truth says {listed} instead of 0 and 1", mend, column=columns.truth)]
    return _cell_problems(cells, invalid, "write 1 for the condition and 0 for its absence")


def _score_problems(table: pd.DataFrame, raw: pd.DataFrame, columns: Columns) -> list[Problem]:
    """Scores that are missing, not numbers, or outside [0, 1] by more than rounding."""
    scores = clip_rounding(table["probability"])[0]
    numbers, invalid = scores.dropna(), ~scores.between(0, 1)
    cells = raw.loc[invalid, columns.score]
    if cells.str.fullmatch(r"\s*[+-]?[0-9]+,[0-9]+\s*").any():
        mend = "write the decimal point as '.'"
    elif len(numbers) == 0 or numbers.max() <= 1 or numbers.min() < 0:
        mend = "give a probability; put a logit through the sigmoid"
    else:
        mend = "give a probability: divide a percentage by 100, put a logit through the sigmoid"
    return _cell_problems(raw[columns.score], invalid, mend)


def _split_problems(table: pd.DataFrame) -> list[Problem]:
    """Unknown splits, each once with its first row, and a missing test split."""
    problems = []
    counts = table["split"].value_counts()
    for name in sorted(set(counts.index) - set(SPLITS)):
        row = int(table.index[table["split"] == name][0])
        mend = f"{suggestion(name, SPLITS)} write train, val or test"
        problems.append(Problem(f"'{name}' is no split ({counts[name]} rows)", mend, row=row, column="split"))
    if "test" not in counts.index:
        listed = ", ".join(sorted(counts.index)[:5])
        message = f"no row has split 'test' (there are: {listed})"
        problems.append(Problem(message, "mark the rows to audit", column="split"))
    return problems


def _name_problems(table: pd.DataFrame, raw: pd.DataFrame, names: Mapping[str, str], columns: Columns) -> list[Problem]:
    """Reserved names of groups, sites and domains, and numeric measurements as groups."""
    problems = []
    for name, column in names.items():
        levels = table[f"attr.{name}"].dropna().unique()
        numeric = pd.to_numeric(pd.Series(levels, dtype=object), errors="coerce").notna().all()
        if len(levels) > MAX_LEVELS and numeric:
            message = f"{len(levels)} different numbers are no groups"
            problems.append(Problem(message, "cut it into bins first", column=column))
        problems += [
            Problem(
                f"a group cannot be called '{level}': rows of that name summarise all groups",
                "rename it, or name it as a word for unknown (--unknown)",
                column=column,
            )
            for level in sorted(levels)
            if level.casefold() in SUMMARIES
        ]
    sites, domains = set(table["site"].dropna()), set(table["domain"].dropna())
    reserved = sorted(name for name in sites if name.casefold() in DOMAINS)
    problems += [
        Problem(f"a site cannot be called '{name}'", "rename it", column=columns.site or "site") for name in reserved
    ]
    if any(name.casefold() == "all" for name in domains):
        mend = "rename it, or leave the column out"
        problems.append(Problem("a domain cannot be called 'all'", mend, column="domain"))
    if len(domains) > MAX_LEVELS:
        message = f"{len(domains)} different domains"
        problems.append(Problem(message, "write id or ood, or rename the column", column="domain"))
    for name in sorted(domains & sites - set(reserved)):
        if not ((table["domain"] == name) == (table["site"] == name)).all():
            message = f"'{name}' is a domain and a site, of different rows"
            problems.append(Problem(message, "rename one", column="domain"))
    return problems


def _image_problems(table: pd.DataFrame) -> list[Problem]:
    """Images scored twice, and images of several patients, sites, domains, groups or truths; unnamed ones differ."""
    table = table[table["image"].notna()]
    images = table["image"].to_dict()
    twice = table.duplicated(["recipe", "seed", "task", "image"])
    problems = [
        Problem(
            f"'{images[row]}' was scored before for the same recipe, seed and task",
            "keep one row",
            row=int(row),
            column="image",
        )
        for row in table.index[twice]
    ]
    traits = ["patient", "site", "domain", *table.columns[table.columns.str.startswith("attr.")]]
    distinct = table.drop_duplicates(["image", *traits])
    problems += [
        Problem(
            f"'{images[row]}' has another patient, site, domain or group than before",
            "give an image the same traits in every row",
            row=int(row),
            column="image",
        )
        for row in distinct.index[distinct.duplicated("image")]
    ]
    distinct = table.dropna(subset="truth").drop_duplicates(["image", "task", "truth"])
    problems += [
        Problem(
            f"'{images[row]}' has another truth than before",
            "give an image the same truth in every row of a task",
            row=int(row),
            column="image",
        )
        for row in distinct.index[distinct.duplicated(["image", "task"])]
    ]
    return problems
