"""The cells of a quality table (the whole set and each group), their one n, and the shared resampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equigen.errors import InputError, Problem
from equigen.seeds import numpy_generator
from equigen.statistics import patient_bootstrap, patient_codes, permute_groups, split_halves

Rows = NDArray[np.int64]
LARGEST_N = 400  # what matched n is limited to unless the user gives one: FD costs n³


@dataclass(frozen=True)
class Settings:
    """How numbers are resampled.

    ``matched_n``: images per side in every group; None takes the most that the smallest eligible group
    allows, at most 400. ``repeats``: how often each row is used in subsamples at least, and half splits.
    ``replicates``: bootstrap replicates, and permutations of the null band. ``min_patients``: below it a cell
    is "too small".
    """

    matched_n: int | None = None
    repeats: int = 5
    replicates: int = 500
    seed: int = 0
    min_patients: int = 30

    def check(self) -> None:
        """Raise InputError for each setting that makes no sense."""
        least = {"repeats": 1, "replicates": 20, "min_patients": 2}
        problems = [Problem(f"{name} is {getattr(self, name)}", f"give at least {low}")
                    for name, low in least.items() if getattr(self, name) < low]
        if self.matched_n is not None and self.matched_n < 2:
            problems.append(Problem(f"matched_n is {self.matched_n}", "give at least 2"))
        if problems:
            raise InputError("The evaluation's settings cannot be used.", problems)


@dataclass(frozen=True)
class Side:
    """One side as arrays: [N] patients, and for each attribute [N] group codes with -1 for unknown."""

    patients: NDArray[Any]
    groups: dict[str, Rows]


@dataclass(frozen=True)
class Cell:
    """One group, or the whole set (attribute and group ``*``), with its rows on both sides.

    ``reason`` says why there is no number for it; None where there is one. ``halves`` are ``repeats`` splits
    of the real rows into two halves that share no patient (indices into ``real``).
    """

    attribute: str
    group: str
    code: int
    real: Rows
    generated: Rows
    patients: int
    halves: list[tuple[Rows, Rows]]
    reason: str | None

    @property
    def largest_n(self) -> int:
        """The largest n that both real halves and the generated side of this cell allow."""
        half = min((min(len(first), len(second)) for first, second in self.halves), default=0)
        return min(half, len(self.generated))


def make_cells(real: Side, generated: Side, levels: dict[str, list[str]], settings: Settings) -> list[Cell]:
    """The whole set first, then each group of each attribute in the order of its levels."""
    everything = np.arange(len(real.patients)), np.arange(len(generated.patients))
    cells = [_cell(("*", "*", -1), everything, real, settings)]
    for name, groups in levels.items():
        for code, group in enumerate(groups):
            rows = np.flatnonzero(real.groups[name] == code), np.flatnonzero(generated.groups[name] == code)
            cells.append(_cell((name, group, code), rows, real, settings))
    return cells


def _cell(name: tuple[str, str, int], both: tuple[Rows, Rows], real: Side, settings: Settings) -> Cell:
    (rows, made), patients = both, real.patients[both[0]]
    count, reason = len(np.unique(patients)), None
    if count < settings.min_patients:
        reason = f"too small: {count} patients"
    elif len(made) < settings.min_patients:
        reason = f"too small: {len(made)} generated images"
    purpose = f"quality/halves/{name[0]}/{name[1]}"
    draws = [] if reason else [split_halves(patients, numpy_generator(settings.seed, purpose, index))
                               for index in range(settings.repeats)]
    cell = Cell(*name, rows, made, count, draws, reason)
    if reason is None and (cell.largest_n < 2 or cell.largest_n < (settings.matched_n or 0)):
        reason = f"too small for matched n: at most {cell.largest_n} images per real half and generated side"
        cell = Cell(*name, rows, made, count, [], reason)
    return cell


def matched_n(cells: list[Cell], settings: Settings) -> int | None:
    """The one n of all cells (METHODS section 6.1); None when no cell is large enough.

    Two disjoint halves of the real images of a group must hold n each for its floor, so n is at most half of
    the smallest eligible group's real images (less what keeping patients whole costs), and at most its number
    of generated images.
    """
    eligible = [cell.largest_n for cell in cells if cell.reason is None]
    if not eligible:
        return None
    return settings.matched_n or min(LARGEST_N, *eligible)


@dataclass(frozen=True)
class Draws:
    """Resampling that all metrics and cells share, so that gaps are paired.

    ``real`` [R, N] and ``generated`` [R, M]: multiplicity of each row in each patient-cluster bootstrap
    replicate. ``null``: for each attribute the permuted group codes of both sides, [R, N] and [R, M].
    """

    real: NDArray[np.float64]
    generated: NDArray[np.float64]
    null: dict[str, tuple[Rows, Rows]]


def make_draws(real: Side, generated: Side, settings: Settings) -> Draws:
    """Draw bootstrap multiplicities and permutations, both with patients whole."""
    real, generated = (Side(patient_codes(side.patients), side.groups) for side in (real, generated))
    null = {name: (_permuted(real, name, settings, "real"), _permuted(generated, name, settings, "generated"))
            for name in real.groups}
    return Draws(_weights(real, settings, "real"), _weights(generated, settings, "generated"), null)


def _weights(side: Side, settings: Settings, name: str) -> NDArray[np.float64]:
    rng = numpy_generator(settings.seed, f"quality/bootstrap/{name}")
    count = len(side.patients)
    draws = patient_bootstrap(side.patients, settings.replicates, rng) if count else iter(())
    rows = [np.bincount(rows, minlength=count) for rows in draws]
    return np.array(rows, dtype=np.float64).reshape(len(rows) or settings.replicates, count)


def _permuted(side: Side, attribute: str, settings: Settings, name: str) -> Rows:
    rng = numpy_generator(settings.seed, f"quality/null/{attribute}/{name}")
    draws = [permute_groups(side.groups[attribute], side.patients, rng) for _ in range(settings.replicates)]
    return np.array(draws, dtype=np.int64).reshape(settings.replicates, len(side.patients))


def cover(count: int, n: int, least: int, rng: np.random.Generator) -> list[Rows]:
    """Subsamples of n of ``count`` rows, at least ``least`` of them, in which every row is used.

    Each round cuts a random order into pieces of n; the last piece is filled up with rows of other pieces, so
    no subsample holds a row twice.
    """
    pieces: list[Rows] = []
    while len(pieces) < least:
        order = rng.permutation(count).astype(np.int64)
        for start in range(0, count, n):
            piece = order[start : start + n]
            filled = rng.choice(order[:start], n - len(piece), replace=False) if len(piece) < n else piece[:0]
            pieces.append(np.concatenate([piece, filled]))
    return pieces
