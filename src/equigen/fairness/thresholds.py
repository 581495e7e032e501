"""Operating points, chosen on validation rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FALLBACK = 0.5


@dataclass(frozen=True)
class Threshold:
    """An operating point: scores of at least ``value`` are positive; ``note`` explains a fallback."""

    value: float
    note: str = ""


def choose_threshold(truth: NDArray[Any], score: NDArray[Any], *, target_sensitivity: float | None = None) -> float:
    """The best threshold on some rows.

    Without a target it maximises balanced accuracy, equivalent to Youden's J = sensitivity + specificity - 1 (Youden,
    Cancer 3, 1950); with a target it is the highest threshold whose sensitivity is at least the target. It lies
    half-way between the lowest positive score and the next lower one.

    Args:
        truth: [N] 0 or 1, both present.
        score: [N] probability of 1.
        target_sensitivity: in (0, 1], or None for Youden.

    >>> choose_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9]))
    0.4

    """
    scores, indices = np.unique(np.asarray(score, dtype=np.float64), return_inverse=True)
    positive = np.bincount(indices, weights=np.asarray(truth) == 1, minlength=len(scores))
    negative = np.bincount(indices, weights=np.asarray(truth) == 0, minlength=len(scores))
    # Rates with each score as the lowest positive one.
    sensitivity = positive[::-1].cumsum()[::-1] / positive.sum()
    specificity = 1 - negative[::-1].cumsum()[::-1] / negative.sum()
    if target_sensitivity is None:
        best = int(np.argmax(sensitivity + specificity))
    else:
        best = int(np.flatnonzero(sensitivity >= min(target_sensitivity, 1.0) - 1e-12)[-1])
    below = scores[best - 1] if best else 0.0
    return float((scores[best] + below) / 2)


def task_threshold(validation: pd.DataFrame, *, target_sensitivity: float | None = None) -> Threshold:
    """Threshold of one task from its validation rows (columns truth, probability).

    Without validation rows, or with one class only, it is 0.5 with a note.
    """
    if len(validation) == 0:
        return Threshold(FALLBACK, "threshold 0.5: no validation rows")
    if validation["truth"].nunique() < 2:
        return Threshold(FALLBACK, "threshold 0.5: validation has one class only")
    return Threshold(
        choose_threshold(
            validation["truth"].to_numpy(),
            validation["probability"].to_numpy(),
            target_sensitivity=target_sensitivity,
        )
    )
