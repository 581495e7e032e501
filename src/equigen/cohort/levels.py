"""Raw cells to level names: labels, findings, attributes and bins; unknown stays None, never a level."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd

from equigen.cohort.positive_level import binary_order
from equigen.cohort.spec import RESERVED_LEVELS, AttributeRole, LabelRole, level_names, normalize_cell, suggestion
from equigen.cohort.tables.spelling import spelling_warnings
from equigen.cohort.tables.unknown_words import means_unknown
from equigen.errors import Problem

JOIN = "|"
MAX_FOUND_LEVELS = 50


@dataclass(frozen=True)
class LabelSpec:
    """A diagnosis as found: ``levels`` in order (binary: negative, positive), and which are high-risk."""

    kind: str
    levels: list[str]
    high_risk: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class AttributeSpec:
    """An attribute as found: its ``levels`` in order."""

    levels: list[str]


@dataclass
class Applied:
    """One column after its role: level names by row (None = unknown), the levels, and what was wrong."""

    values: list[str | None]
    levels: list[str]
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def is_missing(value: str, missing: frozenset[str]) -> bool:
    """Whether a canonical cell means "not known"; an empty cell always does."""
    return means_unknown(value, missing)


def apply_label(
    column: pd.Series, name: str, role: LabelRole, missing: frozenset[str]
) -> tuple[Applied, LabelSpec]:
    """A label's column to level names, by its kind."""
    if role.kind == "multilabel":
        applied = _findings(column, name, role, missing)
    else:
        applied = _levels(column, f"label '{name}'", _mapping(role.levels), level_names(role.levels), missing)
    parts = (cell.split(role.separator) if role.kind == "multilabel" else [cell] for cell in column)
    _tell(applied, column, f"label '{name}'", [part for cells in parts for part in cells], role.levels is not None)
    found = applied.levels
    if role.kind == "binary" and len(found) != 2:
        message = f"label '{name}' is binary but its column holds {len(found)} levels: {', '.join(found[:6])}"
        applied.problems.append(
            Problem(message, "give 'levels' [negative, positive], or kind: multiclass", column=role.column)
        )
    elif role.kind == "binary" and role.levels is None:
        found, fault = binary_order(found, f"label '{name}'", role.column)
        applied.problems += fault
    for risk in role.high_risk:
        if risk not in found:
            message = f"high_risk of label '{name}' names the unknown level '{risk}'"
            applied.problems.append(Problem(message, suggestion(risk, found), column=role.column))
    return applied, LabelSpec(role.kind, found, list(role.high_risk))


def apply_attribute(
    column: pd.Series, name: str, role: AttributeRole, missing: frozenset[str]
) -> tuple[Applied, AttributeSpec]:
    """An attribute's column to level names, by levels or by bins."""
    if role.bins is not None:
        applied = _bins(column, name, role, missing)
    else:
        applied = _levels(
            column, f"attribute '{name}'", _mapping(role.levels), level_names(role.levels), missing
        )
    _tell(applied, column, f"attribute '{name}'", column, role.bins is not None or role.levels is not None)
    return applied, AttributeSpec(applied.levels)


def _tell(applied: Applied, column: pd.Series, what: str, cells: Iterable[str], listed: bool) -> None:
    """Warn of the words that were taken for unknown, and of levels with several spellings unless they are listed."""
    bad = {problem.row for problem in applied.problems}
    unknown = [
        cell.strip()
        for (row, cell), value in zip(column.items(), applied.values, strict=True)
        if value is None and row not in bad
    ]
    applied.warnings += unknown_warnings(unknown, what, str(column.name))
    if not listed:
        known = set(unknown)
        applied.warnings += spelling_warnings(
            (cell.strip(" ") for cell in cells if cell.strip() not in known), what, str(column.name), normalize_cell
        )


def unknown_warnings(words: Iterable[str], what: str, column: str) -> list[Problem]:
    """One warning that counts the cells of a column which mean "not known", by word; none when there are none."""
    counts = Counter(words)
    if not counts:
        return []
    number = sum(counts.values())
    listed = ", ".join(f"{repr(word) if word else 'empty'} {count}" for word, count in counts.most_common(8))
    message = f"{what} is unknown in {number} row{'s' * (number > 1)} ({listed}{', ...' if len(counts) > 8 else ''})"
    return [Problem(message, "fill them in, or list a word under 'levels' to make it a level", column=column)]


def _mapping(levels: list[str] | dict[str, str] | None) -> dict[str, str] | None:
    """Raw canonical value -> level name."""
    if levels is None:
        return None
    return dict(levels) if isinstance(levels, dict) else {normalize_cell(level): level for level in levels}


def sorted_levels(values: Iterable[str]) -> list[str]:
    """Distinct values in order, by number where all are numbers.

    >>> sorted_levels(["10", "9", "10"])
    ['9', '10']
    """
    distinct = set(values)
    try:
        return sorted(distinct, key=lambda value: (float(value), value))
    except ValueError:
        return sorted(distinct)


