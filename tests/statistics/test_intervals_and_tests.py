from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from scipy.stats import t as student

from equigen.errors import InputError
from equigen.statistics import (
    equity_scaled,
    equity_scaled_rows,
    gap,
    holm,
    interval_error,
    p_value,
    percentile_interval,
    share_interval,
    two_sided_p_value,
    wilson_interval,
)


def test_percentile_interval_by_hand():
    assert percentile_interval(np.arange(1001.0)) == pytest.approx((25.0, 975.0))
    assert percentile_interval(np.array([3.0, 1.0, 2.0]), level=0.5) == pytest.approx((1.5, 2.5))


def test_interval_covers_the_mean_of_a_normal_sample():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(400):
        sample = rng.standard_normal(100)
        draws = sample[rng.integers(0, 100, (400, 100))].mean(axis=1)
        low, high = percentile_interval(draws)
        covered += low <= 0 <= high
    assert 0.91 <= covered / 400 <= 0.98  # nominal 0.95, Monte-Carlo error 0.011


@pytest.mark.parametrize("values", [[], [1.0, np.nan], [np.inf]])
def test_undefined_values_are_refused_not_dropped(values):
    for function in (percentile_interval, gap, lambda v: p_value(1.0, v)):
        with pytest.raises(InputError):
            function(np.array(values))


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_a_level_outside_its_range_is_refused(level):
    with pytest.raises(InputError, match="between 0 and 1"):
        percentile_interval(np.ones(3), level=level)


def test_p_value_counts_ties_and_is_never_zero():
    assert p_value(3.0, np.array([1.0, 3.0, 5.0, 2.0])) == pytest.approx(3 / 5)
    assert p_value(9.0, np.zeros(99)) == pytest.approx(0.01)
    assert p_value(0.3, np.array([0.1 + 0.2])) == 1.0  # equal but for rounding
    assert p_value(0.1 + 0.2, np.array([0.3])) == 1.0
    with pytest.raises(InputError):
        p_value(np.nan, np.ones(3))


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1 -> 0.04, 0.06, 0.06, 0.5
    assert holm(np.array([0.03, 0.5, 0.01, 0.02])) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm(np.array([0.9, 0.8])) == pytest.approx([1.0, 1.0])
    assert holm(np.array([0.04])) == pytest.approx([0.04])
    assert len(holm(np.array([]))) == 0
    with pytest.raises(InputError, match=r"lies in \[0, 1\]"):
        holm(np.array([0.5, 1.5]))


def test_holm_does_not_depend_on_the_order():
    values = np.random.default_rng(0).random(12)
    order = np.random.default_rng(1).permutation(12)
    assert holm(values[order]) == pytest.approx(holm(values)[order])


def test_equity_scaled_values_by_hand():
    groups = np.array([0.7, 0.9])
    assert equity_scaled(0.8, groups, relative=False, higher_is_better=True) == pytest.approx(0.8 / 1.2)
    assert equity_scaled(0.8, groups, relative=False, higher_is_better=True, alpha=2) == pytest.approx(0.8 / 1.4)
    assert equity_scaled(2.0, np.array([1.5, 3.0]), relative=True, higher_is_better=True) == pytest.approx(
        2.0 / (1 + 1.5 / 2)
    )
    assert equity_scaled(20.0, np.array([15.0, 30.0]), relative=True, higher_is_better=False) == pytest.approx(
        20 * (1 + 15 / 20)
    )
    assert equity_scaled(0.2, np.array([0.1, 0.4]), relative=False, higher_is_better=False) == pytest.approx(0.26)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_equity_scaled_rows_are_those_of_each_row_alone(relative, higher, count):
    rng = np.random.default_rng(count)
    overall, groups = rng.random(20), rng.random((20, count))
    scaled = equity_scaled_rows(overall, groups, relative=relative, higher_is_better=higher, alpha=0.7)
    for row, value in enumerate(scaled):
        alone = equity_scaled(overall[row], groups[row], relative=relative, higher_is_better=higher, alpha=0.7)
        distance = 0.7 * sum(abs(value - overall[row]) for value in groups[row]) / (overall[row] if relative else 1)
        assert (
            value == alone == pytest.approx(overall[row] / (1 + distance) if higher else overall[row] * (1 + distance))
        )
    order = rng.permutation(count)
    permuted = equity_scaled_rows(overall, groups[:, order], relative=relative, higher_is_better=higher, alpha=0.7)
    np.testing.assert_allclose(permuted, scaled, rtol=1e-14)


def test_an_equity_scaled_row_is_undefined_where_a_value_is():
    overall = np.array([0.5, np.nan, 0.5, np.inf, -0.5, 0.0])
    groups = np.array([[0.5, 0.5], [0.5, 0.5], [np.nan, 0.5], [np.inf, 0.5], [0.5, 0.5], [0.0, 0.0]])
    relative = equity_scaled_rows(overall, groups, relative=True, higher_is_better=True)
    np.testing.assert_array_equal(relative, [0.5, *[np.nan] * 5])  # no relative scale at or below zero
    lower = equity_scaled_rows(overall, groups, relative=True, higher_is_better=False)
    np.testing.assert_array_equal(lower, [0.5, np.nan, np.nan, np.nan, 1.5, 0.0])


