"""Cells of a quality table: all images and each group, their real and generated rows, and the matched n."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equigen.errors import InputError, Problem
from equigen.quality.settings import QualitySettings
from equigen.seeds import numpy_generator
from equigen.statistics import split_halves

Rows = NDArray[np.int64]
LARGEST_N = 400  # upper limit of the matched n unless the user gives one: FD costs n³
INTERSECTION_SEPARATOR = " & "  # joins the names of two attributes, and of their groups, in an intersection


@dataclass(frozen=True)
class ResamplingSettings:
    """Settings of the subsamples, bootstrap and permutations of an evaluation.

    ``matched_n``: real and generated images of each group in a subsample; None takes the largest number that the
    smallest eligible group allows, at most 400. ``repeats``: subsamples in which each row is used at least, and half
    splits. ``replicates``: bootstrap replicates, and permutations of the null band. ``min_patients``: a cell with
    fewer patients is "too small". ``limit``: real, and generated, images of a cell; of more, whole patients are
    drawn at random.
    """

    matched_n: int | None = None
    repeats: int = 5
    replicates: int = 500
    seed: int = 0
    min_patients: int = 30
    limit: int = 4000

    @classmethod
    def of(cls, settings: QualitySettings) -> ResamplingSettings:
        """Those of an evaluation."""
        names = ("matched_n", "repeats", "replicates", "seed", "min_patients", "limit")
        return cls(*(getattr(settings, name) for name in names))

    def check(self) -> None:
        """Raise InputError, with one problem for each setting that is out of range."""
        least = {"repeats": 1, "replicates": 20, "min_patients": 2, "limit": 1}
        problems = [
            Problem(f"{name} is {getattr(self, name)}", f"give at least {low}")
            for name, low in least.items()
            if getattr(self, name) < low
        ]
        if self.matched_n is not None and self.matched_n < 2:
            problems.append(Problem(f"matched_n is {self.matched_n}", "give at least 2"))
        if problems:
            raise InputError("The evaluation's settings cannot be used.", problems)


@dataclass(frozen=True)
class GroupedImages:
    """Images with [N] patients, and for each attribute [N] group codes (-1: unknown)."""

    patients: NDArray[Any]
    groups: dict[str, Rows]


@dataclass(frozen=True)
class Cell:
    """One group, or all images (attribute and group ``*``), with its real and generated rows.

    ``reason`` says why there is no number for it; None where there is one. ``halves`` are ``repeats`` splits
    of the real rows into two halves that share no patient (indices into ``real``). ``note`` tells what was left
    out of a cell that exceeds the limit. ``largest_n`` is the largest n that both real halves and the generated
    images allow, which is a number of patients: a subsample holds one image of each.
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
    """Cells of all images, then of each group of each attribute in the order of its levels.

    Raises InputError where a cell exceeds the limit and so does each of its patients.
    """
    everything = np.arange(len(real.patients)), np.arange(len(generated.patients))
    cells = [_make_cell(("*", "*", -1), everything, (real, generated), settings)]
    for name, groups in levels.items():
        for code, group in enumerate(groups):
            rows = np.flatnonzero(real.groups[name] == code), np.flatnonzero(generated.groups[name] == code)
            cells.append(_make_cell((name, group, code), rows, (real, generated), settings))
    return cells


def _make_cell(
    name: tuple[str, str, int],
    rows: tuple[Rows, Rows],
    images: tuple[GroupedImages, GroupedImages],
    settings: ResamplingSettings,
) -> Cell:
    """Make a cell of the real and generated ``rows``, limited by patient, with its half splits."""
    limited, notes = [], []
    for members, grouped, title in zip(rows, images, ("real", "generated"), strict=True):
        rng = numpy_generator(settings.seed, f"quality/limit/{title}/{name[0]}/{name[1]}")
        subset = subsample_patients(grouped.patients[members], settings.limit, rng, title)
        limited.append(members[subset].astype(np.int64))
        if len(subset) < len(members):
            notes.append(f"{len(subset)} of {len(members)} {title} images, drawn by patient")
    patients, reason = images[0].patients[limited[0]], None
    count = len(np.unique(patients))
    if count < settings.min_patients:
        reason = f"too small: {count} patients"
    elif len(limited[1]) < settings.min_patients:
        reason = f"too small: {len(limited[1])} generated images"
    cell = Cell(*name, limited[0], limited[1], count, [], reason, "; ".join(notes))
    return cell if reason is not None else _split_cell(cell, patients, images[1].patients[limited[1]], settings)


