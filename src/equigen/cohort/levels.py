"""Convert raw cells to level names of labels and attributes; an unknown value is None, never a level."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd

from equigen.cohort.spec import RESERVED_LEVELS, AttributeRole, LabelRole, level_names, normalize_cell
from equigen.cohort.tables.values import means_unknown, spelling_warnings
from equigen.errors import Problem, suggestion

JOIN = "|"
MAX_OBSERVED_LEVELS = 50


@dataclass(frozen=True)
class LabelSpec:
    """A label: its kind, ``levels`` in order (binary: negative, positive), and the high-risk levels."""

    kind: str
    levels: list[str]
    high_risk: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class AttributeSpec:
    """An attribute: its ``levels`` in order."""

    levels: list[str]


@dataclass
class LevelColumn:
    """One column as level names by row (None = unknown), with its levels, problems and warnings."""

    values: list[str | None]
    levels: list[str]
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def apply_label(
    column: pd.Series, name: str, role: LabelRole, missing: frozenset[str]
) -> tuple[LevelColumn, LabelSpec]:
    """Convert a label's column to level names, by its kind."""
    if role.kind == "multilabel":
        applied = _multilabel_findings(column, name, role, missing)
    else:
        mapping = _level_mapping(role.levels)
        applied = _single_levels(column, f"label '{name}'", mapping, level_names(role.levels), missing)
    separator = role.separator if role.kind == "multilabel" else None
    cells = [text for cell in column for text in (cell.split(separator) if separator is not None else [cell])]
    _add_warnings(applied, column, f"label '{name}'", cells, role.levels is not None)
    levels = applied.levels
    if role.kind == "binary" and len(levels) != 2:
        message = f"label '{name}' is binary but its column holds {len(levels)} levels: {', '.join(levels[:6])}"
        applied.problems.append(
            Problem(message, "give 'levels' [negative, positive], or kind: multiclass", column=role.column)
        )
    elif role.kind == "binary" and role.levels is None:
        levels, fault = binary_order(levels, f"label '{name}'", role.column)
        applied.problems += fault
    for risk in role.high_risk:
        if risk not in levels:
            message = f"high_risk of label '{name}' names the unknown level '{risk}'"
            applied.problems.append(Problem(message, suggestion(risk, levels), column=role.column))
    return applied, LabelSpec(role.kind, levels, list(role.high_risk))


def apply_attribute(
    column: pd.Series, name: str, role: AttributeRole, missing: frozenset[str]
) -> tuple[LevelColumn, AttributeSpec]:
    """Convert an attribute's column to level names, by levels or by bins."""
    if role.bins is not None:
        applied = _binned_levels(column, name, role, missing)
    else:
        applied = _single_levels(
            column, f"attribute '{name}'", _level_mapping(role.levels), level_names(role.levels), missing
        )
    _add_warnings(applied, column, f"attribute '{name}'", column, role.bins is not None or role.levels is not None)
    return applied, AttributeSpec(applied.levels)


def _add_warnings(applied: LevelColumn, column: pd.Series, subject: str, cells: Iterable[str], is_listed: bool) -> None:
    """Add warnings of cells that mean unknown, and of several spellings of a level unless levels are listed."""
    bad = {problem.row for problem in applied.problems}
    unknown = [
        cell.strip()
        for (row, cell), value in zip(column.items(), applied.values, strict=True)
        if value is None and row not in bad
    ]
    applied.warnings += unknown_warnings(unknown, subject, str(column.name))
    if not is_listed:
        unknown_cells = set(unknown)
        complete = (cell.strip(" ") for cell in cells if cell.strip() not in unknown_cells)
        applied.warnings += spelling_warnings(complete, subject, str(column.name), normalize_cell)


def unknown_warnings(cells: Iterable[str], subject: str, column: str) -> list[Problem]:
    """Return one warning that counts the unknown cells of a column by their text; [] when there are none."""
    counts = Counter(cells)
    if not counts:
        return []
    total = sum(counts.values())
    listed = ", ".join(f"{repr(word) if word else 'empty'} {count}" for word, count in counts.most_common(8))
    message = f"{subject} is unknown in {total} row{'s' * (total > 1)} ({listed}{', ...' if len(counts) > 8 else ''})"
    return [Problem(message, "fill them in, or list a word under 'levels' to make it a level", column=column)]


