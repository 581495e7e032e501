"""Reading and checking of tables of predictions, of this package or of others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pandas as pd
from pyarrow import ArrowException

from equigen.cohort import (
    UNKNOWN_WORDS,
    means_unknown,
    normalize_cell,
    read_table,
    spelling_warnings,
    table_notes,
    unknown_warnings,
    unknown_words,
)
from equigen.errors import InputError, Problem, suggestion
from equigen.fairness.checks import find_problems
from equigen.fairness.parsing import (
    clip_rounding,
    map_cells,
    parse_names,
    parse_numbers,
    parse_seeds,
    parse_split,
    parse_truth,
)

TITLE = "The predictions table cannot be audited."
DEFAULTS = {"recipe": "model", "seed": "0", "task": "task", "split": "test"}
ABSENT = unknown_words(["", "NaN", "NA", "N/A", "<NA>", "NaT"])  # of a recipe or task: "none" may be a name there
JOIN = "|"  # between several findings in one cell


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns; ``site`` may be absent under its default name.

    ``positive``: the word in the column of the truth that means 1; None reads 0, 1, true and false.
    """

    truth: str = "truth"
    score: str = "probability"
    patient: str = "patient"
    site: str | None = "site"
    positive: str | None = None


@dataclass(frozen=True)
class Predictions:
    """Checked predictions, the attributes to audit, and notes on the reading of unusual cells."""

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
    """Checked predictions with the columns of predictions.parquet, and the attributes to audit.

    Defaults of absent or empty columns: recipe "model", seed 0, task "task", split "test". ``unit`` identifies the
    scored image, or without image names the patient, groups and a running number, so that rows of different recipes
    can be matched. The order of rows depends neither on the order of the input's rows nor on that of its columns. A
    missing group is None: unknown, and of no group.

    Args:
        predictions: table, or path of a csv, tsv or parquet file.
        groups: names of attributes; None takes all ``attr.*``, in the order of their names.
        columns: names of the columns.
        unknown: words that mean "not known" in a group, in addition to ``UNKNOWN_WORDS``.
        only: column to levels; rows of other levels are left out, and counted in the notes.

    Raises:
        InputError: with every problem: a missing column (and the nearest name), a truth that is not 0 or 1, a score
            that is missing or outside [0, 1], an empty patient, an unknown split, a recipe or task that is missing in
            some rows, an image scored twice, an attribute with too many numeric levels, a reserved name of a group or
            site.

    """
    raw = _load(predictions)
    names = _attribute_columns(raw, [groups] if isinstance(groups, str) else groups)
    unknowns = unknown_words([*UNKNOWN_WORDS, *(normalize_cell(word) for word in unknown), *unknown])
    _check_columns(raw, names, columns, only or {})
    notes = [f"{note.message} ({note.mend})" for note in table_notes(raw)]
    raw, selection_notes = _select_rows(raw, only or {}, unknowns)
    notes += selection_notes
    table, problems = _parse_table(raw, names, columns, unknowns)
    problems += find_problems(table, raw, names, columns)
    if problems:
        raise InputError(TITLE, sorted(problems, key=lambda problem: problem.row or 0))
    notes += _reading_notes(table, raw, names, columns, unknowns)
    table["probability"] = clip_rounding(table["probability"])[0]
    return Predictions(_with_units(table[table["split"].isin(["val", "test"])], list(names)), list(names), notes)


def _load(predictions: pd.DataFrame | str | Path) -> pd.DataFrame:
    """The table as text by row number; "" in empty cells."""
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
    except (ArrowException, ValueError) as error:  # invalid text in a Parquet file
        problem = Problem(f"holds cells that cannot be read ({ascii(error)[:80]})", "write it again", file=str(path))
        raise InputError("The table cannot be read.", [problem]) from error


