"""The cells of a quality table: the whole set and each group, their rows on both sides and their one n."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equigen.errors import InputError, Problem
from equigen.seeds import numpy_generator
from equigen.statistics import split_halves

Rows = NDArray[np.int64]
LARGEST_N = 400  # what matched n is limited to unless the user gives one: FD costs n³
INTERSECTION_SEPARATOR = " & "  # joins the names of two attributes, and of their groups, in an intersection


@dataclass(frozen=True)
class ResamplingSettings:
    """How numbers are resampled.

    ``matched_n``: images per side in every group; None takes the most that the smallest eligible group
    allows, at most 400. ``repeats``: how often each row is used in subsamples at least, and half splits.
    ``replicates``: bootstrap replicates, and permutations of the null band. ``min_patients``: below it a cell
    is "too small". ``limit``: images per side in each cell; beyond it whole patients are drawn at random.
    """

    matched_n: int | None = None
    repeats: int = 5
    replicates: int = 500
    seed: int = 0
    min_patients: int = 30
    limit: int = 4000

    def check(self) -> None:
        """Raise InputError for each setting that makes no sense."""
        least = {"repeats": 1, "replicates": 20, "min_patients": 2, "limit": 1}
        problems = [Problem(f"{name} is {getattr(self, name)}", f"give at least {low}")
                    for name, low in least.items() if getattr(self, name) < low]
        if self.matched_n is not None and self.matched_n < 2:
            problems.append(Problem(f"matched_n is {self.matched_n}", "give at least 2"))
        if problems:
            raise InputError("The evaluation's settings cannot be used.", problems)


@dataclass(frozen=True)
class GroupedImages:
    """One side as arrays: [N] patients, and for each attribute [N] group codes with -1 for unknown."""

    patients: NDArray[Any]
    groups: dict[str, Rows]


@dataclass(frozen=True)
class Cell:
    """One group, or the whole set (attribute and group ``*``), with its rows on both sides.

    ``reason`` says why there is no number for it; None where there is one. ``halves`` are ``repeats`` splits
    of the real rows into two halves that share no patient (indices into ``real``). ``note`` says in words what
    was left out of a cell that is larger than the limit. ``largest_n`` is the largest n that both real halves and
    the generated side allow, which is a number of patients: a subsample holds one image of each.
    """

    attribute: str
    group: str
    code: int
    real: Rows
    generated: Rows
    patients: int
    halves: list[tuple[Rows, Rows]]
    reason: str | None
    note: str = ""
    largest_n: int = 0


def make_cells(
    real: GroupedImages, generated: GroupedImages, levels: dict[str, list[str]], settings: ResamplingSettings
) -> list[Cell]:
    """The whole set first, then each group of each attribute in the order of its levels.

    Raises InputError where a cell is larger than the limit and each of its patients is so too.
    """
    everything = np.arange(len(real.patients)), np.arange(len(generated.patients))
    cells = [_cell(("*", "*", -1), everything, (real, generated), settings)]
    for name, groups in levels.items():
        for code, group in enumerate(groups):
            rows = np.flatnonzero(real.groups[name] == code), np.flatnonzero(generated.groups[name] == code)
            cells.append(_cell((name, group, code), rows, (real, generated), settings))
    return cells


def _cell(
    name: tuple[str, str, int], both: tuple[Rows, Rows], sides: tuple[GroupedImages, GroupedImages],
    settings: ResamplingSettings,
) -> Cell:
    kept, notes = [], []
    for rows, side, title in zip(both, sides, ("real", "generated"), strict=True):
        rng = numpy_generator(settings.seed, f"quality/limit/{title}/{name[0]}/{name[1]}")
        chosen = subsample_patients(side.patients[rows], settings.limit, rng, title)
        kept.append(rows[chosen].astype(np.int64))
        if len(chosen) < len(rows):
            notes.append(f"{len(chosen)} of {len(rows)} {title} images, drawn by patient")
    patients = sides[0].patients[kept[0]]
    count = len(np.unique(patients))
    cell = Cell(*name, kept[0], kept[1], count, [], _too_small(count, len(kept[1]), settings), "; ".join(notes))
    return cell if cell.reason is not None else _with_halves(cell, patients, sides[1].patients[kept[1]], settings)


def _too_small(patients: int, generated: int, settings: ResamplingSettings) -> str | None:
    if patients < settings.min_patients:
        return f"too small: {patients} patients"
    if generated < settings.min_patients:
        return f"too small: {generated} generated images"
    return None


def _with_halves(cell: Cell, patients: NDArray[Any], owners: NDArray[Any], settings: ResamplingSettings) -> Cell:
    """The cell with its half splits; ``patients`` of its real and ``owners`` of its generated rows."""
    purpose = f"quality/halves/{cell.attribute}/{cell.group}"
    halves = [split_halves(patients, numpy_generator(settings.seed, purpose, index))
              for index in range(settings.repeats)]
    largest = min(len(np.unique(owners)), *(len(np.unique(patients[half])) for pair in halves for half in pair))
    values = {**cell.__dict__, "halves": halves, "largest_n": largest}
    whole = Cell(**values)
    if whole.largest_n >= max(2, settings.matched_n or 0):
        return whole
    reason = f"too small for matched n: at most {whole.largest_n} patients per real half and generated side"
    return Cell(**{**values, "halves": [], "reason": reason})


def subsample_patients(patients: NDArray[Any], limit: int, rng: np.random.Generator, side: str) -> Rows:
    """Positions of at most ``limit`` rows, whole patients drawn at random, in their old order.

    Raises InputError when there are more rows than that and each patient has more than ``limit``.
    """
    if len(patients) <= limit:
        return np.arange(len(patients), dtype=np.int64)
    codes = np.unique(patients, return_inverse=True)[1]
    counts = np.bincount(codes)
    order = rng.permutation(len(counts))
    order = order[counts[order] <= limit]
    kept = np.zeros(len(counts), dtype=bool)
    kept[order[np.cumsum(counts[order]) <= limit]] = True
    if not kept.any():
        problem = Problem(f"one patient has more than {limit} images", "raise the limit")
        raise InputError(f"The {side} images cannot be limited.", [problem])
    return np.flatnonzero(kept[codes]).astype(np.int64)


def matched_n(cells: list[Cell], settings: ResamplingSettings) -> int | None:
    """The one n of all cells (METHODS section 6.1); None when no cell is large enough.

    Two disjoint halves of the real images of a group must hold n patients each for its floor, so n is at most
    half of the smallest eligible group's patients, and at most its number of generated images (of patients, where
    generated images have them).
    """
    eligible = [cell.largest_n for cell in cells if cell.reason is None]
    if not eligible:
        return None
    return settings.matched_n or min(LARGEST_N, *eligible)


def cross_groups(
    sides: list[GroupedImages], levels: dict[str, list[str]]
) -> tuple[list[GroupedImages], dict[str, list[str]]]:
    """Intersections of all pairs of attributes, as attributes of their own.

    ``sex`` and ``age`` give ``sex & age`` with the groups ``female & under 40`` and so on; a row whose group is
    unknown in one of them is unknown. Returns the sides with these attributes alone, and their levels.
    """
    names = list(levels)
    pairs = [(a, b) for index, a in enumerate(names) for b in names[index + 1 :]]
    crossed = {INTERSECTION_SEPARATOR.join(pair): [INTERSECTION_SEPARATOR.join(groups)
                                                   for groups in product(*(levels[name] for name in pair))]
               for pair in pairs}
    result = []
    for side in sides:
        groups = {}
        for a, b in pairs:
            known = (side.groups[a] >= 0) & (side.groups[b] >= 0)
            both = side.groups[a] * len(levels[b]) + side.groups[b]
            groups[INTERSECTION_SEPARATOR.join((a, b))] = np.where(known, both, -1).astype(np.int64)
        result.append(GroupedImages(side.patients, groups))
    return result, crossed


def covering_subsamples(patients: Rows, n: int, least: int, rng: np.random.Generator) -> list[Rows]:
    """Subsamples of n rows of n different patients, at least ``least`` of them, in which every patient is used.

    ``patients`` [N] are codes of the rows. Each round takes one random row of each patient and cuts a random order
    of them into pieces of n; the last piece is filled up with rows of other pieces. Rows of one patient are more
    alike than others: drawn together they would make a small group, where they meet more often, look worse.

    >>> cover(np.array([0, 0, 1]), 2, 1, np.random.default_rng(0))[0].tolist()
    [2, 0]
    """
    pieces: list[Rows] = []
    while len(pieces) < least:
        mixed = rng.permutation(len(patients)).astype(np.int64)
        order = rng.permutation(mixed[np.unique(patients[mixed], return_index=True)[1]])
        for start in range(0, len(order), n):
            piece = order[start : start + n]
            filled = rng.choice(order[:start], n - len(piece), replace=False) if len(piece) < n else piece[:0]
            pieces.append(np.concatenate([piece, filled]))
    return pieces