def _level_mapping(levels: list[str] | dict[str, str] | None) -> dict[str, str] | None:
    """Return raw value -> level name; None if the levels are not listed."""
    if levels is None:
        return None
    return dict(levels) if isinstance(levels, dict) else {normalize_cell(level): level for level in levels}


def sorted_levels(values: Iterable[str]) -> list[str]:
    """Return the distinct values in order, by number where all are numbers.

    >>> sorted_levels(["10", "9", "10"])
    ['9', '10']
    """
    distinct = set(values)
    try:
        return sorted(distinct, key=lambda value: (float(value), value))
    except ValueError:
        return sorted(distinct)


def _observed_levels(
    cells: Iterable[str], subject: str, column: str, missing: frozenset[str]
) -> tuple[list[str], list[Problem]]:
    """Return the levels observed in a column, and the problems that prevent their use."""
    levels = sorted_levels(cell for cell in cells if not means_unknown(cell, missing))
    problems = []
    if not levels:
        problems.append(Problem(f"{subject} has no known value", "check 'column' and 'missing'", column=column))
    if len(levels) > MAX_OBSERVED_LEVELS:
        message = f"{subject} has {len(levels)} different values"
        problems.append(Problem(message, "list its 'levels', or cut a number into 'bins'", column=column))
    for level in levels:
        if level.lower() in RESERVED_LEVELS or JOIN in level:
            message = f"{subject}: '{level}' cannot be a level"
            problems.append(Problem(message, "put it under 'missing', or rename it with 'levels'", column=column))
    return levels, problems


def _single_levels(
    column: pd.Series, subject: str, mapping: dict[str, str] | None, names: list[str], missing: frozenset[str]
) -> LevelColumn:
    """Convert cells with one level each; a listed level is a level even if ``missing`` has it too."""
    cells = [normalize_cell(cell) for cell in column]
    problems: list[Problem] = []
    if mapping is None:
        names, problems = _observed_levels(cells, subject, str(column.name), missing)
        mapping = {name: name for name in names}
    values: list[str | None] = []
    for row, cell in zip(column.index, cells, strict=True):
        values.append(mapping.get(cell))
        if cell not in mapping and not means_unknown(cell, missing):
            allowed = ", ".join(list(mapping)[:12])
            mend = f"{suggestion(cell, mapping)} allowed: {allowed}; or put it under 'missing'"
            problems.append(
                Problem(f"unknown level '{cell}' for {subject}", mend, row=int(row), column=str(column.name))
            )
    return LevelColumn(values, names, problems)


def _binned_levels(column: pd.Series, name: str, role: AttributeRole, missing: frozenset[str]) -> LevelColumn:
    """Convert numbers to bins [low, high), of which the last includes its upper edge."""
    edges, names = role.bins or [], role.bin_names
    values: list[str | None] = []
    problems = []
    for row, raw in column.items():
        cell = normalize_cell(raw)
        values.append(None)
        if means_unknown(cell, missing):
            continue
        number = _parse_number(cell)
        if number is None:
            point = cell.replace(",", ".", 1)
            comma = "," in cell and _parse_number(point) is not None
            message = f"'{cell}' is no number for attribute '{name}'"
            mend = f"write {point} with a point" if comma else "mend the cell, or put it under 'missing'"
        elif not edges[0] <= number <= edges[-1]:
            message, mend = (
                f"{cell} lies outside the bins {edges[0]:g} to {edges[-1]:g} of attribute '{name}'",
                "mend the cell, or widen 'bins'",
            )
        else:
            values[-1] = names[min(bisect_right(edges, number), len(names)) - 1]
            continue
        problems.append(Problem(message, mend, row=int(str(row)), column=str(column.name)))
    return LevelColumn(values, names, problems)


def _parse_number(cell: str) -> float | None:
    """Return the finite number of a cell; None if it is not one."""
    try:
        number = float(cell)
    except ValueError:
        return None
    if "_" in cell:  # a digit separator of Python literals
        return None
    return number if math.isfinite(number) else None