def _found_levels(
    cells: Iterable[str], what: str, column: str, missing: frozenset[str]
) -> tuple[list[str], list[Problem]]:
    """Levels taken from the table itself, and why they cannot be taken."""
    levels = sorted_levels(cell for cell in cells if not is_missing(cell, missing))
    problems = []
    if not levels:
        problems.append(Problem(f"{what} has no known value", "check 'column' and 'missing'", column=column))
    if len(levels) > MAX_FOUND_LEVELS:
        message = f"{what} has {len(levels)} different values"
        problems.append(Problem(message, "list its 'levels', or cut a number into 'bins'", column=column))
    for level in levels:
        if level.lower() in RESERVED_LEVELS or JOIN in level:
            message = f"{what}: '{level}' cannot be a level"
            problems.append(
                Problem(message, "put it under 'missing', or rename it with 'levels'", column=column)
            )
    return levels, problems


def _levels(
    column: pd.Series, what: str, mapping: dict[str, str] | None, names: list[str], missing: frozenset[str]
) -> Applied:
    """Cells that hold one level each; what ``levels`` lists is a level even if ``missing`` lists it too."""
    cells = [normalize_cell(cell) for cell in column]
    problems: list[Problem] = []
    if mapping is None:
        names, problems = _found_levels(cells, what, str(column.name), missing)
        mapping = {name: name for name in names}
    values: list[str | None] = []
    for row, cell in zip(column.index, cells, strict=True):
        values.append(mapping.get(cell))
        if cell not in mapping and not is_missing(cell, missing):
            allowed = ", ".join(list(mapping)[:12])
            mend = f"{suggestion(cell, mapping)} allowed: {allowed}; or put it under 'missing'"
            problems.append(
                Problem(f"unknown level '{cell}' for {what}", mend, row=int(row), column=str(column.name))
            )
    return Applied(values, names, problems)


def _bins(column: pd.Series, name: str, role: AttributeRole, missing: frozenset[str]) -> Applied:
    """Numbers to bins [low, high), the last one closed."""
    edges, names = role.bins or [], role.bin_names
    values: list[str | None] = []
    problems = []
    for row, raw in column.items():
        cell = normalize_cell(raw)
        values.append(None)
        if is_missing(cell, missing):
            continue
        number = _number(cell)
        if number is None:
            point = cell.replace(",", ".", 1)
            comma = "," in cell and _number(point) is not None
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
    return Applied(values, names, problems)


def _number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    if "_" in cell:  # Python's own way to write a million
        return None
    return number if math.isfinite(number) else None


def _findings(column: pd.Series, name: str, role: LabelRole, missing: frozenset[str]) -> Applied:
    """Cells that hold any number of findings; the present ones joined by "|" in level order."""
    none = frozenset(normalize_cell(word) for word in role.none)
    mapping, names = _mapping(role.levels), level_names(role.levels)
    cells = [[normalize_cell(part) for part in cell.split(role.separator)] for cell in column]
    problems: list[Problem] = []
    if mapping is None:
        flat = [part for parts in cells for part in parts if part not in none]
        names, problems = _found_levels(flat, f"label '{name}'", role.column, missing)
        mapping = {level: level for level in names}
    values: list[str | None] = []
    for row, parts in zip(column.index, cells, strict=True):
        known = [part for part in parts if not is_missing(part, missing) or part in none or part in mapping]
        values.append(_present(known, mapping, names) if known else None)
        problems += [
            Problem(message, mend, row=int(row), column=role.column)
            for message, mend in _finding_faults(known, parts, name, role, mapping=mapping, none=none)
        ]
    return Applied(values, names, problems)


def _present(parts: list[str], mapping: dict[str, str], names: list[str]) -> str:
    present = {mapping[part] for part in parts if part in mapping}
    return JOIN.join(level for level in names if level in present)


def _finding_faults(
    known: list[str],
    parts: list[str],
    name: str,
    role: LabelRole,
    *,
    mapping: dict[str, str],
    none: frozenset[str],
) -> list[tuple[str, str]]:
    """What is wrong with one cell of findings, as (message, mend)."""
    faults = []
    strange = [part for part in known if part not in mapping and part not in none]
    if role.others == "error":
        faults += [
            (f"unknown level '{part}' for label '{name}'", f"{suggestion(part, mapping)} or set others: ignore")
            for part in strange
        ]
    found = [part for part in known if part not in none]
    if found and len(found) < len(known):
        faults.append(
            (
                f"'{role.separator.join(parts)}' says both nothing and something for label '{name}'",
                "mend the cell",
            )
        )
    if known and len(known) < len(parts):
        faults.append(
            (
                f"'{role.separator.join(parts)}' mixes findings with an unknown for label '{name}'",
                "mend the cell",
            )
        )
    return faults
