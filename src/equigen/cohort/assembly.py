"""Assemble a cohort from its specification: read the table, apply the roles, check images and split patients."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from equigen.cohort.checks import (
    check_images,
    dim_warnings,
    identical_across,
    identical_warnings,
    patient_units,
    split_conflicts,
)
from equigen.cohort.images.metadata import MEMBERS, add_members
from equigen.cohort.images.paths import FOLDER, ImageLocations, locate_images
from equigen.cohort.levels import AttributeSpec, LabelSpec, apply_attribute, apply_label
from equigen.cohort.persons import MAX_AGE, contradictions, name_warnings
from equigen.cohort.prompts import prompt_columns
from equigen.cohort.spec import SPLITS, CohortSpec, PatientRole, normalize_cell
from equigen.cohort.splits import absent_levels, split_patients
from equigen.cohort.tables.reader import check_columns, read_table, table_notes
from equigen.cohort.tables.values import is_rounded, means_unknown
from equigen.errors import InputError, Problem, suggestion

TEXT_COLUMNS = ("image", "path", "sha256", "patient", "site", "split", "domain")


@dataclass
class CohortTable:
    """Checked frame of a cohort with its levels, the problems of rows left out, and warnings."""

    root: Path
    frame: pd.DataFrame
    labels: dict[str, LabelSpec]
    attributes: dict[str, AttributeSpec]
    quarantined: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class ReadOptions:
    """Options of reading: leave bad rows out, decode every image in full, show a progress bar."""

    quarantine: bool = False
    check_images: bool = True
    show_progress: bool = True


def assemble(spec: CohortSpec, base: Path, options: ReadOptions, table: pd.DataFrame | None = None) -> CohortTable:
    """Read the table (unless it is given), apply the roles, check images and leakage, split.

    With ``quarantine`` bad rows are left out and kept as problems; without it any problem is raised.

    Raises:
        InputError: with every problem found; in quarantine only with problems that no row can be blamed for,
            or when no row is left.

    """
    table = read_table(base / spec.table) if table is None else table.copy()
    check_columns(table, [role for role in spec.columns() if not _is_derived(*role)], spec.table)
    locations = locate_images(table, spec, base, options.show_progress)
    table[FOLDER] = locations.folders
    locations.problems += add_members(table, [column for _, column in spec.columns()], locations.paths)
    cohort, problems = _apply_roles(table, spec, locations)
    cohort.warnings = [*table_notes(table), *cohort.warnings]
    faults, remarks = _check_files(cohort.frame, spec, options)
    problems += faults
    problems += _leakage_problems(_sound(cohort.frame, problems, options.quarantine), spec)
    _refuse(spec, problems, options.quarantine)
    frame = _sound(cohort.frame, problems, True).reset_index(drop=True)
    if frame.empty:
        raise InputError(f"Cohort '{spec.name}' has no usable row.", problems)
    cohort.warnings += identical_warnings(frame) + remarks
    if spec.patient is not None:
        binned = [name for name, role in spec.attributes.items() if role.bins is not None]
        cohort.warnings += contradictions(frame, cohort.attributes, binned, _ages(table, frame, spec))
    in_distribution = frame["domain"] == "id"
    if spec.split.column is None and in_distribution.any():
        rows = frame[in_distribution]
        units = rows["patient"].map(patient_units(rows))
        frame.loc[in_distribution, "split"], remarks = split_patients(units, spec.split.shares, spec.split.seed)
        cohort.warnings += remarks + absent_levels(frame[in_distribution])
    cohort.frame, cohort.quarantined = normalize_text_columns(frame), problems
    return cohort


def _ages(table: pd.DataFrame, frame: pd.DataFrame, spec: CohortSpec) -> dict[str, pd.Series]:
    """Return ages in years [N] by attribute, NaN where unknown: numbers with bins between 0 and ``MAX_AGE``."""
    ages = {}
    for name, role in spec.attributes.items():
        if role.bins is not None and role.bins[0] >= 0 and role.bins[-1] <= MAX_AGE:
            cells = table.loc[frame["row"], role.column].map(normalize_cell)
            numbers = pd.to_numeric(cells, errors="coerce").set_axis(frame.index)
            ages[name] = numbers.where(frame[f"attr.{name}"].notna())
    return ages


def _is_derived(role: str, column: str) -> bool:
    """Whether a column is derived from the images' paths or files, once these are found."""
    return role != "image" and (column == FOLDER or column.startswith(MEMBERS))


