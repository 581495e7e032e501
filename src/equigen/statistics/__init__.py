"""Statistics on arrays: resampling by patient, intervals, null bands, Holm, gaps and equity-scaled values."""

from __future__ import annotations

from equigen.statistics.equity import equity_scaled, gap
from equigen.statistics.intervals import interval_error, percentile_interval, share_interval, wilson_interval
from equigen.statistics.resampling import (
    patient_bootstrap,
    patient_codes,
    permute_groups,
    split_halves,
    subsample,
)
from equigen.statistics.seeds import SeedsAndPatients, seeds_and_patients
from equigen.statistics.testing import holm, p_value, two_sided_p_value

__all__ = [
    "SeedsAndPatients",
    "equity_scaled",
    "gap",
    "holm",
    "interval_error",
    "p_value",
    "patient_bootstrap",
    "patient_codes",
    "percentile_interval",
    "permute_groups",
    "seeds_and_patients",
    "share_interval",
    "split_halves",
    "subsample",
    "two_sided_p_value",
    "wilson_interval",
]
