"""Summaries over groups, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from equigen.quality.rows import summarise

TABLE = np.array([[0.5, 0.25, 0.75], [0.5, 0.5, 0.5], [np.nan, 0.25, 0.75], [0.5, np.inf, 0.75], [-0.5, 0.25, 0.75]])


def test_a_gap_is_the_largest_less_the_smallest_and_undefined_with_any_value():
    np.testing.assert_array_equal(summarise(TABLE, "lower", "gap"), [0.5, 0.0, np.nan, np.nan, 0.5])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("lower", [1.0, 0.5, np.nan, np.nan, 1.5]),  # M + D
        ("higher", [0.25, 0.5, np.nan, np.nan, np.nan]),  # M / (1 + D / M), M above zero
        ("share", [1 / 3, 0.5, np.nan, np.nan, -1 / 6]),  # M / (1 + D)
    ],
)
def test_equity_scaled_values_of_each_kind(kind, expected):
    np.testing.assert_allclose(summarise(TABLE, kind, "es"), expected, rtol=1e-15)
