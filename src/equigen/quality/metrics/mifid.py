"""Memorisation-informed Fréchet distance (MiFID): FD with a penalty where generated images are copies.

The penalty depends on an angle between features alone and jumps at a fixed threshold, so it suits encoders whose
held-out images are well above it; where they are not, the note says so. Near copies and distance ratios
(``memorisation``) are more informative.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from equigen.errors import InputError, Problem
from equigen.quality.cells import Cell, Rows
from equigen.quality.estimates import measure_with_influences
from equigen.quality.metric_inputs import MeasurementPlan, MetricResult
from equigen.quality.metrics.frechet import frechet_distance, frechet_halves, frechet_influence
from equigen.quality.metrics.influence import Array, Influence, centred_values
from equigen.quality.metrics.neighbours import nearest_angle
from equigen.quality.rows import join_notes

TAU = 0.1  # cosine distance below which MiFID penalises (Bai et al.; Kaggle)
JUMP = f"FD over a penalty that jumps at a cosine distance of {TAU}; interval to first order, blind to the jump"


def memorisation_informed_distance(
    real: NDArray[Any], generated: NDArray[Any], tau: float = TAU, *, training: NDArray[Any] | None = None
) -> float:
    """Return the memorisation-informed Fréchet distance (MiFID on features of the FID Inception network).

        MiFID = FD / d if d < tau, else FD;    d = mean_j min_i ( 1 - |cos(g_j, t_i)| )

    Source: Bai et al., KDD 2021 (arXiv 2106.03062), the metric of a Kaggle competition; d averages over the
    *generated* images. torchmetrics 1.9 averages over its real images: swap its arguments (FD does not change)
    for the same number. As there, the divisor is d + 1e-14, a distance below 1e-8 counts as 0, and rows of zeros
    are left out of d.

    Args:
        real: [N, D] features that FD compares with.
        generated: [M, D] features.
        tau: threshold in (0, 1].
        training: [T, D] features in which copies are searched for; None takes ``real``, as in the competition.

    Raises:
        InputError: fewer than two rows, different D, NaN or infinity, tau outside (0, 1].

    """
    if not 0 < tau <= 1:
        raise InputError("A cosine distance lies in [0, 1].", [Problem(f"tau is {tau}", "0.1 is usual")])
    value = frechet_distance(real, generated)
    angles = nearest_angle(generated, real if training is None else training)
    return mifid_influence(_constant_influence(value, len(generated)), angles, tau).value


def mifid_influence(distance: Influence, angles: Array, tau: float = TAU) -> Influence:
    """Return MiFID with influences from those of FD: for d < tau, psi = psi_FD / d - FD (a_j - d) / d².

    Args:
        distance: FD at a subsample, with influences.
        angles: [M] cosine distance of each generated row to its nearest training row; NaN is left out of d.
        tau: threshold. The influences ignore the jump of the penalty there.

    """
    defined = np.isfinite(angles)
    d = float(angles[defined].mean()) if defined.any() else 1.0
    if distance.value <= 1e-8:
        return Influence(0.0, np.zeros_like(distance.real), np.zeros_like(distance.generated))
    if d >= tau:
        return distance
    scale = 1 / (d + 1e-14)
    angle_influence = np.where(defined, angles - d, 0.0) * len(angles) / defined.sum()
    shift = centred_values(distance.generated * scale - distance.value * scale * scale * angle_influence)
    return Influence(distance.value * scale, distance.real * scale, shift)


def measure_mifid(
    real: NDArray[Any], generated: NDArray[Any], angles: tuple[Array, Array], plan: MeasurementPlan, note: str = ""
) -> MetricResult:
    """Measure MiFID at matched n in every eligible cell; its floor is MiFID between two halves of the real images.

    Args:
        real: [N, D] features of held-out images.
        generated: [M, D].
        angles: cosine distances [M] of generated and [N] of held-out images to their nearest training image.
        plan: cells, draws and n.
        note: end of the note of each row.

    """

    def influences(first: Rows, second: Rows) -> list[Influence]:
        a, b = real[first].astype(np.float64), generated[second].astype(np.float64)
        return [mifid_influence(frechet_influence(a, b), angles[0][second])]

    def floor(cell: Cell) -> list[Array]:
        values = []
        distances = frechet_halves(real, cell, plan)
        for value, (_, second) in zip(distances, plan.half_samples(cell), strict=True):
            values.append(mifid_influence(_constant_influence(float(value), len(second)), angles[1][second]).value)
        return [np.array(values)]

    means = [
        float(distances[np.isfinite(distances)].mean()) if np.isfinite(distances).any() else np.nan
        for distances in angles
    ]
    text = f"mean cosine distance to training: {means[0]:.3g} generated, {means[1]:.3g} held out"
    warning = "tau does not fit this encoder, since held-out images are penalised too" if means[1] < TAU else ""
    notes = [join_notes(text, warning, JUMP, note)]
    return measure_with_influences([("mifid", "lower")], influences, floor, plan, notes)[0]


def _constant_influence(value: float, count: int) -> Influence:
    """Return a value with influences of zero, where only the value is of interest."""
    return Influence(value, np.zeros(0), np.zeros(count))
