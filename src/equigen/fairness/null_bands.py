"""Null distributions of group metrics under the hypothesis that every group has the same value.

Labels are not permuted, since a permuted group has the average prevalence and the average number of images per
patient, which are not those of the group. Each group keeps the noise of its own cluster bootstrap, and its value is
replaced by the common value. A group's bootstrap variance v is expressed as an *effective number* n = M (1 - M) / v,
the number of independent cases with that variance (for a sensitivity without clusters the number of positives).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtr

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
PRIOR = 0.5  # weight in patients of the prior that each patient is one case, for the variance of small groups
TOLERANCE = 1e-12  # replicates of smaller variance are equal up to rounding


def effective_numbers(values: Floats, patients: Counts) -> Floats:
    """Effective number of each group: the independent cases whose share has the variance of the group's metric.

        1 / n_g = [(K_g - 1) v_g / (M_g (1 - M_g)) + c / K_g] / (K_g - 1 + c),    v_g = var(replicates) K_g / (K_g - 1)

    K_g is the support of the metric in patients. It is also n_g where all replicates are equal (every case a success),
    since the bootstrap has no variance there. The second term is a prior of c = 1/2 patient of one case; without it
    the variance of an AUC near 1 in 45 patients is underestimated.

    Args:
        values: [G, 1 + R] each group's metric in [0, 1], the estimate first; NaN where undefined.
        patients: [G] K_g; of a metric of both classes that of the smaller class.

    Returns:
        [G], at least 2; NaN where the estimate is NaN.

    """
    estimate, number = values[:, 0], np.maximum(patients, 2).astype(np.float64)
    spread = np.array(
        [np.var(row[np.isfinite(row)], ddof=1) if np.isfinite(row).sum() > 1 else 0.0 for row in values[:, 1:]]
    )
    ceiling = estimate * (1 - estimate)
    varies = (spread > TOLERANCE) & (ceiling > TOLERANCE)
    unit = np.divide(spread * number / (number - 1), ceiling, out=1 / number, where=varies)
    weight = number - 1
    effective = np.maximum(2.0, (weight + PRIOR) / (weight * unit + PRIOR / number))
    return np.where(np.isfinite(estimate), effective, np.nan)


def common_value(estimates: Floats, numbers: Floats) -> float:
    """Mean of the groups' values weighted by effective number, plus half a success and half a failure.

    >>> common_value(np.array([1.0, 1.0]), np.array([4.0, 5.0]))
    0.95

    """
    return float((np.nansum(numbers * estimates) + 0.5) / (np.nansum(numbers) + 1))


def group_noise(draws: int, patients: Counts, rng: np.random.Generator, replicates: Floats | None = None) -> Floats:
    """Standardised noise of each group [G, draws]: Student's t with K_g - 1 degrees of freedom.

    The t distribution accounts for a variance estimated from K_g patients. ``replicates`` [G, R] are given where
    patients have rows in several groups: the noise then has their correlation.
    """
    normal = rng.standard_normal((len(patients), draws))
    if replicates is not None:
        normal = _correlation_root(replicates) @ normal
    df = np.maximum(patients - 1, 1).astype(np.float64)[:, None]
    scaled: Floats = normal / np.sqrt(rng.chisquare(df, normal.shape) / df)
    return scaled


def _correlation_root(replicates: Floats) -> Floats:
    """A matrix L whose L Lᵀ is the correlation of the groups' replicates; constant groups are uncorrelated."""
    usable = np.isfinite(replicates).all(axis=0)
    identity = np.eye(len(replicates))
    if usable.sum() < 3:
        return identity
    centred = replicates[:, usable] - replicates[:, usable].mean(axis=1, keepdims=True)
    size = np.sqrt((centred**2).sum(axis=1))
    unit = np.divide(centred, size[:, None], out=np.zeros_like(centred), where=size[:, None] > TOLERANCE)
    correlation = unit @ unit.T
    np.fill_diagonal(correlation, 1.0)
    values, vectors = np.linalg.eigh(correlation)
    root: Floats = vectors * np.sqrt(np.maximum(values, 0.0))
    return root


