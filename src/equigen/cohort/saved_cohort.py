"""Read the JSON that ``Cohort.save`` writes beside the table: roles, levels, counts and problems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from equigen.cohort.levels import AttributeSpec, LabelSpec
from equigen.cohort.spec import CohortSpec, parse_spec
from equigen.errors import InputError, Problem
from equigen.files import hash_value, read_json

TABLE, SHEET = "cohort.parquet", "cohort.json"


def seal(sheet: dict[str, Any]) -> str:
    """Hash of a sheet without its seal and its ``root``, which changes where images are moved."""
    return hash_value({name: value for name, value in sheet.items() if name not in ("seal", "root")})


def read_saved(folder: Path) -> dict[str, Any]:
    """Return the JSON of a saved cohort; raises InputError when it or the table is missing, or it is damaged."""
    missing = [name for name in (TABLE, SHEET) if not (folder / name).is_file()]
    if missing:
        problem = Problem("there is no such file", "run the cohort stage", file=str(folder / missing[0]))
        raise InputError("This is no saved cohort.", [problem])
    sheet: dict[str, Any] = read_json(folder / SHEET)
    if not isinstance(sheet, dict) or sheet.get("seal", "") not in ("", seal(sheet)):
        problem = Problem("is not what was written", "run `equigen cohort check` again", file=str(folder / SHEET))
        raise InputError("The saved cohort is damaged.", [problem])
    return sheet


def saved_spec(sheet: dict[str, Any]) -> CohortSpec:
    """Return the specification; roles that are None are not saved, and ``patient`` is required."""
    return parse_spec({"patient": None, **sheet["spec"]}, SHEET)


def saved_labels(sheet: dict[str, Any]) -> dict[str, LabelSpec]:
    """Return the labels by name."""
    return {name: LabelSpec(**label) for name, label in sheet["labels"].items()}


def saved_attributes(sheet: dict[str, Any]) -> dict[str, AttributeSpec]:
    """Return the attributes by name."""
    return {name: AttributeSpec(**attribute) for name, attribute in sheet["attributes"].items()}


def mismatch_error(folder: Path) -> InputError:
    """Return the error of a table and a JSON file that do not belong together."""
    problem = Problem(
        "the table and cohort.json do not belong together", "run the cohort stage again", file=str(folder / TABLE)
    )
    return InputError("The saved cohort is damaged.", [problem])
