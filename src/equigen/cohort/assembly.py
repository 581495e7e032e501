"""From a specification to a checked frame: every problem is found before any is told."""

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
    joined_patients,
    split_conflicts,
)
from equigen.cohort.identifiers import name_warnings
from equigen.cohort.images.metadata import MEMBERS, add_members
from equigen.cohort.images.paths import FOLDER, Located, locate_images
from equigen.cohort.levels import AttributeSpec, LabelSpec, apply_attribute, apply_label, is_missing
from equigen.cohort.persons import OLDEST, contradictions
from equigen.cohort.prompts import prompt_columns
from equigen.cohort.spec import SPLITS, CohortSpec, PatientRole, normalize_cell, suggestion
from equigen.cohort.splits import absent_levels, split_patients
from equigen.cohort.tables.reader import check_columns, read_table, table_notes
from equigen.cohort.tables.spelling import is_rounded
from equigen.errors import InputError, Problem

TEXT_COLUMNS = ("image", "path", "sha256", "patient", "site", "split", "domain")


@dataclass
class Assembled:
    """A checked frame, its levels, what was left out and what a reader should know."""

    root: Path
    frame: pd.DataFrame
    labels: dict[str, LabelSpec]
    attributes: dict[str, AttributeSpec]
    quarantined: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class Reading:
    """How to read: leave bad rows out, decode every image in full, show a progress bar."""

    quarantine: bool = False
    check_images: bool = True
    show_progress: bool = True


def assemble(spec: CohortSpec, base: Path, reading: Reading, table: pd.DataFrame | None = None) -> Assembled:
    """Read the table (unless it is given), apply the roles, check images and leakage, split.

    With ``quarantine`` bad rows are left out and kept as problems; without it any problem is raised.

    Raises:
        InputError: with every problem found; in quarantine only with problems that no row can be blamed for,
            or when no row is left.

    """
    table = read_table(base / spec.table) if table is None else table.copy()
    check_columns(table, [role for role in spec.columns() if not _is_made(*role)], spec.table)
    located = locate_images(table, spec, base, reading.show_progress)
    table[FOLDER] = located.folders
    located.problems += add_members(table, [column for _, column in spec.columns()], located.paths)
    found, problems = _apply_roles(table, spec, located)
    found.warnings = [*table_notes(table), *found.warnings]
    faults, remarks = _check_files(found.frame, spec, reading)
    problems += faults
    problems += _leaks(_sound(found.frame, problems, reading.quarantine), spec)
    _refuse(spec, problems, reading.quarantine)
    frame = _sound(found.frame, problems, True).reset_index(drop=True)
    if frame.empty:
        raise InputError(f"Cohort '{spec.name}' has no usable row.", problems)
    found.warnings += identical_warnings(frame) + remarks
    if spec.patient is not None:
        binned = [name for name, role in spec.attributes.items() if role.bins is not None]
        found.warnings += contradictions(frame, found.attributes, binned, _ages(table, frame, spec))
    if spec.split.column is None:
        found.warnings += _split(frame, spec)
    found.frame, found.quarantined = as_text(frame), problems
    return found


def _ages(table: pd.DataFrame, frame: pd.DataFrame, spec: CohortSpec) -> dict[str, pd.Series]:
    """Ages in years [N] behind attributes, NaN where unknown: numbers whose bins all lie between 0 and ``OLDEST``."""
    ages = {}
    for name, role in spec.attributes.items():
        if role.bins is not None and role.bins[0] >= 0 and role.bins[-1] <= OLDEST:
            cells = table.loc[frame["row"], role.column].map(normalize_cell)
            numbers = pd.to_numeric(cells, errors="coerce").set_axis(frame.index)
            ages[name] = numbers.where(frame[f"attr.{name}"].notna())
    return ages


def _is_made(role: str, column: str) -> bool:
    """Whether a column is made from the images' places or files, once these are found."""
    return role != "image" and (column == FOLDER or column.startswith(MEMBERS))


def _sound(frame: pd.DataFrame, problems: Iterable[Problem], leave_out: bool) -> pd.DataFrame:
    """The rows that no problem names, or all of them."""
    bad = {problem.row for problem in problems}
    return frame[~frame["row"].isin(bad)] if leave_out else frame


def _refuse(spec: CohortSpec, problems: list[Problem], quarantine: bool) -> None:
    """Raise when something is wrong that leaving out rows does not mend, or that was not to be left out."""
    fatal = [problem for problem in problems if problem.row is None]
    if fatal or (problems and not quarantine):
        ordered = fatal + sorted(
            (item for item in problems if item.row is not None), key=lambda item: item.row or 0
        )
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise InputError(f"Cohort '{spec.name}' ({spec.table}) has {count}.", ordered)


def as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Text columns as plain objects with None for unknown (never NaN), whatever way the frame was read."""
    made = {}
    for name in frame.columns:
        values = frame[name]
        made[name] = values if name == "row" else values.astype(object).where(values.notna(), None)
    return pd.DataFrame(made, index=frame.index).astype({"row": "int64"})


def _apply_roles(table: pd.DataFrame, spec: CohortSpec, located: Located) -> tuple[Assembled, list[Problem]]:
    """The frame with every role's column, before files are looked into."""
    missing = spec.unknown_words
    problems = list(located.problems)
    columns: dict[str, list[str | None]] = {
        "image": [*located.images],
        "path": [*located.paths],
        "sha256": [""] * len(table),
    }
    columns["patient"] = _patients(table, spec.patient, located.images, missing, problems)
    columns["site"] = _sites(table, spec, missing, problems)
    columns["domain"] = [
        "ood" if site is not None and site in spec.split.ood else "id" for site in columns["site"]
    ]
    columns["split"] = _given_splits(table, spec, columns["domain"], problems)
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
        columns["prompt"] = _captions(table[caption], missing)
    frame = pd.DataFrame(
        {"row": table.index.to_numpy()}
        | {key: pd.Series(values, dtype=object) for key, values in columns.items()}
    )
    order = ["row", *TEXT_COLUMNS, *(name for name in frame.columns if "." in name or name == "prompt")]
    return Assembled(located.root, frame[order], labels, attributes, warnings=warnings), problems


