"""A value with its bootstrap replicates: the record that all tables make their intervals from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equigen.statistics.intervals import replicate_interval


@dataclass(frozen=True)
class Estimate:
    """A value with its bootstrap replicates [R]; NaN where one is undefined, none where it was not resampled.

    Estimates with replicates of the same resamples are subtracted replicate by replicate (a paired bootstrap).

    >>> difference = Estimate(3.0, np.array([3.0, 5.0])) - Estimate(1.0, np.array([0.0, 2.0]))
    >>> difference.value, difference.replicates.tolist()
    (2.0, [3.0, 3.0])

    """

    value: float
    replicates: NDArray[np.float64]

    def __sub__(self, reference: Estimate) -> Estimate:
        return Estimate(self.value - reference.value, self.replicates - reference.replicates)

    @property
    def lost(self) -> int:
        """Number of undefined replicates."""
        return int((~np.isfinite(self.replicates)).sum())

    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of ``replicate_interval``."""
        return replicate_interval(self.replicates)
