"""Whether an attribute's groups differ in what permutations of their labels would mix: spread, and cluster size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from equigen.quality.cells import Rows
from equigen.quality.metric_inputs import Array, MeasurementPlan
from equigen.statistics import p_value

LEVEL = 0.05
CLUSTERS = 1.5  # times as many images per patient in one group as in another: more than chance makes of equal groups


def group_heterogeneity(real: NDArray[Any], generated: NDArray[Any], plan: MeasurementPlan) -> dict[str, str]:
    """For each attribute in what its eligible groups differ, "spread", "images per patient" or both; left out for none.

    Spread is the mean squared distance to the group's mean, on either side; whether it differs is a permutation test by
    patient at 0.05, halved for the two sides. Labels may be exchanged only where neither differs (METHODS section 6).

    Args:
        real: [N, D] features.
        generated: [M, D].
        plan: cells and draws.

    """
    result = {}
    for attribute, pool in plan.draws.null.items():
        cells = plan.eligible(attribute)
        sides = [(real, pool.real_groups, [cell.real for cell in cells]),
                 (generated, pool.generated_groups, [cell.generated for cell in cells])]
        spread = any(_spreads_differ(values, permuted, rows) for values, permuted, rows in sides)
        owners = [[plan.draws.real.patients[cell.real] for cell in cells],
                  [plan.draws.generated.patients[cell.generated] for cell in cells]]
        sizes = [[len(own) / len(np.unique(own)) for own in side] for side in owners]
        clusters = any(max(side) > CLUSTERS * min(side) for side in sizes)
        words = [name for name, differs in (("spread", spread), ("images per patient", clusters)) if differs]
        if words:
            result[attribute] = " and ".join(words)
    return result


def _spreads_differ(values: NDArray[Any], permuted: NDArray[np.int16], rows: list[Rows]) -> bool:
    """Whether the groups' spreads are further apart than those of permuted labels, ``permuted`` [R, n]."""
    squares = np.concatenate([_squares(values[own]) for own in rows])
    groups = np.repeat(np.arange(len(rows)), [len(own) for own in rows])
    means = np.stack([_means(labels, squares, len(rows)) for labels in (groups, *permuted)])
    apart = np.ptp(np.log(np.maximum(means, np.finfo(np.float64).tiny)), axis=1)
    return bool(p_value(float(apart[0]), apart[1:]) <= LEVEL / 2)


def _squares(values: NDArray[Any]) -> Array:
    """[n] squared distances to the mean of the rows."""
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    return np.asarray(np.einsum("nd,nd->n", centred, centred))


def _means(labels: NDArray[Any], values: Array, size: int) -> Array:
    return np.asarray(np.bincount(labels, values, size) / np.maximum(np.bincount(labels, minlength=size), 1))
