"""The audit of predictions: metrics for every group, intervals, null bands and paired differences."""

from __future__ import annotations

from equigen.fairness.audit import audit
from equigen.fairness.metrics import (
    accuracy,
    auc,
    balanced_accuracy,
    brier,
    deodds,
    dpd,
    ece,
    measure,
    pr_auc,
    sensitivity,
    specificity,
)
from equigen.fairness.thresholds import Threshold, choose_threshold

__all__ = [
    "Threshold",
    "accuracy",
    "auc",
    "audit",
    "balanced_accuracy",
    "brier",
    "choose_threshold",
    "deodds",
    "dpd",
    "ece",
    "measure",
    "pr_auc",
    "sensitivity",
    "specificity",
]
