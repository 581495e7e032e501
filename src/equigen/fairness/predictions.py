"""Predictions as a checked table, whether this software made them or somebody else did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyarrow import ArrowException

from equigen.cohort import (
    UNKNOWN_WORDS,
    means_unknown,
    normalize_cell,
    read_table,
    spelling_warnings,
    suggestion,
    table_notes,
    unknown_warnings,
    unknown_words,
)
from equigen.errors import InputError, Problem
from equigen.fairness.checks import faults
from equigen.fairness.parsing import (
    by_cell,
    names_of,
    numbers_of,
    seeds_of,
    split_word,
    truth_of,
    without_rounding,
)

TITLE = "The predictions table cannot be audited."
DEFAULTS = {"recipe": "model", "seed": "0", "task": "task", "split": "test"}
ABSENT = unknown_words(["", "NaN", "NA", "N/A", "<NA>", "NaT"])  # of a recipe or task: "none" may be a name there
JOIN = "|"  # between several findings in one cell


@dataclass(frozen=True)
class Columns:
    """Names of the columns in the table at hand; ``site`` may be absent when it has its default name.

    ``positive``: the word in the column of the truth that means 1; None reads 0, 1, true and false.
    """

    truth: str = "truth"
    score: str = "probability"
    patient: str = "patient"
    site: str | None = "site"
    positive: str | None = None


@dataclass(frozen=True)
class Predictions:
    """Checked predictions, the attributes to audit, and what was read in a way that a reader must know."""

    table: pd.DataFrame
    names: list[str]
    notes: list[str]


def read_predictions(
    predictions: pd.DataFrame | str | Path,
    groups: Sequence[str] | None,
    columns: Columns,
    *,
    unknown: Iterable[str] = (),
    only: Mapping[str, Sequence[str]] | None = None,
) -> Predictions:
    """Predictions under the names of predictions.parquet, checked, and the attributes to audit.

    Absent or empty columns become: recipe "model", seed 0, task "task", split "test". ``unit``
    names the thing that was scored: the image, or without one the patient, groups and a running number, so
    that the same row is found again under another recipe. Rows are in an order that depends neither on the
    order of the rows nor on that of the columns. A missing group is None: unknown, and of no group.

    Args:
        predictions: table, or path of a csv, tsv or parquet file.
        groups: names of attributes; None takes all ``attr.*``, in the order of their names.
        columns: names of the columns.
        unknown: words that mean "not known" in a group, in addition to ``UNKNOWN_WORDS``.
        only: column to levels: rows with another level are left out, and counted in the notes.

    Raises:
        InputError: with every problem found: a missing column (and the nearest name), a truth that is not 0
            or 1, a score that is missing or outside [0, 1], an empty patient, a split that is none, a recipe
            or task that is given for some rows alone, an image scored twice, an attribute with too many
            numeric levels, a group or site whose name means something else in the result.

    """
    raw = _load(predictions)
    names = _attributes(raw, [groups] if isinstance(groups, str) else groups)
    words = unknown_words([*UNKNOWN_WORDS, *(normalize_cell(word) for word in unknown), *unknown])
    _require(raw, names, columns, only or {})
    notes = [f"{note.message} ({note.mend})" for note in table_notes(raw)]
    raw, remarks = _within(raw, only or {}, words)
    notes += remarks
    table, problems = _assemble(raw, names, columns, words)
    problems += faults(table, raw, names, columns)
    if problems:
        raise InputError(TITLE, sorted(problems, key=lambda problem: problem.row or 0))
    notes += _remarks(table, raw, names, columns, words)
    table["probability"] = without_rounding(table["probability"])[0]
    return Predictions(_ordered(table[table["split"].isin(["val", "test"])], list(names)), list(names), notes)


def _load(predictions: pd.DataFrame | str | Path) -> pd.DataFrame:
    """The table as text, by row number; "" where nothing is."""
    if isinstance(predictions, pd.DataFrame):
        return read_table(predictions.reset_index(drop=True))
    path = Path(predictions)
    if not path.exists():
        raise InputError(
            "There is no such predictions file.",
            [Problem("not found", "give the path of a csv, tsv or parquet file", file=str(path))],
        )
    try:
        return read_table(path)
    except (ArrowException, ValueError) as error:  # text in a Parquet file that is no text
        problem = Problem(f"holds cells that cannot be read ({ascii(error)[:80]})", "write it again", file=str(path))
        raise InputError("The table cannot be read.", [problem]) from error


def _attributes(raw: pd.DataFrame, groups: Sequence[str] | None) -> dict[str, str]:
    """Attribute name -> column; all ``attr.*`` columns when none is named."""
    if groups is None:
        named = sorted(column for column in raw.columns if column.startswith("attr."))
        if not named:
            problem = Problem(
                "no column starts with 'attr.' and no groups were named",
                "name columns as groups, or give an empty list for the overall numbers alone",
            )
            raise InputError("Which groups should be compared?", [problem])
        return {column.removeprefix("attr."): column for column in named}
    plain = [name.removeprefix("attr.") for name in groups]
    return {name: f"attr.{name}" if f"attr.{name}" in raw.columns else name for name in plain}


def _require(
    raw: pd.DataFrame, names: dict[str, str], columns: Columns, only: Mapping[str, Sequence[str]]
) -> None:
    """Every named column is there and the table is not empty."""
    wanted = [columns.truth, columns.score, columns.patient, *names.values()]
    wanted += [columns.site] if columns.site not in (None, "site") else []
    wanted += [name for name in only if _column(raw, name) is None]
    have = list(raw.columns)
    problems = []
    for column in dict.fromkeys(wanted):
        if column not in have:
            near = get_close_matches(str(column), have, n=1, cutoff=0.4)
            hint = f"did you mean '{near[0]}'?" if near else f"columns are {', '.join(have[:12])}"
            problems.append(Problem("there is no such column", hint, column=column))
    if "*" in names:
        problems.append(Problem("an attribute cannot be called '*'", "rename the column", column=names["*"]))
    if not problems and len(raw) == 0:
        problems.append(Problem("the table has no rows", "check how it was written"))
    if problems:
        raise InputError(TITLE, problems)


def _column(raw: pd.DataFrame, name: str) -> str | None:
    """The column that a label or attribute stands in, None without."""
    return next((column for column in (name, f"attr.{name}", f"label.{name}") if column in raw.columns), None)


def _within(
    raw: pd.DataFrame, only: Mapping[str, Sequence[str]], words: frozenset[str]
) -> tuple[pd.DataFrame, list[str]]:
    """Rows that have one of the named levels in every named column, and how many have not."""
    inside = np.ones(len(raw), dtype=bool)
    problems = []
    for name, levels in only.items():
        column = str(_column(raw, name))
        cells = names_of(raw[column], words)
        wanted = [normalize_cell(str(level)) for level in levels]
        known = sorted({level for cell in cells.dropna().unique() for level in cell.split(JOIN)})
        problems += [
            Problem(f"no row has '{level}'", suggestion(level, known), column=column)
            for level in wanted
            if level not in known
        ]
        if not wanted:
            problems.append(Problem("no level is named", f"there is: {', '.join(known[:12])}", column=column))
        inside &= [cell is not None and not set(wanted).isdisjoint(cell.split(JOIN)) for cell in cells]
    words_of = ", ".join(f"{name} {' or '.join(map(str, levels))}" for name, levels in only.items())
    if only and not problems and not inside.any():
        problems.append(Problem(f"no row has {words_of} together", "name other levels"))
    if problems:
        raise InputError("The audit cannot be kept within these levels.", problems)
    notes = [f"only {words_of}: {(~inside).sum():,} of {len(raw):,} rows are left out"] if only else []
    return raw[inside], notes


def _assemble(
    raw: pd.DataFrame, names: dict[str, str], columns: Columns, words: frozenset[str]
) -> tuple[pd.DataFrame, list[Problem]]:
    """The table under its own names with unreadable cells as NaN, and the cells missing from run columns."""
    default, problems = unknown_words(), []
    runs = {}
    for name, value in DEFAULTS.items():
        cells = names_of(raw[name], ABSENT) if name in raw else None
        if cells is None or cells.isna().all():
            runs[name] = pd.Series(value, index=raw.index, dtype=object)
            continue
        for row in cells.index[cells.isna()]:
            mend = f"name the {name} in every row, or leave the column out: all rows are then '{value}'"
            problems.append(Problem("nothing is given", mend, row=int(row), column=name))
        runs[name] = cells.fillna(value)
    labels = {"patient": columns.patient, "site": columns.site, "domain": "domain", "image": "image"}
    nothing = pd.Series(None, index=raw.index, dtype=object)
    table = pd.DataFrame(
        {
            "recipe": runs["recipe"],
            "seed": seeds_of(runs["seed"]),
            "task": runs["task"],
            "split": by_cell(runs["split"], split_word),
            **{name: names_of(raw[role], default) if role in raw else nothing for name, role in labels.items()},
            "truth": truth_of(raw[columns.truth], columns.positive),
            "probability": numbers_of(raw[columns.score]),
            **{f"attr.{name}": names_of(raw[column], words) for name, column in names.items()},
        },
        index=raw.index,
    )
    table["truth"] = table["truth"].mask(_empty(raw[columns.truth], default))
    table["domain"] = by_cell(table["domain"].fillna(""), _domain)
    return table, problems


def _empty(cells: pd.Series, words: frozenset[str]) -> NDArray[np.bool_]:
    return by_cell(cells, lambda cell: means_unknown(cell, words)).to_numpy(dtype=bool)


def _domain(name: str) -> str | None:
    """The name of a domain; ID and OOD are written small, "" is None."""
    return name.casefold() if name.casefold() in {"id", "ood"} else name or None


def _remarks(
    table: pd.DataFrame, raw: pd.DataFrame, names: dict[str, str], columns: Columns, words: frozenset[str]
) -> list[str]:
    """Notes on columns that were empty, words that mean unknown, rows left out, and scores off by rounding."""
    notes = [
        f"column '{name}' is empty: every row is '{value}'"
        for name, value in DEFAULTS.items()
        if name in raw and names_of(raw[name], ABSENT).isna().all()
    ]
    training = int((table["split"] == "train").sum())
    notes += [f"{training:,} rows of split 'train' are left out"] if training else []
    count = without_rounding(table["probability"])[1]
    notes += [f"{count:,} scores were outside [0, 1] by rounding and are taken as 0 or 1"] if count else []
    if columns.positive is not None:
        others = sorted({normalize_cell(cell) for cell in raw.loc[table["truth"] == 0, columns.truth]})
        zero = f"{', '.join(others[:6])}{', ...' if len(others) > 6 else ''}"
        notes.append(f"truth: '{normalize_cell(columns.positive)}' is 1, {zero} is 0")
    for name, column in names.items():
        spelled = raw.loc[table[f"attr.{name}"].isna(), column].str.strip()
        notes += [warning.message for warning in unknown_warnings(sorted(spelled), name, column)]
    for name in ("site", "domain"):
        gone = int(table[name].isna().sum())
        some = table[name].notna().any()
        notes += [f"{gone:,} rows of unknown {name} are in the rows of no {name}"] if gone and some else []
    roles = {"patient": columns.patient, "site": columns.site, "image": "image"} | names
    if columns.positive is not None:
        roles["truth"] = columns.truth
    for name, role in [*roles.items(), *((name, name) for name in (*DEFAULTS, "domain"))]:
        if role in raw and name != "split":
            counts = sorted(Counter(raw[role].str.strip()).items())
            cells = [cell for cell, count in counts if not means_unknown(cell, words) for _ in range(count)]
            notes += [warning.message for warning in spelling_warnings(cells, name, str(role), normalize_cell)]
    own = sorted(set(table["domain"].dropna()) - {"id", "ood"})
    notes += [f"domain: {_quoted(own)} is shown under its own name, neither id nor ood"] if own else []
    unnamed = int(table["image"].isna().sum())
    if unnamed and table["image"].notna().any():
        notes.append(f"{unnamed:,} rows without an image name count as images of their own")
    return notes


def _quoted(words: Sequence[str]) -> str:
    """The first words in quotes.

    >>> _quoted(["a", "b"])
    "'a', 'b'"
    """
    return ", ".join(f"'{word}'" for word in words[:6]) + (", ..." if len(words) > 6 else "")


def _ordered(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Rows in canonical order with their ``unit``."""
    traits = [f"attr.{name}" for name in sorted(names)]
    keys = ["recipe", "seed", "task", "image", "patient", *traits, "site", "split", "domain", "truth", "probability"]
    table = table.sort_values(
        keys, key=lambda column: column.fillna("").astype(str) if column.dtype == object else column
    )
    table = table.reset_index(drop=True).astype({"truth": np.int64})
    if table["image"].notna().all():
        return table.assign(unit=table["image"])
    who = _escaped(table["patient"])
    for trait in [*traits, "site", "truth", "domain"]:
        who = who + "/" + _escaped(table[trait])
    number = table.assign(who=who).groupby(["recipe", "seed", "task", "split", "who"]).cumcount()
    unit = who + "/" + table["split"] + "/" + number.astype(str)
    if table["image"].isna().all():
        return table.assign(unit=unit)
    return table.assign(unit=("image/" + table["image"]).where(table["image"].notna(), "row/" + unit))


def _escaped(values: pd.Series) -> pd.Series:
    """Text in which "/" cannot be mistaken for the mark between two parts; "" where nothing is known."""
    text = values.astype(object).where(values.notna(), "")
    return by_cell(text.map(str), lambda cell: cell.replace("\\", "\\\\").replace("/", "\\/"))
