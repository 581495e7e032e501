"""Intervals from bootstrap replicates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from equigen.errors import InputError, Problem


def check_finite(values: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """Return the values as a flat float64 array; InputError, which names the statistic, for none, NaN or infinity.

    Undefined values have to be counted and left out by the caller, not silently by the statistic.
    """
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    bad = int(np.sum(~np.isfinite(array)))
    if len(array) == 0 or bad:
        message = "no values" if len(array) == 0 else f"{bad} of {len(array)} values are not finite"
        problem = Problem(message, "drop and count what is undefined first")
        raise InputError(f"Cannot compute {name}.", [problem])
    return array


def percentile_interval(values: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of bootstrap replicates: their (1 - level)/2 and (1 + level)/2 quantiles.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.

    Args:
        values: [R] the statistic in each replicate; NaN is refused.
        level: coverage aimed at, between 0 and 1.

    Raises:
        InputError: no values, a value that is not finite, or a level outside (0, 1).

    >>> percentile_interval(np.arange(101.0), level=0.5)
    (25.0, 75.0)

    """
    if not 0 < level < 1:
        raise InputError("A level lies between 0 and 1.", [Problem(f"level is {level}", "0.95 is usual")])
    array = check_finite(values, "an interval")
    low, high = np.quantile(array, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def replicate_interval(
    values: NDArray[np.float64], *, least: int = 2, level: float = 0.95
) -> tuple[float, float] | None:
    """Percentile interval of the finite values; None where fewer than half of the values, or than ``least``, are.

    For replicates in which a group may be empty or of one class. Undefined ones are left out, so that the interval
    holds under the condition that the statistic exists; where that is rare, there is no interval.

    >>> replicate_interval(np.array([1.0, 1.0, np.nan])), replicate_interval(np.array([1.0, np.nan, np.nan]))
    ((1.0, 1.0), None)

    """
    finite = values[np.isfinite(values)]
    return None if 2 * len(finite) < max(2 * least, len(values)) else percentile_interval(finite, level)


def interval_error(values: NDArray[np.float64], level: float = 0.95) -> float:
    """Monte-Carlo standard error of the less certain end of a percentile interval, from finitely many replicates.

    The number of replicates below a quantile is binomial, so the quantile at q moves between those at
    q - s and q + s with s = sqrt(q (1 - q) / R); half of that distance is its standard error (Serfling,
    Approximation Theorems of Mathematical Statistics, 1980, section 2.3). The larger of both ends' is returned.

    Args:
        values: [R] the statistic in each replicate; NaN is refused.
        level: of the interval.

    Raises:
        InputError: no values, or a value that is not finite.

    """
    array, tail = check_finite(values, "an interval's error"), (1 - level) / 2
    step = np.sqrt(tail * (1 - tail) / len(array))
    ends = [np.quantile(array, np.clip([end - step, end + step], 0, 1)) for end in (tail, 1 - tail)]
    return float(max(high - low for low, high in ends) / 2)


def wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share, which keeps a width where none or all of n are successes.

        (k + z²/2 ± z sqrt(k (n - k) / n + z²/4)) / (n + z²)

    Source: Wilson, J. Am. Stat. Assoc. 22, 1927. The numbers are those of ``scipy.stats.binomtest``, which computes an
    exact test besides and so takes milliseconds a call; ``share_interval``, which scipy lacks, has the same formula.

    Args:
        successes: k of n independent cases.
        n: number of cases, at least 1.
        level: coverage aimed at, between 0 and 1.

    Raises:
        InputError: no case, more successes than cases, or a level outside (0, 1).

    >>> tuple(round(end, 4) for end in wilson_interval(0, 10))
    (0.0, 0.2775)

    """
    if n < 1 or not 0 <= successes <= n or not 0 < level < 1:
        problem = Problem(f"{successes} of {n} at level {level}", "count at least one case; 0.95 is a usual level")
        raise InputError("Cannot compute an interval of a share.", [problem])
    low, high = _score_interval(successes, successes * (n - successes) / n, n, float(ndtri((1 + level) / 2)))
    return 0.0 if successes == 0 else low, 1.0 if successes == n else high


def _score_interval(successes: float, variance: float, n: float, z: float) -> tuple[float, float]:
    """Return both solutions p of |k - n p| = z sqrt(n p (1 - p)) for k successes of variance k (1 - k / n)."""
    centre, half = successes + z * z / 2, z * np.sqrt(variance + z * z / 4)
    return float((centre - half) / (n + z * z)), float((centre + half) / (n + z * z))


def share_interval(value: float, number: float, df: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a value in [0, 1] that varies as the share of successes in ``number`` cases does.

        (n M + t²/2 ± t sqrt(n M (1 - M) + t²/4)) / (n + t²)

    For a sensitivity without clusters n is the number of positives. For other metrics in [0, 1], and with several
    rows a patient, it is the effective number M (1 - M) / v, v the variance over resampled patients; an AUC's
    interval in this form holds its coverage near 1, where symmetric ones do not (Kottas et al., Statistical Methods
    in Medical Research 23, 2014). t is Student's quantile, for a variance that is estimated.

    Args:
        value: M.
        number: n, above 0, not necessarily whole.
        df: degrees of freedom of the variance, above 0; infinite gives Wilson's own z.
        level: coverage aimed at, between 0 and 1.

    Raises:
        InputError: a value outside [0, 1], no case, no degrees of freedom, or a level outside (0, 1).

    >>> tuple(round(end, 4) for end in share_interval(0.0, 10.0, np.inf))
    (0.0, 0.2775)

    """
    if not (0 <= value <= 1 and number > 0 and df > 0 and 0 < level < 1):
        problem = Problem(f"{value} of {number} cases, {df} degrees of freedom, level {level}", "check these values")
        raise InputError("Cannot compute an interval of a share.", [problem])
    t = float(ndtri((1 + level) / 2)) if np.isinf(df) else float(stdtrit(df, (1 + level) / 2))
    low, high = _score_interval(number * value, number * value * (1 - value), number, t)
    return 0.0 if value == 0 else low, 1.0 if value == 1 else high
