"""Tests of whether groups are exchangeable, so that their labels may be permuted: equal spread and cluster size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from equigen.quality.cells import Rows
from equigen.quality.metric_inputs import MeasurementPlan
from equigen.statistics import p_value

LEVEL = 0.05
CLUSTERS = 1.5  # ratio of images per patient between two groups beyond which they are unequal by more than chance


def group_heterogeneity(real: NDArray[Any], generated: NDArray[Any], plan: MeasurementPlan) -> dict[str, str]:
    """In what the eligible groups of each attribute differ, "spread", "images per patient" or both; without equal ones.

    Spread is the mean squared distance to the group's mean, of real or of generated images; whether it differs is a
    permutation test by patient at 0.05, halved for the two sets. Labels may be exchanged only where neither differs
    (METHODS section 6).

    Args:
        real: [N, D] features.
        generated: [M, D].
        plan: cells and draws.

    """
    result = {}
    for attribute, pool in plan.draws.null.items():
        cells = plan.eligible(attribute)
        sets = [
            (real, pool.real_groups, [cell.real for cell in cells], plan.draws.real.patients),
            (generated, pool.generated_groups, [cell.generated for cell in cells], plan.draws.generated.patients),
        ]
        differences = []
        if any(_spreads_differ(values, permuted, rows) for values, permuted, rows, _ in sets):
            differences.append("spread")
        sizes = [[len(members) / len(np.unique(patients[members])) for members in rows] for *_, rows, patients in sets]
        if any(max(groups) > CLUSTERS * min(groups) for groups in sizes):
            differences.append("images per patient")
        if differences:
            result[attribute] = " and ".join(differences)
    return result


def _spreads_differ(values: NDArray[Any], permuted: NDArray[np.int16], rows: list[Rows]) -> bool:
    """Test whether the groups' spreads are further apart than those of permuted labels, ``permuted`` [R, n]."""
    squares = []
    for members in rows:
        centred = values[members].astype(np.float64) - values[members].mean(axis=0, dtype=np.float64)
        squares.append(np.einsum("nd,nd->n", centred, centred))
    distances = np.concatenate(squares)
    groups = np.repeat(np.arange(len(rows)), [len(members) for members in rows])
    size = len(rows)
    means = np.stack(
        [
            np.bincount(labels, distances, size) / np.maximum(np.bincount(labels, minlength=size), 1)
            for labels in (groups, *permuted)
        ]
    )
    ranges = np.ptp(np.log(np.maximum(means, np.finfo(np.float64).tiny)), axis=1)
    return bool(p_value(float(ranges[0]), ranges[1:]) <= LEVEL / 2)