def _sound(frame: pd.DataFrame, problems: Iterable[Problem], leave_out: bool) -> pd.DataFrame:
    """Return the rows without a problem if ``leave_out``, else all rows."""
    bad = {problem.row for problem in problems}
    return frame[~frame["row"].isin(bad)] if leave_out else frame


def _refuse(spec: CohortSpec, problems: list[Problem], quarantine: bool) -> None:
    """Raise ``InputError`` for problems of no row, and without quarantine for any problem."""
    fatal = [problem for problem in problems if problem.row is None]
    if fatal or (problems and not quarantine):
        ordered = fatal + sorted((item for item in problems if item.row is not None), key=lambda item: item.row or 0)
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise InputError(f"Cohort '{spec.name}' ({spec.table}) has {count}.", ordered)


def normalize_text_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with text columns as plain objects and None for unknown (never NaN)."""
    columns = {}
    for name in frame.columns:
        values = frame[name]
        columns[name] = values if name == "row" else values.astype(object).where(values.notna(), None)
    return pd.DataFrame(columns, index=frame.index).astype({"row": "int64"})


def _apply_roles(table: pd.DataFrame, spec: CohortSpec, locations: ImageLocations) -> tuple[CohortTable, list[Problem]]:
    """Return the frame with a column for every role, before image files are read, and the problems of rows."""
    missing = spec.missing_codes
    problems = list(locations.problems)
    columns: dict[str, list[str | None]] = {
        "image": [*locations.images],
        "path": [*locations.paths],
        "sha256": [""] * len(table),
    }
    columns["patient"] = _patients(table, spec.patient, locations.images, missing, problems)
    columns["site"] = _sites(table, spec, missing, problems)
    columns["domain"] = ["ood" if site is not None and site in spec.split.ood else "id" for site in columns["site"]]
    columns["split"] = _column_splits(table, spec, columns["domain"], problems)
    labels, attributes = {}, {}
    warnings = name_warnings(table, spec)
    for name, label in spec.labels.items():
        applied, labels[name] = apply_label(table[label.column], name, label, missing)
        columns[f"label.{name}"], problems = applied.values, problems + applied.problems
        warnings += applied.warnings
    for name, attribute in spec.attributes.items():
        applied, attributes[name] = apply_attribute(table[attribute.column], name, attribute, missing)
        columns[f"attr.{name}"], problems = applied.values, problems + applied.problems
        warnings += applied.warnings
    for caption in prompt_columns(spec.prompt):
        columns["prompt"] = [
            None if means_unknown(normalize_cell(cell), missing) else str(cell).strip() for cell in table[caption]
        ]
    frame = pd.DataFrame(
        {"row": table.index.to_numpy()} | {key: pd.Series(values, dtype=object) for key, values in columns.items()}
    )
    order = ["row", *TEXT_COLUMNS, *(name for name in frame.columns if "." in name or name == "prompt")]
    return CohortTable(locations.root, frame[order], labels, attributes, warnings=warnings), problems


def _patients(
    table: pd.DataFrame,
    role: PatientRole | None,
    images: list[str],
    missing: frozenset[str],
    problems: list[Problem],
) -> list[str | None]:
    """Return the patient of each row; without the role every image is its own patient."""
    if role is None:
        return [image or None for image in images]
    patients: list[str | None] = []
    for row, cell in zip(table.index, table[role.column], strict=True):
        text = normalize_cell(cell)
        match = re.search(role.pattern, text) if role.pattern is not None else None
        if is_rounded(text):
            patients.append(None)
            message = f"the patient '{text}' is a number that a spreadsheet rounded, so patients may share it"
            mend = "save the table anew with this column as text"
            problems.append(Problem(message, mend, row=int(row), column=role.column))
        elif means_unknown(text, missing):
            patients.append(None)
            mend = "say whose image it is, or leave the row out"
            problems.append(Problem(f"the patient is unknown ('{text}')", mend, row=int(row), column=role.column))
        elif role.pattern is not None and match is None:
            patients.append(None)
            mend = "mend the cell or patient.pattern"
            problems.append(
                Problem(
                    f"'{text}' does not match the pattern '{role.pattern}'",
                    mend,
                    row=int(row),
                    column=role.column,
                )
            )
        else:
            patients.append(match.group(1 if match.re.groups else 0) if match is not None else text)
    return patients


def _sites(table: pd.DataFrame, spec: CohortSpec, missing: frozenset[str], problems: list[Problem]) -> list[str | None]:
    """Return the site of each row; an unknown site is a problem only if sites define the test set."""
    if spec.site is None:
        return [None] * len(table)
    cells = [normalize_cell(cell) for cell in table[spec.site]]
    sites = sorted({cell for cell in cells if not means_unknown(cell, missing)})
    for site in spec.split.ood:
        if site not in sites:
            problems.append(
                Problem(f"split.ood names the unknown site '{site}'", suggestion(site, sites), column=spec.site)
            )
    for row, cell in zip(table.index, cells, strict=True):
        if spec.split.ood and means_unknown(cell, missing):
            message = "the site is unknown, so the image is neither in nor out of distribution"
            problems.append(Problem(message, "fill in the site, or leave the row out", row=int(row), column=spec.site))
    return [None if means_unknown(cell, missing) else cell for cell in cells]


def _column_splits(
    table: pd.DataFrame, spec: CohortSpec, domains: list[str | None], problems: list[Problem]
) -> list[str | None]:
    """Return the split of each row by the user's column, else None; images of OOD sites are always test."""
    role = spec.split
    if role.column is None:
        return ["test" if domain == "ood" else None for domain in domains]
    values = role.values if role.values is not None else {name: name for name in SPLITS}
    splits: list[str | None] = []
    for row, cell, domain in zip(table.index, table[role.column], domains, strict=True):
        text = normalize_cell(cell)
        splits.append("test" if domain == "ood" else values.get(text))
        if splits[-1] is None:
            mend = f"{suggestion(text, values)} or map it with split.values to train, val or test"
            problems.append(Problem(f"unknown split '{text}'", mend, row=int(row), column=role.column))
    return splits