def _attribute_columns(raw: pd.DataFrame, groups: Sequence[str] | None) -> dict[str, str]:
    """Column of each attribute name; of all ``attr.*`` columns where ``groups`` is None."""
    if groups is None:
        attributes = sorted(column for column in raw.columns if column.startswith("attr."))
        if not attributes:
            problem = Problem(
                "no column starts with 'attr.' and no groups were named",
                'add --groups sex,race, or --groups "" for the overall numbers alone (in Python groups=[...])',
            )
            raise InputError("Which groups should be compared?", [problem])
        return {column.removeprefix("attr."): column for column in attributes}
    plain = [name.removeprefix("attr.") for name in groups]
    return {name: f"attr.{name}" if f"attr.{name}" in raw.columns else name for name in plain}


def _check_columns(
    raw: pd.DataFrame, names: dict[str, str], columns: Columns, only: Mapping[str, Sequence[str]]
) -> None:
    """Raise InputError for missing columns, the attribute name ``*`` or an empty table."""
    required = [columns.truth, columns.score, columns.patient, *names.values()]
    required += [columns.site] if columns.site not in (None, "site") else []
    required += [name for name in only if _column(raw, name) is None]
    have = list(raw.columns)
    problems = []
    for column in dict.fromkeys(required):
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
    """The column of a label or attribute; None without one."""
    return next((column for column in (name, f"attr.{name}", f"label.{name}") if column in raw.columns), None)


def _select_rows(
    raw: pd.DataFrame, only: Mapping[str, Sequence[str]], unknowns: frozenset[str]
) -> tuple[pd.DataFrame, list[str]]:
    """Rows with one of the given levels in every given column, and a note with the number of other rows."""
    inside = np.ones(len(raw), dtype=bool)
    problems = []
    for name, levels in only.items():
        column = str(_column(raw, name))
        cells = parse_names(raw[column], unknowns)
        requested = [normalize_cell(str(level)) for level in levels]
        present = sorted({level for cell in cells.dropna().unique() for level in cell.split(JOIN)})
        problems += [
            Problem(f"no row has '{level}'", suggestion(level, present), column=column)
            for level in requested
            if level not in present
        ]
        if not requested:
            problems.append(Problem("no level is named", f"there is: {', '.join(present[:12])}", column=column))
        inside &= [cell is not None and not set(requested).isdisjoint(cell.split(JOIN)) for cell in cells]
    conditions = ", ".join(f"{name} {' or '.join(map(str, levels))}" for name, levels in only.items())
    if only and not problems and not inside.any():
        problems.append(Problem(f"no row has {conditions} together", "name other levels"))
    if problems:
        raise InputError("The audit cannot be kept within these levels.", problems)
    notes = [f"only {conditions}: {(~inside).sum():,} of {len(raw):,} rows are left out"] if only else []
    return raw[inside], notes


def _parse_table(
    raw: pd.DataFrame, names: dict[str, str], columns: Columns, unknowns: frozenset[str]
) -> tuple[pd.DataFrame, list[Problem]]:
    """The table with standard column names and NaN for unreadable cells, and problems of partly empty columns."""
    default, problems = unknown_words(), []
    runs = {}
    for name, value in DEFAULTS.items():
        cells = parse_names(raw[name], ABSENT) if name in raw else None
        if cells is None or cells.isna().all():
            runs[name] = pd.Series(value, index=raw.index, dtype=object)
            continue
        for row in cells.index[cells.isna()]:
            mend = f"name the {name} in every row, or leave the column out: all rows are then '{value}'"
            problems.append(Problem("nothing is given", mend, row=int(row), column=name))
        runs[name] = cells.fillna(value)
    labels = {"patient": columns.patient, "site": columns.site, "domain": "domain", "image": "image"}
    missing = pd.Series(None, index=raw.index, dtype=object)
    table = pd.DataFrame(
        {
            "recipe": runs["recipe"],
            "seed": parse_seeds(runs["seed"]),
            "task": runs["task"],
            "split": map_cells(runs["split"], parse_split),
            **{name: parse_names(raw[role], default) if role in raw else missing for name, role in labels.items()},
            "truth": parse_truth(raw[columns.truth], columns.positive),
            "probability": parse_numbers(raw[columns.score]),
            **{f"attr.{name}": parse_names(raw[column], unknowns) for name, column in names.items()},
        },
        index=raw.index,
    )
    empty = map_cells(raw[columns.truth], lambda cell: means_unknown(cell, default))
    table["truth"] = table["truth"].mask(empty.to_numpy(dtype=bool))

    def domain(name: str) -> str | None:
        return name.casefold() if name.casefold() in {"id", "ood"} else name or None

    table["domain"] = map_cells(table["domain"].fillna(""), domain)
    return table, problems