def _split_cell(
    cell: Cell, patients: NDArray[Any], generated_patients: NDArray[Any], settings: ResamplingSettings
) -> Cell:
    """Add half splits and the largest n to a cell, or the reason why it is too small for the matched n.

    ``patients`` are those of its real rows.
    """
    purpose = f"quality/halves/{cell.attribute}/{cell.group}"
    halves = [
        split_halves(patients, numpy_generator(settings.seed, purpose, index)) for index in range(settings.repeats)
    ]
    largest = min(
        len(np.unique(generated_patients)), *(len(np.unique(patients[half])) for pair in halves for half in pair)
    )
    if largest >= max(2, settings.matched_n or 0):
        return replace(cell, halves=halves, largest_n=largest)
    reason = f"too small for matched n: at most {largest} patients per real half and generated side"
    return replace(cell, largest_n=largest, reason=reason)


def subsample_patients(patients: NDArray[Any], limit: int, rng: np.random.Generator, title: str) -> Rows:
    """Positions of at most ``limit`` rows, ascending: patients are drawn at random, each with all of its rows.

    Raises InputError, which names the ``title`` of the images, when there are more rows than that and each patient
    has more than ``limit``.
    """
    if len(patients) <= limit:
        return np.arange(len(patients), dtype=np.int64)
    codes = np.unique(patients, return_inverse=True)[1]
    counts = np.bincount(codes)
    order = rng.permutation(len(counts))
    order = order[counts[order] <= limit]
    mask = np.zeros(len(counts), dtype=bool)
    mask[order[np.cumsum(counts[order]) <= limit]] = True
    if not mask.any():
        problem = Problem(f"one patient has more than {limit} images", "raise the limit")
        raise InputError(f"The {title} images cannot be limited.", [problem])
    return np.flatnonzero(mask[codes]).astype(np.int64)


def matched_n(cells: list[Cell], settings: ResamplingSettings) -> int | None:
    """Number of images of each subsample, the same in all cells (METHODS section 6.1); None without a large cell.

    Two disjoint halves of the real images of a group must hold n patients each for its floor, so n is at most
    half of the smallest eligible group's patients, and at most its number of generated images (of patients, where
    generated images have them).
    """
    eligible = [cell.largest_n for cell in cells if cell.reason is None]
    if not eligible:
        return None
    return settings.matched_n or min(LARGEST_N, *eligible)


def cross_groups(
    sets: list[GroupedImages], levels: dict[str, list[str]]
) -> tuple[list[GroupedImages], dict[str, list[str]]]:
    """Intersections of all pairs of attributes, as attributes of their own.

    ``sex`` and ``age`` give ``sex & age`` with the groups ``female & under 40`` and so on; a row whose group is
    unknown in one of them is unknown. Returns the sets with these attributes alone, and their levels.
    """
    pairs = list(combinations(levels, 2))
    crossed = {
        INTERSECTION_SEPARATOR.join(pair): [
            INTERSECTION_SEPARATOR.join(groups) for groups in product(*(levels[name] for name in pair))
        ]
        for pair in pairs
    }
    result = []
    for images in sets:
        groups = {}
        for a, b in pairs:
            defined = (images.groups[a] >= 0) & (images.groups[b] >= 0)
            codes = images.groups[a] * len(levels[b]) + images.groups[b]
            groups[INTERSECTION_SEPARATOR.join((a, b))] = np.where(defined, codes, -1).astype(np.int64)
        result.append(GroupedImages(images.patients, groups))
    return result, crossed


def covering_subsamples(patients: Rows, n: int, least: int, rng: np.random.Generator) -> list[Rows]:
    """Subsamples of n rows of n different patients, at least ``least`` of them, that use every patient.

    ``patients`` [N] are codes of the rows. Each round takes one random row of each patient and cuts a random order
    of them into pieces of n; the last piece is filled up with rows of other pieces. Rows of one patient are more
    alike than others: drawn together they would make a small group, where they meet more often, look worse.

    >>> covering_subsamples(np.array([0, 0, 1]), 2, 1, np.random.default_rng(0))[0].tolist()
    [2, 0]
    """
    pieces: list[Rows] = []
    while len(pieces) < least:
        mixed = rng.permutation(len(patients)).astype(np.int64)
        order = rng.permutation(mixed[np.unique(patients[mixed], return_index=True)[1]])
        for start in range(0, len(order), n):
            piece = order[start : start + n]
            supplement = rng.choice(order[:start], n - len(piece), replace=False) if len(piece) < n else piece[:0]
            pieces.append(np.concatenate([piece, supplement]))
    return pieces
