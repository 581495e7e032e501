"""Count images and patients of each diagnosis x group, with small cells marked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console
from rich.table import Table

from equigen.cohort.spec import SPLITS

if TYPE_CHECKING:
    from equigen.cohort.cohort import Cohort

SMALL = 30
EVERYONE = "*"
UNKNOWN = "unknown"
COLUMNS = ["label", "level", "attribute", "group", "split", "domain", "images", "patients", "small"]
_ROW_KEYS = ("split", "domain", "label", "level")


def count_text(frame: pd.DataFrame) -> str:
    """Return the numbers of images and patients in words."""
    return f"{len(frame):,} images of {frame['patient'].nunique():,} patients"


def count_cells(cohort: Cohort, attribute: str | None = None, small: int = SMALL) -> pd.DataFrame:
    """Count images and patients per diagnosis x group x split.

    One row per label, level, attribute, group and (split, domain) that the cohort has; empty cells are rows
    too. ``*`` stands for all images (label and level, or attribute and group). ``unknown`` rows exist only
    if a value is unknown. Multilabel images count for each of their findings; those without for "none".

    Args:
        cohort: the cohort.
        attribute: one attribute, or None for all of them and all images.
        small: cells with fewer patients are marked ``small``.

    """
    attributes = [EVERYONE, *cohort.attributes] if attribute is None else [attribute]
    pairs = list(cohort.frame[["split", "domain"]].drop_duplicates().itertuples(index=False, name=None))
    pairs = sorted(pairs, key=lambda pair: (SPLITS.index(pair[0]), pair[1]))
    rows = []
    for label, level, in_level in _label_masks(cohort):
        for name in attributes:
            for group, in_group in _group_masks(cohort, name):
                cell = cohort.frame[in_level & in_group]
                for split, domain in pairs:
                    rows_of_split = cell[(cell["split"] == split) & (cell["domain"] == domain)]
                    patients = int(rows_of_split["patient"].nunique())
                    rows.append(
                        (label, level, name, group, split, domain, len(rows_of_split), patients, patients < small)
                    )
    return pd.DataFrame(rows, columns=COLUMNS)


def _label_masks(cohort: Cohort) -> list[tuple[str, str, pd.Series]]:
    """Return (label, level, mask) for all images and for each level of each label."""
    frame = cohort.frame
    masks = [(EVERYONE, EVERYONE, pd.Series(True, index=frame.index))]
    for name, label in cohort.labels.items():
        column = frame[f"label.{name}"]
        if label.kind == "multilabel":
            present = column.map(lambda cell: [] if cell is None else cell.split("|"))
            masks += [(name, level, present.map(lambda cell, level=level: level in cell)) for level in label.levels]
            masks.append((name, "none", column == ""))
        else:
            masks += [(name, level, column == level) for level in label.levels]
        if column.isna().any():
            masks.append((name, UNKNOWN, column.isna()))
    return masks


def _group_masks(cohort: Cohort, attribute: str) -> list[tuple[str, pd.Series]]:
    """Return (group, mask) of one attribute, or of all images."""
    frame = cohort.frame
    if attribute == EVERYONE:
        return [(EVERYONE, pd.Series(True, index=frame.index))]
    column = frame[f"attr.{attribute}"]
    masks = [(level, column == level) for level in cohort.attributes[attribute].levels]
    return [*masks, (UNKNOWN, column.isna())] if column.isna().any() else masks


def print_counts(cohort: Cohort, console: Console, small: int = SMALL) -> None:
    """Print a table per attribute with diagnoses as rows and groups as columns, by split; small cells get a star."""
    counts = count_cells(cohort, small=small)
    if not cohort.attributes:
        console.print(_count_table(counts[counts["attribute"] == EVERYONE], f"{cohort.name}: images (patients)"))
    for attribute in cohort.attributes:
        title = f"{cohort.name}: images (patients) by {attribute}"
        console.print(_count_table(counts[counts["attribute"].isin([EVERYONE, attribute])], title))
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


def _count_table(counts: pd.DataFrame, title: str) -> Table:
    """Return a rich table of one attribute's cells."""
    groups = list(dict.fromkeys(counts["group"]))
    table = Table("split", "label", "level", title=title, title_justify="left")
    for group in groups:
        table.add_column("all" if group == EVERYONE else group, justify="right")
    cells: dict[tuple[str, ...], dict[str, str]] = {}  # (split, domain, label, level) -> group -> text
    for row in counts.to_dict("records"):
        text = f"{row['images']} ({row['patients']}){'*' if row['small'] else ' '}"
        cells.setdefault(tuple(str(row[name]) for name in _ROW_KEYS), {})[row["group"]] = text
    previous = ""
    for split, domain, label, level in sorted(cells, key=lambda key: (SPLITS.index(key[0]), key[1])):
        head = split if domain == "id" else f"{split}, {domain}"
        if previous and previous != head:
            table.add_section()
        names = ["" if label == EVERYONE else label, "all" if level == EVERYONE else level]
        texts = [cells[split, domain, label, level][group] for group in groups]
        table.add_row("" if previous == head else head, *names, *texts)
        previous = head
    return table
