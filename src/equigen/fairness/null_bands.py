"""What chance gives where every group has the same value: group values drawn under that hypothesis.

Labels are not permuted: a permuted group has the average prevalence and the average number of images a patient, so
its band belongs to another group. Here each group keeps its own noise, that of its own cluster bootstrap, and only
its value is replaced by the common one. A group's bootstrap variance v is read as an *effective number*
n = M (1 - M) / v, the number of independent cases with that variance (for a sensitivity without clusters it is the
number of positives).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtr

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
PRIOR = 0.5  # patients' worth of belief that each patient is one case: steadies the variance of small groups
LEAST = 1e-12  # variance below which replicates are all equal up to rounding


def effective_numbers(values: Floats, patients: Counts) -> Floats:
    """Number of independent cases whose share would vary as each group's metric does.

        1 / n_g = [(K_g - 1) v_g / (M_g (1 - M_g)) + c / K_g] / (K_g - 1 + c),    v_g = var(replicates) K_g / (K_g - 1)

    K_g, the patients a metric rests on, is also n_g where the replicates are all equal (every case a success): the
    bootstrap knows no variance there. The second term is a prior of c = 1/2 patient that is one case: without it the
    variance of an AUC near 1 in 45 patients comes out too small.

    Args:
        values: [G, 1 + R] each group's metric in [0, 1], the estimate first; NaN where undefined.
        patients: [G] K_g, with both classes the fewer of the two.

    Returns:
        [G], at least 2; NaN where the estimate is.

    """
    estimate, number = values[:, 0], np.maximum(patients, 2).astype(np.float64)
    spread = np.array([np.var(row[np.isfinite(row)], ddof=1) if np.isfinite(row).sum() > 1 else 0.0
                       for row in values[:, 1:]])
    ceiling = estimate * (1 - estimate)
    varies = (spread > LEAST) & (ceiling > LEAST)
    unit = np.divide(spread * number / (number - 1), ceiling, out=1 / number, where=varies)
    weight = number - 1
    found = np.maximum(2.0, (weight + PRIOR) / (weight * unit + PRIOR / number))
    return np.where(np.isfinite(estimate), found, np.nan)


def common_value(estimates: Floats, numbers: Floats) -> float:
    """Mean of the groups' values by effective number, with half a success and half a failure more.

    >>> common_value(np.array([1.0, 1.0]), np.array([4.0, 5.0]))
    0.95

    """
    return float((np.nansum(numbers * estimates) + 0.5) / (np.nansum(numbers) + 1))


def noise(
    draws: int, patients: Counts, rng: np.random.Generator, replicates: Floats | None = None
) -> Floats:
    """Noise of each group in standard units, [G, draws]: Student's t with K_g - 1 degrees of freedom.

    The t stands for a variance that is estimated from K_g patients. ``replicates`` [G, R] are given where patients
    have rows in several groups: the noise is then correlated as they are.
    """
    normal = rng.standard_normal((len(patients), draws))
    if replicates is not None:
        normal = _root(replicates) @ normal
    df = np.maximum(patients - 1, 1).astype(np.float64)[:, None]
    shrunk: Floats = normal / np.sqrt(rng.chisquare(df, normal.shape) / df)
    return shrunk


def _root(replicates: Floats) -> Floats:
    """A matrix L whose L Lᵀ is the correlation of the groups' replicates; groups that never vary stand alone."""
    usable = np.isfinite(replicates).all(axis=0)
    identity = np.eye(len(replicates))
    if usable.sum() < 3:
        return identity
    centred = replicates[:, usable] - replicates[:, usable].mean(axis=1, keepdims=True)
    size = np.sqrt((centred**2).sum(axis=1))
    unit = np.divide(centred, size[:, None], out=np.zeros_like(centred), where=size[:, None] > LEAST)
    correlation = unit @ unit.T
    np.fill_diagonal(correlation, 1.0)
    values, vectors = np.linalg.eigh(correlation)
    root: Floats = vectors * np.sqrt(np.maximum(values, 0.0))
    return root


def steadied(values: Floats, patients: int, rng: np.random.Generator) -> Floats:
    """Values [1 + R] of one group; replicates that all are 0, or all 1, are drawn anew from what K cases leave open.

    A bootstrap of successes alone gives successes alone. In their place: Beta(K M + 1/2, K (1 - M) + 1/2), Jeffreys'
    posterior of a share (Brown, Cai and DasGupta, Statistical Science 16, 2001).
    """
    estimate, replicates = values[0], values[1:]
    if estimate not in (0.0, 1.0) or not (np.abs(replicates - estimate) <= LEAST).all():
        return values
    drawn = rng.beta(patients * estimate + 0.5, patients * (1 - estimate) + 0.5, len(replicates))
    return np.concatenate([values[:1], drawn])


def equal_values(
    values: Floats, patients: Counts, draws: int, rng: np.random.Generator, *, mixed: bool = False
) -> Floats:
    """Each group's metric if all groups had the common value, [G, draws].

    A Beta distribution with the common value M as its mean and M (1 - M) / n_g as its variance, n_g the group's
    effective number, taken at the quantiles of a Student's t with K_g - 1 degrees of freedom.

    Args:
        values: [G, 1 + R] each group's metric in [0, 1], the estimate first.
        patients: [G] the patients each rests on.
        draws: how many draws.
        rng: source of the draws.
        mixed: whether patients have rows in several groups.

    Returns:
        [G, draws], NaN for groups without an estimate.

    """
    result = np.full((len(values), draws), np.nan)
    used = np.flatnonzero(np.isfinite(values[:, 0]))
    if len(used) == 0 or draws == 0:
        return result
    part, count = values[used], patients[used]
    numbers = effective_numbers(part, count)
    mean = common_value(part[:, 0], numbers)
    shares = ndtr(noise(draws, count, rng, part[:, 1:] if mixed else None))
    size = (numbers - 1)[:, None]
    result[used] = betaincinv(size * mean, size * (1 - mean), shares)
    return result


def equal_calibration(surprise: Floats, shares: Floats, rows: Counts, patients: Counts, draws: int) -> Floats:
    """Each group's calibration error if all groups had the same recalibration curve, [G, draws].

    The curve is the mean of truth less probability in each bin over all groups. To it is added the group's own
    bootstrap noise, in each bin, before absolute values are taken, so that a small group's calibration error is
    biased upwards under chance as it is in the data.

    Args:
        surprise: [G, BINS, 1 + R] sum of truth less probability in each bin, divided by the group's rows.
        shares: [G, BINS] share of the group's rows in each bin.
        rows: [G] rows.
        patients: [G] patients.
        draws: how many draws; replicates are used again where there are fewer.

    Returns:
        [G, draws]; NaN where the group or every replicate is undefined.

    """
    result = np.full((len(surprise), draws), np.nan)
    used = np.flatnonzero(np.isfinite(surprise[:, :, 0]).all(axis=1))
    if len(used) == 0 or draws == 0 or surprise.shape[2] < 2:
        return result
    parts, shown, weight = surprise[used], shares[used], rows[used][:, None].astype(np.float64)
    counted = (weight * shown).sum(axis=0)
    curve = np.divide((weight * parts[:, :, 0]).sum(axis=0), counted, out=np.zeros_like(counted), where=counted > 0)
    grown = np.sqrt(patients[used] / np.maximum(patients[used] - 1, 1))[:, None, None]
    moved = (parts[:, :, 1:] - parts[:, :, :1]) * grown
    chance = np.abs((shown * curve)[:, :, None] + moved).sum(axis=1)
    result[used] = chance[:, np.resize(np.arange(chance.shape[1]), draws)]
    return result
