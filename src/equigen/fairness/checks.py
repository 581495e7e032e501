"""What is wrong with a table of predictions, cell by cell and between rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from equigen.cohort import is_rounded, means_unknown, normalize_cell, suggestion, unknown_words
from equigen.errors import Problem
from equigen.fairness.parsing import without_rounding

if TYPE_CHECKING:
    from equigen.fairness.predictions import Columns

MAX_LEVELS = 30  # more numeric levels than this is a measurement, not a grouping
FEW_WORDS = 12  # a truth of at most so many words names a class, of more it is something else
DOMAINS = ("all", "id", "ood")
SUMMARIES = ("*", "gap", "worst", "es")
SPLITS = ("train", "val", "test")


def faults(table: pd.DataFrame, raw: pd.DataFrame, names: Mapping[str, str], columns: Columns) -> list[Problem]:
    """Every problem of a table of predictions.

    Args:
        table: predictions under their own names, NaN where a truth or score cannot be read, by row number.
        raw: the same rows as text, under the user's names.
        names: attribute to column.
        columns: the user's names of the other columns.

    """
    problems = _truth_faults(table, raw, columns) + _score_faults(table, raw, columns)
    mend = "name the patient, or the image where nothing else is known"
    problems += _cells(raw[columns.patient], table["patient"].isna(), mend)
    problems += _rounded(raw[columns.patient])
    problems += _split_faults(table) + _name_faults(table, raw, names, columns)
    return problems + _image_faults(table)


def _rounded(patients: pd.Series) -> list[Problem]:
    """One problem for each patient whose number lost digits, so that several patients may share it."""
    mend = "write the table anew with this column as text"
    bad = {cell: normalize_cell(cell) for cell in patients.unique() if is_rounded(normalize_cell(cell))}
    return [
        Problem(f"the patient '{bad[cell]}' is a number that was rounded, so patients may share it", mend,
                row=int(str(row)), column=str(patients.name))
        for row, cell in patients[patients.isin(bad)].items()
    ]  # fmt: skip


def _cells(cells: pd.Series, wrong: pd.Series, mend: str) -> list[Problem]:
    """One problem for each wrong cell."""
    unknown = unknown_words()
    problems = []
    for row, cell in cells[wrong].items():
        message = "nothing is given" if means_unknown(cell, unknown) else f"'{cell}' is not usable"
        problems.append(Problem(message, mend, row=int(str(row)), column=str(cells.name)))
    return problems


def _truth_faults(table: pd.DataFrame, raw: pd.DataFrame, columns: Columns) -> list[Problem]:
    """Truths that are neither 1 nor 0; one problem alone where the column names classes in words."""
    cells, unknown = raw[columns.truth], unknown_words()
    words = sorted({normalize_cell(cell) for cell in cells.unique() if not means_unknown(cell, unknown)})
    shown = ", ".join(f"'{word}'" for word in words[:FEW_WORDS])
    if columns.positive is not None and normalize_cell(columns.positive) not in words:
        message = f"no row says '{columns.positive}', which was named as the positive word"
        return [Problem(message, suggestion(normalize_cell(columns.positive), words), column=columns.truth)]
    wrong = table["truth"].isna()
    readable = (~wrong).any()
    if columns.positive is None and not readable and 1 < len(words) <= FEW_WORDS:
        mend = f"say which one is positive: positive='{words[-1]}', or --positive '{words[-1]}' of the command"
        return [Problem(f"the truth says {shown} instead of 0 and 1", mend, column=columns.truth)]
    return _cells(cells, wrong, "write 1 for the condition and 0 for its absence")


def _score_faults(table: pd.DataFrame, raw: pd.DataFrame, columns: Columns) -> list[Problem]:
    """Scores that are missing, no numbers, or outside [0, 1] by more than rounding."""
    scores = without_rounding(table["probability"])[0]
    numbers, wrong = scores.dropna(), ~scores.between(0, 1)
    cells = raw.loc[wrong, columns.score]
    if cells.str.fullmatch(r"\s*[+-]?[0-9]+,[0-9]+\s*").any():
        mend = "write the decimal point as '.'"
    elif len(numbers) == 0 or numbers.max() <= 1 or numbers.min() < 0:
        mend = "give a probability; put a logit through the sigmoid"
    else:
        mend = "give a probability: divide a percentage by 100, put a logit through the sigmoid"
    return _cells(raw[columns.score], wrong, mend)


def _split_faults(table: pd.DataFrame) -> list[Problem]:
    """Words that name no split, each once with its first row, and no row to audit."""
    problems = []
    counts = table["split"].value_counts()
    for word in sorted(set(counts.index) - set(SPLITS)):
        row = int(table.index[table["split"] == word][0])
        mend = f"{suggestion(word, SPLITS)} write train, val or test"
        problems.append(Problem(f"'{word}' is no split ({counts[word]} rows)", mend, row=row, column="split"))
    if "test" not in counts.index:
        words = ", ".join(sorted(counts.index)[:5])
        message = f"no row has split 'test' (there are: {words})"
        problems.append(Problem(message, "mark the rows to audit", column="split"))
    return problems


def _name_faults(
    table: pd.DataFrame, raw: pd.DataFrame, names: Mapping[str, str], columns: Columns
) -> list[Problem]:
    """Groups, sites and domains whose names mean something else in the result, and measurements as groups."""
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


def _image_faults(table: pd.DataFrame) -> list[Problem]:
    """Images scored twice, and images of two patients, sites, domains, groups or truths; unnamed ones are new ones."""
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
