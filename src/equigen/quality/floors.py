"""Permutation test of a mean over generated images against that over real images, by patient."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equigen.statistics import p_value

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
Sample = tuple[Array, Rows]  # [n] scores, NaN where an image has none, and [n] codes of their patients
PERMUTATIONS = 1999  # enough for Holm over forty rows: their smallest p is 0.0005
MEMBERS_IN_MEMORY = 2**22  # entries of permuted memberships in memory at a time


def exceedance_p_value(sample: Sample, reference: Sample, rng: np.random.Generator) -> float | None:
    """One-sided p-value of the mean of ``sample`` being above that of ``reference``; None with fewer than two patients.

    Under the null hypothesis patients are exchangeable between the two samples, so whole patients are permuted. The
    difference of means is studentised by the variance between patients of both samples, so that the test also holds
    where one of them has more images per patient (Chung and Romano, Ann. Stat. 41, 2013).

    Args:
        sample: scores and patients of the tested images.
        reference: of the images with which they are compared, whose mean is an estimate too.
        rng: of the permutations.

    """
    first, second = _patient_totals(*sample), _patient_totals(*reference)
    size, count = len(first), len(first) + len(second)
    if size < 2 or len(second) < 2:
        return None
    sums, images = np.concatenate([first, second]).T
    moments = np.stack([sums, images, sums * sums, sums * images, images * images], axis=1)
    observed = np.zeros((1, count))
    observed[0, :size] = 1.0
    draws = [_statistics(observed, moments, size)]
    step = max(1, MEMBERS_IN_MEMORY // count)
    for start in range(0, PERMUTATIONS, step):
        members = np.tile(observed, (min(step, PERMUTATIONS - start), 1))
        draws.append(_statistics(rng.permuted(members, axis=1), moments, size))
    values = np.concatenate(draws)
    return p_value(float(values[0]), values[1:], scale=1.0)


def _patient_totals(scores: Array, patients: Rows) -> Array:
    """Sum of the scores and number of the images, [P, 2], of each patient with a score."""
    defined = np.isfinite(scores)
    codes = np.unique(patients[defined], return_inverse=True)[1]
    return np.stack([np.bincount(codes, scores[defined]), np.bincount(codes)], axis=1)


def _statistics(members: Array, moments: Array, size: int) -> Array:
    """[R] studentised differences of the two means; ``members`` [R, P] is 1 for patients of the first sample."""
    first = members @ moments
    second = moments.sum(axis=0) - first
    means, variances = [], []
    for total, patients in ((first, size), (second, len(moments) - size)):
        mean = total[:, 0] / total[:, 1]
        residuals = total[:, 2] - 2 * mean * total[:, 3] + mean * mean * total[:, 4]
        means.append(mean)
        variances.append(np.maximum(residuals, 0.0) / total[:, 1] ** 2 * patients / (patients - 1))
    difference, error = means[0] - means[1], np.sqrt(variances[0] + variances[1])
    difference = np.where(np.abs(difference) < 1e-12 * (np.abs(means[0]) + np.abs(means[1])), 0.0, difference)
    return np.asarray(difference / np.maximum(error, 1e-12))
