"""Predictions with known structure, drawn from a fixed generator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest


def make(
    n: int = 600, seed: int = 0, *, rows_per_patient: int = 2, signal: float = 1.5, unfair: float = 0.0
) -> pd.DataFrame:
    """One task; women's scores lose ``unfair`` of the signal. One patient in three is validation."""
    rng = np.random.default_rng(seed)
    patient = np.arange(n) // rows_per_patient
    count = patient.max() + 1
    sex = np.array(["f", "m"])[rng.integers(0, 2, count)][patient]
    age = np.array(["young", "middle", "old"])[rng.integers(0, 3, count)][patient]
    truth = (rng.random(n) < 0.4).astype(int)
    strength = signal - unfair * (sex == "f")
    probability = 1 / (1 + np.exp(-(strength * (truth - 0.5) + rng.normal(size=n))))
    return pd.DataFrame(
        {
            "recipe": "real",
            "seed": 0,
            "task": "sick",
            "image": [f"i{k:05d}" for k in range(n)],
            "patient": [f"p{p}" for p in patient],
            "site": np.where(patient % 4 == 0, "north", "south"),
            "split": np.where(patient % 3 == 0, "val", "test"),
            "domain": np.where(patient % 4 == 0, "ood", "id"),
            "truth": truth,
            "probability": probability,
            "attr.sex": sex.astype(object),
            "attr.age": age.astype(object),
        }
    )


@pytest.fixture
def predictions() -> Callable[..., pd.DataFrame]:
    return make
