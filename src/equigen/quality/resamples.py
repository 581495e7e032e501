"""Resampling that all metrics and cells share: bootstrap by patient, and labels permuted between patients."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from equigen.quality.cells import Cell, GroupedImages, ResamplingSettings, Rows
from equigen.seeds import numpy_generator
from equigen.statistics import patient_codes, permute_groups

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Multiplicities:
    """How often each patient was drawn in each replicate, [R, P] small integers, and [N] each row's patient."""

    counts: NDArray[np.uint16]
    patients: Rows

    def row_weights(self, rows: Rows) -> Array:
        """[R, n] multiplicities of these rows."""
        return np.asarray(self.counts[:, self.patients[rows]], dtype=np.float64)


@dataclass(frozen=True)
class Pool:
    """The rows of all eligible groups of one attribute, and whom each permutation gives them to.

    ``real`` [n] and ``generated`` [m] rows; ``real_groups`` [R, n] and ``generated_groups`` [R, m] index of the
    group among ``size`` eligible ones, in the order of the cells.
    """

    real: Rows
    generated: Rows
    real_groups: NDArray[np.int16]
    generated_groups: NDArray[np.int16]
    size: int


@dataclass(frozen=True)
class Draws:
    """Bootstrap multiplicities of both sides, and for each attribute its pool of permuted labels."""

    real: Multiplicities
    generated: Multiplicities
    null: dict[str, Pool] = field(default_factory=dict)


def make_draws(
    real: GroupedImages, generated: GroupedImages, cells: list[Cell], settings: ResamplingSettings,
    stream: str = "generated",
) -> Draws:
    """Draw bootstrap multiplicities and permutations, both with patients whole.

    The real side's draws depend on its patients and the seed alone, so all generated sets share them. Generated
    sides of one ``stream`` name share theirs.
    """
    codes = patient_codes(real.patients), patient_codes(generated.patients)
    null = {}
    for attribute in dict.fromkeys(cell.attribute for cell in cells if cell.attribute != "*"):
        eligible = [cell for cell in cells if cell.attribute == attribute and cell.reason is None]
        if eligible:
            null[attribute] = _pool(attribute, eligible, codes, settings)
    return Draws(_bootstrap(codes[0], settings, "real"), _bootstrap(codes[1], settings, stream), null)


def _bootstrap(patients: Rows, settings: ResamplingSettings, name: str) -> Multiplicities:
    """Cluster bootstrap (Field and Welsh, J. R. Stat. Soc. B 69, 2007): as many patients drawn as there are."""
    rng = numpy_generator(settings.seed, f"quality/bootstrap/{name}")
    size = int(patients.max()) + 1 if len(patients) else 0
    counts = np.zeros((settings.replicates, size), dtype=np.uint16)
    for row in counts:
        row[:] = np.bincount(rng.integers(0, size, size), minlength=size) if size else 0
    return Multiplicities(counts, patients)


def _pool(attribute: str, cells: list[Cell], patients: tuple[Rows, Rows], settings: ResamplingSettings) -> Pool:
    sides = []
    for name, own in (("real", patients[0]), ("generated", patients[1])):
        parts = [cell.real if name == "real" else cell.generated for cell in cells]
        rows = np.concatenate(parts)
        groups = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        rng = numpy_generator(settings.seed, f"quality/null/{attribute}/{name}")
        permuted = np.empty((settings.replicates, len(rows)), dtype=np.int16)
        for row in permuted:
            row[:] = permute_groups(groups, own[rows], rng)
        sides.append((rows, permuted))
    return Pool(sides[0][0], sides[1][0], sides[0][1], sides[1][1], len(cells))