def _check_files(frame: pd.DataFrame, spec: CohortSpec, options: ReadOptions) -> tuple[list[Problem], list[Problem]]:
    """Fill in ``sha256``; returns the problems of images that cannot be used, and warnings of near-empty images."""
    column = "+".join(spec.image.columns)
    existing = frame.index[frame["path"] != ""]
    problems = []
    checks = check_images(list(frame.loc[existing, "path"]), options.check_images, options.show_progress)
    frame["sha256"] = frame["sha256"].astype(object)
    frame.loc[existing, "sha256"] = pd.Series([item.sha256 for item in checks], index=existing, dtype=object)
    for index, item in zip(existing, checks, strict=True):
        if item.fault is not None:
            row, image = frame.loc[index, ["row", "image"]]
            problems.append(item.fault.problem(f"'{image}'", int(row), column))
    return problems, dim_warnings(list(frame.loc[existing, "image"]), checks)


def _leakage_problems(frame: pd.DataFrame, spec: CohortSpec) -> list[Problem]:
    """Return problems of patients and images in both domains, or in several splits of the user's column."""
    problems = []
    if spec.patient is not None and spec.split.ood and spec.site is not None:
        mend = "a patient belongs to one side: mend the table, or leave the patient out"
        problems += split_conflicts(frame, "domain", spec.site, "both in and out of distribution", mend)
    if spec.patient is not None and spec.split.column is not None:
        mend = "put all rows of the patient into one split, or let split.fractions do it"
        problems += split_conflicts(frame, "split", spec.split.column, "on several sides of the split", mend)
    frame = _sound(frame, problems, True)
    column = spec.split.column if spec.split.column is not None else spec.site
    if column is not None:
        subset = frame.assign(side=frame["domain"] + "/" + frame["split"].fillna("ours"))
        problems += identical_across(subset, "side", column, "keep one copy, or put the copies on one side")
    return problems


def set_root(frame: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Return the frame with the images' paths below another root."""
    return frame.assign(
        path=pd.Series([str(root / image) for image in frame["image"]], index=frame.index, dtype=object)
    )


def parse_problem(values: dict[str, object]) -> Problem:
    """Return the problem of a JSON mapping."""
    return replace(Problem("", ""), **values)  # type: ignore[arg-type]