def _patients(
    table: pd.DataFrame,
    role: PatientRole | None,
    images: list[str],
    missing: frozenset[str],
    problems: list[Problem],
) -> list[str | None]:
    """The patient of each row; without the role every image is its own."""
    if role is None:
        return [image or None for image in images]
    found: list[str | None] = []
    for row, cell in zip(table.index, table[role.column], strict=True):
        text = normalize_cell(cell)
        match = re.search(role.pattern, text) if role.pattern is not None else None
        if is_rounded(text):
            found.append(None)
            message = f"the patient '{text}' is a number that a spreadsheet rounded, so patients may share it"
            mend = "save the table anew with this column as text"
            problems.append(Problem(message, mend, row=int(row), column=role.column))
        elif is_missing(text, missing):
            found.append(None)
            mend = "say whose image it is, or leave the row out"
            problems.append(
                Problem(f"the patient is unknown ('{text}')", mend, row=int(row), column=role.column)
            )
        elif role.pattern is not None and match is None:
            found.append(None)
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
            found.append(match.group(1 if match.re.groups else 0) if match is not None else text)
    return found


def _captions(cells: pd.Series, missing: frozenset[str]) -> list[str | None]:
    """The prompt that each row was given."""
    return [None if is_missing(normalize_cell(cell), missing) else str(cell).strip() for cell in cells]


def _sites(
    table: pd.DataFrame, spec: CohortSpec, missing: frozenset[str], problems: list[Problem]
) -> list[str | None]:
    """The site of each row; an unknown one is a problem only where sites decide about the test set."""
    if spec.site is None:
        return [None] * len(table)
    cells = [normalize_cell(cell) for cell in table[spec.site]]
    known = sorted({cell for cell in cells if not is_missing(cell, missing)})
    for site in spec.split.ood:
        if site not in known:
            problems.append(
                Problem(f"split.ood names the unknown site '{site}'", suggestion(site, known), column=spec.site)
            )
    for row, cell in zip(table.index, cells, strict=True):
        if spec.split.ood and is_missing(cell, missing):
            message = "the site is unknown, so the image is neither in nor out of distribution"
            problems.append(
                Problem(message, "fill in the site, or leave the row out", row=int(row), column=spec.site)
            )
    return [None if is_missing(cell, missing) else cell for cell in cells]


def _given_splits(
    table: pd.DataFrame, spec: CohortSpec, domains: list[str | None], problems: list[Problem]
) -> list[str | None]:
    """The split that the user's column gives (None where we split); images of OOD sites are always test."""
    role = spec.split
    if role.column is None:
        return ["test" if domain == "ood" else None for domain in domains]
    values = role.values if role.values is not None else {name: name for name in SPLITS}
    found: list[str | None] = []
    for row, cell, domain in zip(table.index, table[role.column], domains, strict=True):
        text = normalize_cell(cell)
        found.append("test" if domain == "ood" else values.get(text))
        if found[-1] is None:
            mend = f"{suggestion(text, values)} or map it with split.values to train, val or test"
            problems.append(Problem(f"unknown split '{text}'", mend, row=int(row), column=role.column))
    return found


def _check_files(frame: pd.DataFrame, spec: CohortSpec, reading: Reading) -> tuple[list[Problem], list[Problem]]:
    """Fill in ``sha256``; the problem of every image that cannot be used, and warnings of those that show nothing."""
    column = "+".join(spec.image.columns)
    here = frame.index[frame["path"] != ""]
    problems = []
    checked = check_images(list(frame.loc[here, "path"]), reading.check_images, reading.show_progress)
    frame["sha256"] = frame["sha256"].astype(object)
    frame.loc[here, "sha256"] = pd.Series([item.sha256 for item in checked], index=here, dtype=object)
    for index, item in zip(here, checked, strict=True):
        if item.fault is not None:
            row, image = frame.loc[index, ["row", "image"]]
            problems.append(item.fault.problem(f"'{image}'", int(row), column))
    return problems, dim_warnings(list(frame.loc[here, "image"]), checked)


def _leaks(frame: pd.DataFrame, spec: CohortSpec) -> list[Problem]:
    """Patients and images on two sides: of in and out of distribution, and of a split that the user gave."""
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
        side = pd.DataFrame(
            {
                **{name: frame[name] for name in frame.columns},
                "side": frame["domain"] + "/" + frame["split"].fillna("ours"),
            }
        )
        problems += identical_across(side, "side", column, "keep one copy, or put the copies on one side")
    return problems


def _split(frame: pd.DataFrame, spec: CohortSpec) -> list[Problem]:
    """Our own split of the in-distribution rows, by patient; what to tell about it."""
    inside = frame["domain"] == "id"
    if not inside.any():
        return []
    part = frame[inside]
    units = part["patient"].map(joined_patients(part))
    frame.loc[inside, "split"], told = split_patients(units, spec.split.shares, spec.split.seed)
    return told + absent_levels(frame[inside])


def with_root(frame: pd.DataFrame, root: Path) -> pd.DataFrame:
    """The same frame with its images below another root."""
    return frame.assign(
        path=pd.Series([str(root / image) for image in frame["image"]], index=frame.index, dtype=object)
    )


def problem_from(values: dict[str, object]) -> Problem:
    """A problem from its JSON form."""
    return replace(Problem("", ""), **values)  # type: ignore[arg-type]