def _reading_notes(
    table: pd.DataFrame, raw: pd.DataFrame, names: dict[str, str], columns: Columns, unknowns: frozenset[str]
) -> list[str]:
    """Notes on empty columns, words that mean unknown, rows left out, and scores changed by rounding."""
    notes = [
        f"column '{name}' is empty: every row is '{value}'"
        for name, value in DEFAULTS.items()
        if name in raw and parse_names(raw[name], ABSENT).isna().all()
    ]
    training = int((table["split"] == "train").sum())
    notes += [f"{training:,} rows of split 'train' are left out"] if training else []
    count = clip_rounding(table["probability"])[1]
    notes += [f"{count:,} scores were outside [0, 1] by rounding and are taken as 0 or 1"] if count else []
    if columns.positive is not None:
        negatives = sorted({normalize_cell(cell) for cell in raw.loc[table["truth"] == 0, columns.truth]})
        zero = f"{', '.join(negatives[:6])}{', ...' if len(negatives) > 6 else ''}"
        notes.append(f"truth: '{normalize_cell(columns.positive)}' is 1, {zero} is 0")
    for name, column in names.items():
        spelled = raw.loc[table[f"attr.{name}"].isna(), column].str.strip()
        notes += [warning.message for warning in unknown_warnings(sorted(spelled), name, column)]
    for name in ("site", "domain"):
        count = int(table[name].isna().sum())
        if count and table[name].notna().any():
            notes.append(f"{count:,} rows of unknown {name} are in the rows of no {name}")
    roles = {"patient": columns.patient, "site": columns.site, "image": "image"} | names
    if columns.positive is not None:
        roles["truth"] = columns.truth
    for name, role in [*roles.items(), *((name, name) for name in (*DEFAULTS, "domain"))]:
        if role in raw and name != "split":
            counts = sorted(Counter(raw[role].str.strip()).items())
            cells = [cell for cell, count in counts if not means_unknown(cell, unknowns) for _ in range(count)]
            notes += [warning.message for warning in spelling_warnings(cells, name, str(role), normalize_cell)]
    domains = sorted(set(table["domain"].dropna()) - {"id", "ood"})
    if domains:
        quoted = ", ".join(f"'{name}'" for name in domains[:6]) + (", ..." if len(domains) > 6 else "")
        notes.append(f"domain: {quoted} is shown under its own name, neither id nor ood")
    unnamed = int(table["image"].isna().sum())
    if unnamed and table["image"].notna().any():
        notes.append(f"{unnamed:,} rows without an image name count as images of their own")
    return notes


def _with_units(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Rows in canonical order, with the column ``unit``."""
    traits = [f"attr.{name}" for name in sorted(names)]
    keys = ["recipe", "seed", "task", "image", "patient", *traits, "site", "split", "domain", "truth", "probability"]
    table = table.sort_values(
        keys, key=lambda column: column.fillna("").astype(str) if column.dtype == object else column
    )
    table = table.reset_index(drop=True).astype({"truth": np.int64})
    if table["image"].notna().all():
        return table.assign(unit=table["image"])
    description = _escaped(table["patient"])
    for trait in [*traits, "site", "truth", "domain"]:
        description = description + "/" + _escaped(table[trait])
    keys = ["recipe", "seed", "task", "split", "description"]
    number = table.assign(description=description).groupby(keys).cumcount()
    unit = description + "/" + table["split"] + "/" + number.astype(str)
    if table["image"].isna().all():
        return table.assign(unit=unit)
    return table.assign(unit=("image/" + table["image"]).where(table["image"].notna(), "row/" + unit))


def _escaped(values: pd.Series) -> pd.Series:
    """Text with escaped "/", which separates fields; "" where unknown."""
    text = values.astype(object).where(values.notna(), "")
    return map_cells(text.map(str), lambda cell: cell.replace("\\", "\\\\").replace("/", "\\/"))
