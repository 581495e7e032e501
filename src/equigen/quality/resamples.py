"""Bootstrap draws and permutations by patient, shared by all metrics and cells."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from equigen.quality.cells import Cell, GroupedImages, ResamplingSettings, Rows
from equigen.seeds import numpy_generator
from equigen.statistics import Multiplicities, draw_multiplicities, group_permutations, patient_codes


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
    real_draws, generated_draws = (
        draw_multiplicities(patients, settings.replicates, numpy_generator(settings.seed, f"quality/bootstrap/{name}"))
        for patients, name in zip(codes, ("real", stream), strict=True)
    )
    return Draws(real_draws, generated_draws, null)


def _permute(
    members: list[Rows], patients: Rows, settings: ResamplingSettings, name: str
) -> tuple[Rows, NDArray[np.int16]]:
    """Rows of all groups, and [R, n] their groups when labels are permuted between patients."""
    rows = np.concatenate(members)
    groups = np.repeat(np.arange(len(members)), [len(group) for group in members])
    rng = numpy_generator(settings.seed, f"quality/null/{name}")
    permuted = np.empty((settings.replicates, len(rows)), dtype=np.int16)
    for row, labels in zip(permuted, group_permutations(groups, patients[rows], len(permuted), rng), strict=True):
        row[:] = labels
    return rows, permuted
