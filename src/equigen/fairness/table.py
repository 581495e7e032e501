"""Predictions as a checked table, whether this software made them or somebody else did."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pandas as pd

from equigen.errors import InputError, Problem

MAX_LEVELS = 30  # more numeric levels than this is a measurement, not a grouping
DOMAINS = ("all", "id", "ood")
READERS = {".parquet": None, ".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class Columns:
    """Names of the columns in the table at hand; ``site`` may be absent when it has its default name."""

    truth: str = "truth"
    score: str = "probability"
    patient: str = "patient"
    site: str | None = "site"


def read_predictions(
    predictions: pd.DataFrame | str | Path, groups: list[str] | None, columns: Columns
) -> tuple[pd.DataFrame, list[str]]:
    """Predictions under the names of predictions.parquet, checked, and the attributes to audit.

    Absent columns become: recipe "model", seed 0, task "task", split "test". ``unit``
    names the thing that was scored: the image, or without one the patient, groups and a running number, so
    that the same row is found again under another recipe. Rows are in an order that does not depend on the
    order they came in. A missing group is None: unknown, and of no group.

    Raises:
        InputError: with every problem found: a missing column (and the nearest name), a truth that is not 0
            or 1, a score that is missing or outside [0, 1], an empty patient, an image scored twice, an
            attribute with too many numeric levels.

    """
    raw = _load(predictions, columns)
    names = _attributes(raw, groups)
    _require(raw, names, columns)
    rows = np.arange(len(raw)) + 2
    site = columns.site if columns.site in raw.columns else None
    table = pd.DataFrame(
        {
            "recipe": _text(raw, "recipe", "model"),
            "seed": raw["seed"].to_numpy() if "seed" in raw else 0,
            "task": _text(raw, "task", "task"),
            "split": _text(raw, "split", "test"),
            "patient": _labels(raw[columns.patient]),
            "site": _labels(raw[site]) if site else None,
            "domain": _labels(raw["domain"]) if "domain" in raw else None,
            "truth": pd.to_numeric(raw[columns.truth], errors="coerce").to_numpy(dtype=float),
            "probability": pd.to_numeric(raw[columns.score], errors="coerce").to_numpy(dtype=float),
            "image": _labels(raw["image"]) if "image" in raw else None,
            **{f"attr.{name}": _labels(raw[column]) for name, column in names.items()},
        },
        index=rows,
    )
    _check(table, raw, names, columns)
    return _ordered(table[table["split"].isin(["val", "test"])], list(names)), list(names)


def _load(predictions: pd.DataFrame | str | Path, columns: Columns) -> pd.DataFrame:
    """The table itself; patients of a text file stay text (007 is not 7)."""
    if isinstance(predictions, pd.DataFrame):
        return predictions.reset_index(drop=True)
    path = Path(predictions)
    if not path.is_file():
        raise InputError(
            "There is no such predictions file.",
            [Problem("not found", "give the path of a csv, tsv or parquet file", file=str(path))],
        )
    if path.suffix.lower() not in READERS:
        raise InputError(
            "Predictions come as csv, tsv or parquet.",
            [Problem(f"the suffix is '{path.suffix}'", "save it as one of these", file=str(path))],
        )
    separator = READERS[path.suffix.lower()]
    if separator is None:
        return pd.read_parquet(path)
    return pd.read_csv(path, sep=separator, dtype={columns.patient: str, "image": str})


def _attributes(raw: pd.DataFrame, groups: list[str] | None) -> dict[str, str]:
    """Attribute name -> column; all ``attr.*`` columns when none is named."""
    if groups is None:
        found = [column for column in raw.columns if str(column).startswith("attr.")]
        if not found:
            problem = Problem(
                "no column starts with 'attr.' and no groups were named",
                "name columns as groups, or give an empty list for the overall numbers alone",
            )
            raise InputError("Which groups should be compared?", [problem])
        return {column.removeprefix("attr."): column for column in found}
    plain = [name.removeprefix("attr.") for name in groups]
    return {name: f"attr.{name}" if f"attr.{name}" in raw.columns else name for name in plain}


def _require(raw: pd.DataFrame, names: dict[str, str], columns: Columns) -> None:
    """Every named column is there and the table is not empty."""
    wanted = [columns.truth, columns.score, columns.patient, *names.values()]
    wanted += [columns.site] if columns.site not in (None, "site") else []
    have = [str(column) for column in raw.columns]
    problems = []
    for column in wanted:
        if column not in have:
            near = get_close_matches(str(column), have, n=1, cutoff=0.4)
            hint = f"did you mean '{near[0]}'?" if near else f"columns are {', '.join(have[:12])}"
            problems.append(Problem("there is no such column", hint, column=column))
    if not problems and len(raw) == 0:
        problems.append(Problem("the table has no rows", "check how it was written"))
    if problems:
        raise InputError("The predictions table cannot be audited.", problems)


def _labels(values: pd.Series) -> pd.Series:
    """Values as text, None where missing or empty; 1.0 reads as '1'."""
    kept = values.astype(object).where(values.notna(), None)
    text = [None if value is None else _name(value) for value in kept]
    return pd.Series([value or None for value in text], dtype=object, index=np.arange(len(values)) + 2)


def _name(value: object) -> str:
    """Readable name of a level."""
    return (
        str(int(value))
        if isinstance(value, float | np.floating) and float(value).is_integer()
        else str(value).strip()
    )


def _text(raw: pd.DataFrame, column: str, default: str) -> pd.Series:
    """A text column, or its default where the table has none."""
    index = np.arange(len(raw)) + 2
    return raw[column].astype(str).set_axis(index) if column in raw else pd.Series(default, index=index)


def _check(table: pd.DataFrame, raw: pd.DataFrame, names: dict[str, str], columns: Columns) -> None:
    """Raise with every bad cell."""
    problems = _bad_cells(table, raw, columns) + _bad_structure(table)
    for name, column in names.items():
        levels = table[f"attr.{name}"].dropna().unique()
        numeric = pd.to_numeric(pd.Series(levels, dtype=object), errors="coerce").notna().all()
        if len(levels) > MAX_LEVELS and numeric:
            problems.append(
                Problem(
                    f"{len(levels)} different numbers are no groups", "cut it into bins first", column=column
                )
            )
    if problems:
        raise InputError("The predictions table cannot be audited.", problems)


def _bad_cells(table: pd.DataFrame, raw: pd.DataFrame, columns: Columns) -> list[Problem]:
    """Truth, score and patient, row by row."""
    bad = {
        columns.truth: (~table["truth"].isin([0.0, 1.0]), "write 1 for the condition and 0 for its absence"),
        columns.score: (
            ~table["probability"].between(0, 1),
            "give a probability; put a logit through the sigmoid",
        ),
        columns.patient: (
            table["patient"].isna(),
            "name the patient, or the image where nothing else is known",
        ),
    }
    problems = []
    for column, (mask, mend) in bad.items():
        for row in table.index[mask]:
            value = raw[column].iloc[row - 2]
            problems.append(
                Problem(
                    f"{value!r} is not usable" if pd.notna(value) else "nothing is given",
                    mend,
                    row=int(row),
                    column=column,
                )
            )
    return sorted(problems, key=lambda problem: problem.row or 0)


def _bad_structure(table: pd.DataFrame) -> list[Problem]:
    """Images scored twice, images of two patients or groups, splits and sites with names that mislead."""
    problems = []
    if not (table["split"] == "test").any():
        seen = ", ".join(sorted(table["split"].unique())[:5])
        problems.append(
            Problem(f"no row has split 'test' (there are: {seen})", "mark the rows to audit", column="split")
        )
    for name in sorted(set(table["site"].dropna()) & set(DOMAINS)):
        problems.append(Problem(f"a site cannot be called '{name}'", "rename it", column="site"))
    if table["image"].isna().all():
        return problems
    images = table["image"].astype(str).to_dict()
    twice = table.duplicated(["recipe", "seed", "task", "image"])
    problems += [
        Problem(
            f"'{images[row]}' was scored before for the same recipe, seed and task",
            "keep one row",
            row=int(row),
            column="image",
        )
        for row in table.index[twice]
    ]
    traits = ["patient", "site", *table.columns[table.columns.str.startswith("attr.")]]
    seen_traits = table.drop_duplicates(["image", *traits])
    for row in seen_traits.index[seen_traits.duplicated("image")]:
        problems.append(
            Problem(
                f"'{images[row]}' has another patient, site or group than before",
                "give an image the same traits in every row",
                row=int(row),
                column="image",
            )
        )
    return problems


def _ordered(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Rows in canonical order with their ``unit``."""
    traits = [f"attr.{name}" for name in names]
    keys = ["recipe", "seed", "task", "image", "patient", *traits, "site", "truth", "probability"]
    table = table.sort_values(
        keys, key=lambda column: column.fillna("").astype(str) if column.dtype == object else column
    )
    table = table.reset_index(drop=True).astype({"truth": np.int64})
    if table["image"].notna().all():
        return table.assign(unit=table["image"])
    who = table["patient"].astype(str)
    for trait in [*traits, "site", "truth"]:
        who = who + "/" + table[trait].astype(str)
    number = table.assign(who=who).groupby(["recipe", "seed", "task", "split", "who"]).cumcount()
    return table.assign(unit=who + "/" + table["split"] + "/" + number.astype(str))