def _multilabel_findings(column: pd.Series, name: str, role: LabelRole, missing: frozenset[str]) -> LevelColumn:
    """Convert cells with any number of findings; those present are joined by "|" in level order."""
    none = frozenset(normalize_cell(word) for word in role.none)
    mapping, names = _level_mapping(role.levels), level_names(role.levels)
    cells = [[normalize_cell(finding) for finding in cell.split(role.separator)] for cell in column]
    problems: list[Problem] = []
    if mapping is None:
        candidates = [finding for findings in cells for finding in findings if finding not in none]
        names, problems = _observed_levels(candidates, f"label '{name}'", role.column, missing)
        mapping = {level: level for level in names}
    values: list[str | None] = []
    for row, findings in zip(column.index, cells, strict=True):
        known_findings = [
            finding
            for finding in findings
            if not means_unknown(finding, missing) or finding in none or finding in mapping
        ]
        present = {mapping[finding] for finding in known_findings if finding in mapping}
        values.append(JOIN.join(level for level in names if level in present) if known_findings else None)
        problems += [
            Problem(message, mend, row=int(row), column=role.column)
            for message, mend in _finding_faults(known_findings, findings, name, role, mapping=mapping, none=none)
        ]
    return LevelColumn(values, names, problems)


def _finding_faults(
    known_findings: list[str],
    findings: list[str],
    name: str,
    role: LabelRole,
    *,
    mapping: dict[str, str],
    none: frozenset[str],
) -> list[tuple[str, str]]:
    """Return the faults of one cell of findings, as (message, mend)."""
    faults = []
    present = [finding for finding in known_findings if finding not in none]
    unlisted = [finding for finding in present if finding not in mapping]
    if role.others == "error":
        faults += [
            (f"unknown level '{finding}' for label '{name}'", f"{suggestion(finding, mapping)} or set others: ignore")
            for finding in unlisted
        ]
    cell = role.separator.join(findings)
    if present and len(present) < len(known_findings):
        faults.append((f"'{cell}' says both nothing and something for label '{name}'", "mend the cell"))
    if known_findings and len(known_findings) < len(findings):
        faults.append((f"'{cell}' mixes findings with an unknown for label '{name}'", "mend the cell"))
    return faults


_PAIRS = {
    ("0", "1"), ("false", "true"), ("f", "t"), ("no", "yes"), ("n", "y"), ("negative", "positive"), ("neg", "pos"),
    ("absent", "present"), ("-", "+"), ("control", "case"),
}  # fmt: skip
_NEGATIVE = {"normal", "healthy", "benign", "negative", "absent", "control", "unaffected", "no finding", "no findings"}
_WITHOUT = re.compile(r"(no|non|not|without)[ _-]+\w.*")


def binary_order(levels: list[str], subject: str, column: str) -> tuple[list[str], list[Problem]]:
    """Return two levels as [negative, positive] if their words tell, else unchanged with a problem.

    Recognised are pairs such as 0 and 1, no and yes, and a word for health ("normal", "benign", "no X") against another
    word.

    >>> binary_order(["glaucoma", "normal"], "label 'dx'", "dx")
    (['normal', 'glaucoma'], [])
    """
    first, second = (" ".join(level.casefold().split()) for level in levels)
    if (first, second) in _PAIRS or (_is_negative(first) and _is_positive(second)):
        return levels, []
    if (second, first) in _PAIRS or (_is_negative(second) and _is_positive(first)):
        return levels[::-1], []
    choices = f"levels: [{levels[0]}, {levels[1]}] or levels: [{levels[1]}, {levels[0]}]"
    message = f"{subject} is binary, and its column does not say whether '{levels[0]}' or '{levels[1]}' is positive"
    return levels, [Problem(message, f"write {choices}: the negative one first", column=column)]


def _is_negative(word: str) -> bool:
    return word in _NEGATIVE or _WITHOUT.fullmatch(word) is not None


def _is_positive(word: str) -> bool:
    """Whether a word can be the positive level: no number, truth value or word for health."""
    plain = {name for pair in _PAIRS for name in pair} - {"positive", "present", "pos", "case"}
    return not _is_negative(word) and word not in plain and not re.fullmatch(r"[+-]?[\d.,]+", word)