def replace_degenerate(values: Floats, patients: int, rng: np.random.Generator) -> Floats:
    """Values [1 + R] of one group, with replicates that all are 0 or all 1 replaced by draws of a Beta distribution.

    A bootstrap of successes alone has no variance. The draws are of Beta(K M + 1/2, K (1 - M) + 1/2), Jeffreys'
    posterior of a share (Brown, Cai and DasGupta, Statistical Science 16, 2001).
    """
    estimate, replicates = values[0], values[1:]
    if estimate not in (0.0, 1.0) or not (np.abs(replicates - estimate) <= TOLERANCE).all():
        return values
    posterior = rng.beta(patients * estimate + 0.5, patients * (1 - estimate) + 0.5, len(replicates))
    return np.concatenate([values[:1], posterior])


def null_values(
    values: Floats, patients: Counts, draws: int, rng: np.random.Generator, *, mixed: bool = False
) -> Floats:
    """Each group's metric under equal values of all groups, [G, draws].

    Quantiles of a Beta distribution with the common value M as its mean and M (1 - M) / n_g as its variance (n_g: the
    group's effective number), at the probabilities of a Student's t with K_g - 1 degrees of freedom.

    Args:
        values: [G, 1 + R] each group's metric in [0, 1], the estimate first.
        patients: [G] support of the metric in patients.
        draws: number of draws.
        rng: source of the draws.
        mixed: whether patients have rows in several groups.

    Returns:
        [G, draws], NaN for groups without an estimate.

    """
    result = np.full((len(values), draws), np.nan)
    defined = np.flatnonzero(np.isfinite(values[:, 0]))
    if len(defined) == 0 or draws == 0:
        return result
    values, counts = values[defined], patients[defined]
    numbers = effective_numbers(values, counts)
    mean = common_value(values[:, 0], numbers)
    probabilities = ndtr(group_noise(draws, counts, rng, values[:, 1:] if mixed else None))
    size = (numbers - 1)[:, None]
    result[defined] = betaincinv(size * mean, size * (1 - mean), probabilities)
    return result


def null_calibration_errors(residuals: Floats, shares: Floats, rows: Counts, patients: Counts, draws: int) -> Floats:
    """Each group's calibration error under equal recalibration curves of all groups, [G, draws].

    The common curve is the mean of truth less probability in each bin over all groups. The group's own bootstrap noise
    is added to it in each bin before absolute values are taken, so that the null distribution has the upward bias of
    the calibration error in a small group.

    Args:
        residuals: [G, BINS, 1 + R] sum of truth less probability in each bin, divided by the group's rows.
        shares: [G, BINS] share of the group's rows in each bin.
        rows: [G] rows.
        patients: [G] patients.
        draws: number of draws; fewer replicates are repeated.

    Returns:
        [G, draws]; NaN where the group or every replicate is undefined.

    """
    result = np.full((len(residuals), draws), np.nan)
    defined = np.flatnonzero(np.isfinite(residuals[:, :, 0]).all(axis=1))
    if len(defined) == 0 or draws == 0 or residuals.shape[2] < 2:
        return result
    residuals, shares, weight = residuals[defined], shares[defined], rows[defined][:, None].astype(np.float64)
    totals = (weight * shares).sum(axis=0)
    curve = np.divide((weight * residuals[:, :, 0]).sum(axis=0), totals, out=np.zeros_like(totals), where=totals > 0)
    correction = np.sqrt(patients[defined] / np.maximum(patients[defined] - 1, 1))[:, None, None]
    deviations = (residuals[:, :, 1:] - residuals[:, :, :1]) * correction
    errors = np.abs((shares * curve)[:, :, None] + deviations).sum(axis=1)
    result[defined] = errors[:, np.resize(np.arange(errors.shape[1]), draws)]
    return result
