"""Whether a mean over generated images is beyond that over real ones by chance: both sides err."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equigen.statistics import p_value

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
Scored = tuple[Array, Rows]  # [n] scores, NaN where an image has none, and [n] codes of their patients
PERMUTATIONS = 1999  # enough for Holm over forty rows: their smallest p is 0.0005
TOGETHER = 2**22  # members of permuted sides in memory at a time


def exceedance_p_value(side: Scored, reference: Scored, rng: np.random.Generator) -> float | None:
    """One-sided p-value of the mean of ``side`` being above that of ``reference`` by chance; None without two patients.

    Were the images of both sides drawn alike, their patients could change sides: whole patients are shuffled. The
    difference of means is studentised by the variance between patients on both sides, so that the test also holds where
    one side has more images per patient (Chung and Romano, Ann. Stat. 41, 2013).

    Args:
        side: scores and patients of the images that are tested.
        reference: of those they are held against, whose mean is not known either.
        rng: of the permutations.

    """
    first, second = _totals(*side), _totals(*reference)
    size, count = len(first), len(first) + len(second)
    if size < 2 or len(second) < 2:
        return None
    parts = np.concatenate([first, second])
    sums, images = parts.T
    moments = np.stack([sums, images, sums * sums, sums * images, images * images], axis=1)
    observed = np.zeros((1, count))
    observed[0, :size] = 1.0
    draws = [_statistics(observed, moments, size)]
    step = max(1, TOGETHER // count)
    for start in range(0, PERMUTATIONS, step):
        members = np.tile(observed, (min(step, PERMUTATIONS - start), 1))
        draws.append(_statistics(rng.permuted(members, axis=1), moments, size))
    values = np.concatenate(draws)
    return p_value(float(values[0]), values[1:], scale=1.0)


def _totals(scores: Array, patients: Rows) -> Array:
    """[P, 2] sum of the scores and number of the images of each patient who has a score."""
    defined = np.isfinite(scores)
    codes = np.unique(patients[defined], return_inverse=True)[1]
    return np.stack([np.bincount(codes, scores[defined]), np.bincount(codes)], axis=1)


def _statistics(members: Array, moments: Array, size: int) -> Array:
    """[R] differences of the means of both sides over their standard error; ``members`` [R, P] is 1 for the first."""
    one = members @ moments
    two = moments.sum(axis=0) - one
    means, variances = [], []
    for total, patients in ((one, size), (two, len(moments) - size)):
        mean = total[:, 0] / total[:, 1]
        rest = total[:, 2] - 2 * mean * total[:, 3] + mean * mean * total[:, 4]
        means.append(mean)
        variances.append(np.maximum(rest, 0.0) / total[:, 1] ** 2 * patients / (patients - 1))
    difference, error = means[0] - means[1], np.sqrt(variances[0] + variances[1])
    difference = np.where(np.abs(difference) < 1e-12 * (np.abs(means[0]) + np.abs(means[1])), 0.0, difference)
    return np.asarray(difference / np.maximum(error, 1e-12))
