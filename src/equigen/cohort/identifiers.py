"""Warnings about the names of patients and sites in a table, and its captions."""

from __future__ import annotations

import pandas as pd

from equigen.cohort.levels import unknown_warnings
from equigen.cohort.prompts import prompt_columns
from equigen.cohort.spec import CohortSpec, normalize_cell
from equigen.cohort.tables.spelling import spelling_warnings
from equigen.cohort.tables.unknown_words import means_unknown
from equigen.errors import Problem

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
