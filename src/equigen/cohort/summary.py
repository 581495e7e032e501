"""How many images and patients each diagnosis x group has, with small cells marked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console
from rich.table import Table

from equigen.cohort.spec import SPLITS

if TYPE_CHECKING:
    from equigen.cohort.cohort import Cohort

SMALL = 30
WHOLE = "*"
UNKNOWN = "unknown"
COLUMNS = ["label", "level", "attribute", "group", "split", "domain", "images", "patients", "small"]
_DOWN = ("split", "domain", "label", "level")


def count_cells(cohort: Cohort, attribute: str | None = None, small: int = SMALL) -> pd.DataFrame:
    """Images and patients per diagnosis x group x split.

    One row per label, level, attribute, group and (split, domain) that the cohort has; empty cells are rows
    too. ``*`` stands for the whole (label and level, or attribute and group). ``unknown`` rows are there only
    where something is unknown. Multilabel images count for each of their findings; those without for "none".

    Args:
        cohort: what to count.
        attribute: one attribute, or None for all of them and the whole.
        small: cells with fewer patients are marked ``small``.

    """
    attributes = [WHOLE, *cohort.attributes] if attribute is None else [attribute]
    parts = list(cohort.frame[["split", "domain"]].drop_duplicates().itertuples(index=False, name=None))
    parts = sorted(parts, key=lambda part: (SPLITS.index(part[0]), part[1]))
    rows = []
    for label, level, in_level in _label_masks(cohort):
        for name in attributes:
            for group, in_group in _group_masks(cohort, name):
                cell = cohort.frame[in_level & in_group]
                for split, domain in parts:
                    here = cell[(cell["split"] == split) & (cell["domain"] == domain)]
                    patients = int(here["patient"].nunique())
                    rows.append(
                        (label, level, name, group, split, domain, len(here), patients, patients < small)
                    )
    return pd.DataFrame(rows, columns=COLUMNS)


def _label_masks(cohort: Cohort) -> list[tuple[str, str, pd.Series]]:
    """(label, level, rows) for the whole and for each level of each label."""
    frame = cohort.frame
    found = [(WHOLE, WHOLE, pd.Series(True, index=frame.index))]
    for name, label in cohort.labels.items():
        column = frame[f"label.{name}"]
        if label.kind == "multilabel":
            present = column.map(lambda cell: [] if cell is None else cell.split("|"))
            found += [
                (name, level, present.map(lambda cell, level=level: level in cell)) for level in label.levels
            ]
            found.append((name, "none", column == ""))
        else:
            found += [(name, level, column == level) for level in label.levels]
        if column.isna().any():
            found.append((name, UNKNOWN, column.isna()))
    return found


def _group_masks(cohort: Cohort, attribute: str) -> list[tuple[str, pd.Series]]:
    """(group, rows) of one attribute, or of the whole."""
    frame = cohort.frame
    if attribute == WHOLE:
        return [(WHOLE, pd.Series(True, index=frame.index))]
    column = frame[f"attr.{attribute}"]
    found = [(level, column == level) for level in cohort.attributes[attribute].levels]
    return [*found, (UNKNOWN, column.isna())] if column.isna().any() else found


def print_counts(cohort: Cohort, console: Console, small: int = SMALL) -> None:
    """Print a table per attribute: diagnoses down, groups across, a block a split; small cells get a star."""
    counts = count_cells(cohort, small=small)
    if not cohort.attributes:
        console.print(_table(counts[counts["attribute"] == WHOLE], f"{cohort.name}: images (patients)"))
    for attribute in cohort.attributes:
        title = f"{cohort.name}: images (patients) by {attribute}"
        console.print(_table(counts[counts["attribute"].isin([WHOLE, attribute])], title))
    for name, label in cohort.labels.items():
        if label.kind == "binary":
            negative, positive = label.levels
            console.print(f"label '{name}': '{positive}' is positive, '{negative}' is negative", markup=False)
    if bool(counts["small"].any()):
        console.print(f"* fewer than {small} patients: numbers about such a cell are shown as too small")
    if cohort.quarantined:
        rows = len({problem.row for problem in cohort.quarantined})
        console.print(f"{rows} rows are in quarantine")
    for warning in cohort.warnings:
        console.print(f"warning: {warning}", markup=False)


def _table(counts: pd.DataFrame, title: str) -> Table:
    """A rich table of one attribute's cells."""
    groups = list(dict.fromkeys(counts["group"]))
    table = Table("split", "label", "level", title=title, title_justify="left")
    for group in groups:
        table.add_column("all" if group == WHOLE else group, justify="right")
    cells: dict[tuple[str, ...], dict[str, str]] = {}  # (split, domain, label, level) -> group -> text
    for row in counts.to_dict("records"):
        text = f"{row['images']} ({row['patients']}){'*' if row['small'] else ' '}"
        cells.setdefault(tuple(str(row[name]) for name in _DOWN), {})[row["group"]] = text
    before = ""
    for split, domain, label, level in sorted(cells, key=lambda key: (SPLITS.index(key[0]), key[1])):
        head = split if domain == "id" else f"{split}, {domain}"
        if before and before != head:
            table.add_section()
        names = ["" if label == WHOLE else label, "all" if level == WHOLE else level]
        shown = [cells[split, domain, label, level][group] for group in groups]
        table.add_row("" if before == head else head, *names, *shown)
        before = head
    return table
