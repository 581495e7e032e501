"""Whether groups may exchange their labels: equal spread, equal numbers of images per patient."""

from __future__ import annotations

import numpy as np
import pytest

from equigen.progress import progress_bar
from equigen.quality.cells import GroupedImages, ResamplingSettings, make_cells, matched_n
from equigen.quality.exchangeability import group_heterogeneity
from equigen.quality.metric_inputs import MeasurementPlan
from equigen.quality.resamples import make_draws

SETTINGS = ResamplingSettings(repeats=1, replicates=99, min_patients=8)


def measure(
    seed: int = 0, spread: float = 1.0, images: int = 1, side: str = "g", shift: float = 0.0, noise: float = 1.0
) -> dict[str, str]:
    """Heterogeneity of two groups of 40 patients; the second of one set differs as asked."""
    rng, sets, values = np.random.default_rng(seed), [], []
    for name in "rg":
        counts = np.where(np.arange(80) < 40, 1, images if name == side else 1)
        codes = np.repeat(np.arange(80), counts)
        groups = (codes >= 40).astype(np.int64)
        scale = np.where((groups == 1) & (name == side), spread, 1.0)
        values.append(noise * rng.standard_normal((len(codes), 4)) * scale[:, None] + shift * groups[:, None])
        sets.append(GroupedImages(np.array([f"{name}{code:02d}" for code in codes]), {"sex": groups}))
    cells = make_cells(*sets, {"sex": ["f", "m"]}, SETTINGS)
    draws = make_draws(*sets, cells, SETTINGS)
    with progress_bar("test", 1, show=False) as bar:
        plan = MeasurementPlan(cells, draws, matched_n(cells, SETTINGS), SETTINGS, bar)
    return group_heterogeneity(*values, plan)


@pytest.mark.parametrize("side", ["r", "g"])
def test_a_wider_group_is_seen_in_either_set(side):
    assert measure(spread=2.0, side=side) == {"sex": "spread"}


def test_a_shift_of_a_group_is_no_spread():
    assert measure(shift=3.0) == {}


@pytest.mark.parametrize(("images", "expected"), [(1, {}), (2, {"sex": "images per patient"})])
def test_more_images_per_patient_are_named(images, expected):
    assert measure(images=images) == expected


def test_both_are_named_together():
    assert measure(spread=2.5, images=3) == {"sex": "spread and images per patient"}


def test_groups_of_equal_spread_are_rarely_called_different():
    assert sum(bool(measure(seed)) for seed in range(40)) <= 6  # 0.05 of 40; more than 6 have a chance of 0.003


def test_constant_features_are_no_difference():
    assert measure(noise=0.0) == measure(noise=0.0, shift=1.0) == {}
