"""Statistics on arrays: resampling by patient, intervals, null bands, Holm, gaps and equity-scaled values."""

from __future__ import annotations

from equigen.statistics.equity import equity_scaled, gap
from equigen.statistics.intervals import percentile_interval
from equigen.statistics.resampling import (
    patient_bootstrap,
    patient_codes,
    permute_groups,
    split_halves,
    subsample,
)
from equigen.statistics.testing import holm, p_value

__all__ = [
    "equity_scaled",
    "gap",
    "holm",
    "p_value",
    "patient_bootstrap",
    "patient_codes",
    "percentile_interval",
    "permute_groups",
    "split_halves",
    "subsample",
]
