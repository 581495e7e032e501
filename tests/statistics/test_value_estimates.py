"""The record of a value with its replicates, and the interval of replicates of which some are undefined."""

from __future__ import annotations

import numpy as np
import pytest

from equigen.statistics import Estimate, percentile_interval, replicate_interval


def test_a_difference_is_taken_replicate_by_replicate():
    first, second = Estimate(3.0, np.array([1.0, np.nan, 5.0])), Estimate(2.0, np.array([4.0, 0.0, 1.0]))
    difference = first - second
    assert difference.value == 1.0 and difference.lost == 1
    np.testing.assert_array_equal(difference.replicates, [-3.0, np.nan, 4.0])


def test_what_two_estimates_share_cancels_in_their_difference():
    noise = np.random.default_rng(0).standard_normal(400)
    low, high = (Estimate(3.0, 3 + noise) - Estimate(1.0, 1 + noise)).interval()
    assert low == pytest.approx(2.0) == high
    assert Estimate(3.0, 3 + noise).interval() == percentile_interval(3 + noise)


@pytest.mark.parametrize(
    ("defined", "undefined", "least", "has_interval"),
    [(2, 0, 2, True), (1, 0, 2, False), (1, 0, 1, True), (3, 3, 2, True), (3, 4, 2, False), (0, 0, 1, False)],
)
def test_an_interval_needs_half_of_the_replicates(defined, undefined, least, has_interval):
    values = np.concatenate([np.arange(float(defined)), np.full(undefined, np.nan)])
    interval = replicate_interval(values, least=least)
    assert interval == (percentile_interval(np.arange(float(defined))) if has_interval else None)


def test_an_infinite_replicate_is_undefined():
    assert Estimate(0.0, np.array([np.inf, 1.0, 1.0])).lost == 1
    assert replicate_interval(np.array([np.inf, 1.0, 1.0])) == (1.0, 1.0)
