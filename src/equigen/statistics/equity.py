"""Gap and equity-scaled value of one metric over the groups of one attribute."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from equigen.errors import InputError, Problem
from equigen.statistics.intervals import check_finite


def gap(values: NDArray[np.float64] | Sequence[float]) -> float:
    """Gap between groups, max_g M_g - min_g M_g (METHODS section 5).

    Raises InputError for no values or one that is not finite: a group without a value is left out by the
    caller, who says so.

    >>> gap([0.5, 0.25, 0.75])
    0.5
    """
    array = check_finite(np.asarray(values, dtype=np.float64), "a gap")
    return float(array.max() - array.min())


def equity_scaled(
    overall: float, groups: NDArray[np.float64], *, relative: bool, higher_is_better: bool, alpha: float = 1.0
) -> float:
    """Equity-scaled value of a metric: it gets worse by the groups' summed distance from the overall value.

    With D = sum_g |M_g - M|, and D/M in its place when ``relative``:

        higher is better:  M / (1 + alpha D)        ES-AUC (relative=False); ES-IS (relative=True)
        lower is better:   M · (1 + alpha D)        ES-FID (relative=True), which is M + alpha sum_g |M_g - M|

    Source: Luo et al., Science Advances 11, 2025 for ES-AUC; the relative forms are our reading of ES-IS and
    ES-FID (METHODS section 5, open). The sum runs over groups, so values of attributes with different numbers
    of groups do not compare.

    Args:
        overall: M, the metric over everything.
        groups: [G] M_g, the metric in each group.
        relative: divide the distance by M.
        higher_is_better: whether a large M is good.
        alpha: weight of the distance.

    Raises:
        InputError: a value is not finite, or relative and higher is better with M not above zero.

    >>> round(equity_scaled(0.8, np.array([0.7, 0.9]), relative=False, higher_is_better=True), 4)
    0.6667
    >>> round(equity_scaled(20.0, np.array([15.0, 30.0]), relative=True, higher_is_better=False), 6)
    35.0

    """
    values = check_finite(groups, "an equity-scaled value")
    if not np.isfinite(overall):
        problem = Problem(f"overall is {overall}", "report it as undefined")
        raise InputError("Cannot scale what is not finite.", [problem])
    if relative and higher_is_better and overall <= 0:
        raise InputError(
            "A relative scale needs a value above zero.", [Problem(f"overall is {overall}", "use relative=False")]
        )
    table = np.array([overall]), values[None]
    return float(equity_scaled_rows(*table, relative=relative, higher_is_better=higher_is_better, alpha=alpha)[0])


def equity_scaled_rows(
    overall: NDArray[np.float64],
    groups: NDArray[np.float64],
    *,
    relative: bool,
    higher_is_better: bool,
    alpha: float = 1.0,
) -> NDArray[np.float64]:
    """Equity-scaled value of each row (a bootstrap replicate, say) of ``overall`` [R] and ``groups`` [R, G] -> [R].

    The formula and settings are those of ``equity_scaled``; NaN where it would raise.

    >>> equity_scaled_rows(
    ...     np.array([0.5, 0.5]), np.array([[0.25, 0.75], [np.nan, 0.5]]), relative=False, higher_is_better=True
    ... ).round(4).tolist()
    [0.3333, nan]

    """
    with np.errstate(invalid="ignore"):  # infinity less infinity
        distance = np.abs(groups - overall[:, None]).sum(axis=1)
    undefined = ~(np.isfinite(overall) & np.isfinite(distance))
    if higher_is_better and relative:
        undefined |= overall <= 0
    base = np.where(undefined, 1.0, overall)
    distance = np.where(undefined, 0.0, distance)
    if higher_is_better:
        values = base / (1 + alpha * distance / base) if relative else base / (1 + alpha * distance)
    else:
        values = base + alpha * distance if relative else base * (1 + alpha * distance)
    return np.where(undefined, np.nan, values)