def test_equity_scaled_of_equal_groups_is_the_value_itself():
    for relative in (True, False):
        for higher in (True, False):
            assert equity_scaled(0.6, np.full(3, 0.6), relative=relative, higher_is_better=higher) == 0.6


def test_a_lower_is_better_value_below_zero_still_gets_worse():
    # an unbiased kernel distance may be negative; M + sum |M_g - M| stays defined
    assert equity_scaled(-0.1, np.array([0.1, -0.2]), relative=True, higher_is_better=False) == pytest.approx(0.2)
    with pytest.raises(InputError, match="above zero"):
        equity_scaled(-0.1, np.array([0.1]), relative=True, higher_is_better=True)
    with pytest.raises(InputError, match="not finite"):
        equity_scaled(np.nan, np.array([0.1]), relative=True, higher_is_better=False)


def test_gap_by_hand():
    assert gap([0.5, 0.25, 0.75]) == 0.5
    assert gap(np.array([2.0])) == 0.0


def test_two_sided_p_value_inverts_the_interval():
    draws = np.arange(-2.0, 97.0)  # 99 replicates, three at or below zero
    assert two_sided_p_value(draws) == pytest.approx(2 * 4 / 100)
    assert two_sided_p_value(-draws) == two_sided_p_value(draws)
    assert two_sided_p_value(np.zeros(50)) == 1
    with pytest.raises(InputError):
        two_sided_p_value(np.array([1.0, np.nan]))


def test_interval_error_is_how_far_an_end_moves():
    rng = np.random.default_rng(0)
    ends = [percentile_interval(rng.standard_normal(400)) for _ in range(400)]
    errors = [interval_error(rng.standard_normal(400)) for _ in range(50)]
    assert np.mean(errors) == pytest.approx(np.std(ends, axis=0).max(), rel=0.3)
    assert interval_error(np.full(20, 3.0)) == 0


def test_rounding_of_what_was_subtracted_is_no_difference():
    null = np.zeros(9)
    assert p_value(1e-14, null) == pytest.approx(0.1)
    assert p_value(1e-14, null, scale=12.0) == 1


@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 30), (30, 30), (3, 7), (450, 1000), (1, 1)])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_wilson_interval_is_that_of_scipy(k, n, level):
    expected = binomtest(k, n).proportion_ci(level, method="wilson")
    assert wilson_interval(k, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("given", [(0, 0), (3, 2), (-1, 2), (1, 2, 95)])
def test_wilson_interval_refuses_what_is_no_share(given):
    with pytest.raises(InputError):
        wilson_interval(*given)


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 12), (12, 12), (7, 12), (3, 1000)])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_interval_of_a_share_of_independent_cases_is_wilsons(successes, n, level):
    expected = binomtest(successes, n).proportion_ci(level, method="wilson")
    for interval in (wilson_interval(successes, n, level), share_interval(successes / n, n, np.inf, level)):
        assert interval == pytest.approx((expected.low, expected.high), abs=1e-14)


def test_the_ends_of_the_interval_of_a_share_solve_its_equation():
    # both ends p lie t standard errors sqrt(p (1 - p) / n) from the value
    value, number, df = 0.83, 17.4, 9.0
    for end in share_interval(value, number, df):
        assert abs(value - end) == pytest.approx(student.ppf(0.975, df) * np.sqrt(end * (1 - end) / number))


def test_the_interval_of_a_share_is_mirrored_wider_with_few_patients_and_narrower_with_more_cases():
    low, high = share_interval(0.3, 40.0, 12.0)
    assert (1 - high, 1 - low) == pytest.approx(share_interval(0.7, 40.0, 12.0))
    few, many = share_interval(0.3, 40.0, 3.0), share_interval(0.3, 80.0, 12.0)
    assert few[0] < low < many[0] < 0.3 < many[1] < high < few[1]


@pytest.mark.parametrize("arguments", [(1.1, 5.0, 2.0), (0.5, 0.0, 2.0), (0.5, 5.0, 0.0), (0.5, 5.0, 2.0, 1.0)])
def test_a_share_or_number_outside_its_range_is_refused(arguments):
    with pytest.raises(InputError, match="interval of a share"):
        share_interval(*arguments)


def test_the_error_of_an_interval_shrinks_with_the_replicates_and_matches_repetitions():
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((300, 400))
    ends = np.array([percentile_interval(sample) for sample in samples])
    predicted = np.median([interval_error(sample) for sample in samples])
    assert predicted == pytest.approx(ends.std(axis=0).max(), rel=0.3)
    assert interval_error(np.repeat(samples[0], 100)) < interval_error(samples[0])
    assert interval_error(np.ones(50)) == 0.0
