"""Warnings about patients, sites and captions: spellings, contradicting values, byte-identical files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations

import pandas as pd

from equigen.cohort.levels import AttributeSpec, unknown_warnings
from equigen.cohort.prompts import prompt_columns
from equigen.cohort.spec import CohortSpec, normalize_cell
from equigen.cohort.tables.values import means_unknown, spelling_warnings
from equigen.errors import Problem

EXAMPLES = 3  # patients or files named in a message
MAX_STEP = 1  # bins of an ordered attribute (an age, say) that one patient may move by over the years
MAX_YEARS = 20.0  # between two images of one patient; more suggests a wrong id rather than a follow-up
MAX_AGE = 130.0  # years; attributes with larger bins are no ages


def contradictions(
    frame: pd.DataFrame,
    attributes: Mapping[str, AttributeSpec],
    ordered: Iterable[str] = (),
    ages: Mapping[str, pd.Series] | None = None,
) -> list[Problem]:
    """Return a problem for each attribute, and for the site, that differs within one patient.

    For ``ordered`` attributes (numbers cut into bins, such as an age) only groups more than one apart count.
    Unknown values contradict nothing. ``ages``: for attributes made from an age in years, the ages [N] of the frame's
    rows, NaN where unknown; ages of one patient that span more than ``MAX_YEARS`` are a problem unless the groups
    contradict already.
    """
    ordered_names = set(ordered)
    problems = []
    for name, spec in attributes.items():
        ranks = {level: rank for rank, level in enumerate(spec.levels)} if name in ordered_names else None
        problems += _differing_values(frame, f"attr.{name}", f"different {name}", ranks)
        if ages is not None and name in ages:
            problems += _age_spans(frame.assign(age=ages[name]), name, ranks)
    return problems + _differing_values(frame, "site", "different sites", None)


def _differing_values(frame: pd.DataFrame, column: str, difference: str, ranks: dict[str, int] | None) -> list[Problem]:
    """Return the problem of patients with contradicting values of a column."""
    complete = frame[frame["patient"].notna() & frame[column].notna()]
    values = complete.groupby("patient", sort=True)[column].agg(lambda cells: list(dict.fromkeys(cells)))
    bad = values[values.map(lambda cells: _is_contradiction(cells, ranks))]
    return _patients_problem({str(patient): " and ".join(cells) for patient, cells in bad.items()}, difference)


def _age_spans(frame: pd.DataFrame, name: str, ranks: dict[str, int] | None) -> list[Problem]:
    """Patients whose ages span more than ``MAX_YEARS`` years, without those of contradicting groups."""
    complete = frame[frame["patient"].notna() & frame["age"].notna()]
    patients = complete.groupby("patient", sort=True)
    span = patients["age"].agg(["min", "max"])
    cells = patients[f"attr.{name}"].agg(lambda values: list(dict.fromkeys(values.dropna())))
    contradicting = cells.map(lambda groups: _is_contradiction(groups, ranks)).astype(bool)
    wide = span[(span["max"] - span["min"] > MAX_YEARS) & ~contradicting]
    ranges = {str(patient): f"{row['min']:g} to {row['max']:g}" for patient, row in wide.iterrows()}
    return _patients_problem(ranges, f"values of {name} more than {MAX_YEARS:g} years apart")


def _patients_problem(texts: Mapping[str, str], difference: str) -> list[Problem]:
    """Return one problem with the number of patients and the values of the first; [] without patients."""
    if not texts:
        return []
    items = list(texts.items())
    examples = ", ".join(f"'{patient}' ({cells})" for patient, cells in items[:EXAMPLES])
    rest = f" and {len(items) - EXAMPLES} more" if len(items) > EXAMPLES else ""
    count = "1 patient has" if len(items) == 1 else f"{len(items)} patients have"
    mend = "check whether one id stands for several people, or a cell is wrong; each row counts in the group it names"
    return [Problem(f"{count} {difference}: {examples}{rest}", mend)]


def _is_contradiction(cells: list[str], ranks: dict[str, int] | None) -> bool:
    """Whether different values of one patient contradict: any two, or ranks more than ``MAX_STEP`` apart."""
    if ranks is None:
        return len(cells) > 1
    return any(abs(ranks[first] - ranks[second]) > MAX_STEP for first, second in combinations(cells, 2))


def same_files(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of ``first`` whose file is byte-identical to one of ``second``, named in ``same_as``.

    Both have ``image`` (or ``path``) and ``sha256``; empty hashes match nothing.
    """
    names = {sha256: image for sha256, image in zip(second["sha256"], _image_names(second), strict=True) if sha256}
    mask = first["sha256"].map(lambda sha256: bool(sha256) and sha256 in names).astype(bool)
    rows = first[mask]
    return rows.assign(same_as=[names[sha256] for sha256 in rows["sha256"]])


def _image_names(frame: pd.DataFrame) -> pd.Series:
    return frame["image" if "image" in frame.columns else "path"]


def same_files_note(first: pd.DataFrame, second: pd.DataFrame, first_name: str, second_name: str) -> str:
    """Return a sentence with the number of files of ``first`` that are byte-identical to files of ``second``, or "".

    ``first_name`` and ``second_name`` describe the two: "generated images", "real images".
    """
    rows = same_files(first, second)
    if rows.empty:
        return ""
    pairs = list(zip(_image_names(rows), rows["same_as"], strict=True))[:EXAMPLES]
    examples = ", ".join(f"'{name}' is '{copy}'" for name, copy in pairs)
    rest = f" and {len(rows) - EXAMPLES} more" if len(rows) > EXAMPLES else ""
    return f"{len(rows)} of {len(first)} {first_name} are byte for byte {second_name}: {examples}{rest}"


DIGITS = 15  # of a number that a spreadsheet holds


def name_warnings(table: pd.DataFrame, spec: CohortSpec) -> list[Problem]:
    """Return warnings about patients, sites and captions: spellings, missing values, ids cut to 15 digits."""
    missing = spec.missing_codes
    warnings: list[Problem] = []
    for column in prompt_columns(spec.prompt):
        unknown = [cell.strip() for cell in table[column] if means_unknown(cell, missing)]
        warnings += unknown_warnings(unknown, "the prompt", column)
    if spec.patient is not None:
        column = spec.patient.column
        ids = [cell.strip(" ") for cell in table[column] if not means_unknown(cell, missing)]
        warnings += spelling_warnings(ids, "the patient", column, normalize_cell)
        long = {name for name in ids if len(name) > DIGITS and name.isdigit()}
        if len(long) > 1 and all(set(name[DIGITS:]) == {"0"} for name in long):
            message = f"the patient: {len(long)} long numbers end in zeros from digit {DIGITS + 1} on"
            warnings.append(Problem(message, "a spreadsheet may have cut them: save the column as text", column=column))
    if spec.site is not None:
        sites = [cell.strip(" ") for cell in table[spec.site]]
        warnings += unknown_warnings([site for site in sites if means_unknown(site, missing)], "the site", spec.site)
        complete = [site for site in sites if not means_unknown(site, missing)]
        warnings += spelling_warnings(complete, "the site", spec.site, normalize_cell)
    return warnings
