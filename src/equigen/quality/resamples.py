"""Bootstrap draws and permutations by patient, shared by all metrics and cells."""

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
    """Number of times [R, P] that each bootstrap replicate draws each patient, and [N] the patient of each row."""

    counts: NDArray[np.uint16]
    patients: Rows

    def row_weights(self, rows: Rows) -> Array:
        """[R, n] multiplicities of these rows."""
        return np.asarray(self.counts[:, self.patients[rows]], dtype=np.float64)


@dataclass(frozen=True)
class Pool:
    """Rows of all eligible groups of one attribute, with their groups under each permutation.

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
    """Bootstrap multiplicities of real and generated images, and for each attribute its pool of permuted labels."""

    real: Multiplicities
    generated: Multiplicities
    null: dict[str, Pool] = field(default_factory=dict)


def make_draws(
    real: GroupedImages,
    generated: GroupedImages,
    cells: list[Cell],
    settings: ResamplingSettings,
    stream: str = "generated",
) -> Draws:
    """Draw bootstrap multiplicities and permutations; all images of a patient are drawn together.

    The draws of real images depend on their patients and the seed alone, so all generated sets share them. Generated
    sets of one ``stream`` name share theirs.
    """
    codes = patient_codes(real.patients), patient_codes(generated.patients)
    null = {}
    for attribute in dict.fromkeys(cell.attribute for cell in cells if cell.attribute != "*"):
        eligible = [cell for cell in cells if cell.attribute == attribute and cell.reason is None]
        if eligible:
            real_rows, real_groups = _permute([cell.real for cell in eligible], codes[0], settings, f"{attribute}/real")
            rows, groups = _permute([cell.generated for cell in eligible], codes[1], settings, f"{attribute}/generated")
            null[attribute] = Pool(real_rows, rows, real_groups, groups, len(eligible))
    return Draws(_bootstrap(codes[0], settings, "real"), _bootstrap(codes[1], settings, stream), null)


def _bootstrap(patients: Rows, settings: ResamplingSettings, name: str) -> Multiplicities:
    """Cluster bootstrap (Field and Welsh, J. R. Stat. Soc. B 69, 2007): as many patients drawn as there are."""
    rng = numpy_generator(settings.seed, f"quality/bootstrap/{name}")
    size = int(patients.max()) + 1 if len(patients) else 0
    counts = np.zeros((settings.replicates, size), dtype=np.uint16)
    for row in counts:
        row[:] = np.bincount(rng.integers(0, size, size), minlength=size) if size else 0
    return Multiplicities(counts, patients)


def _permute(
    members: list[Rows], patients: Rows, settings: ResamplingSettings, name: str
) -> tuple[Rows, NDArray[np.int16]]:
    """Rows of all groups, and [R, n] their groups when labels are permuted between patients."""
    rows = np.concatenate(members)
    groups = np.repeat(np.arange(len(members)), [len(group) for group in members])
    rng = numpy_generator(settings.seed, f"quality/null/{name}")
    permuted = np.empty((settings.replicates, len(rows)), dtype=np.int16)
    for row in permuted:
        row[:] = permute_groups(groups, patients[rows], rng)
    return rows, permuted
