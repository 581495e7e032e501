"""Draws and p-values under their hypothesis: each outcome as often as it should come, against scipy."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare, kstest, permutation_test

from equigen.statistics import (
    draw_multiplicities,
    group_permutations,
    holm,
    p_value,
    patient_bootstrap,
    split_halves,
    subsample,
    two_sided_p_value,
)

UNLUCKY = 1e-4  # a test with a fixed seed that holds its level may fall below this by chance


def test_every_assignment_of_groups_to_patients_comes_as_often():
    groups, patients = np.array([0, 0, 1, 2]), np.array(["a", "a", "b", "c"])
    outcomes = [tuple(np.array(order)[[0, 0, 1, 2]]) for order in permutations(range(3))]
    draws = [tuple(row) for row in group_permutations(groups, patients, 3000, np.random.default_rng(0))]
    counts = [draws.count(outcome) for outcome in outcomes]
    assert sum(counts) == 3000 and chisquare(counts).pvalue > UNLUCKY


def test_every_arrangement_within_a_patient_of_several_groups_comes_as_often():
    groups, patients = np.array([0, 1, 1, 0]), np.array([5, 5, 5, 6])
    draws = [tuple(row) for row in group_permutations(groups, patients, 3000, np.random.default_rng(1))]
    counts = [draws.count(outcome) for outcome in ((0, 1, 1, 0), (1, 0, 1, 0), (1, 1, 0, 0))]
    assert sum(counts) == 3000 and chisquare(counts).pvalue > UNLUCKY


def test_multiplicities_are_multinomial():
    counts = draw_multiplicities(np.arange(4), 5000, np.random.default_rng(2)).counts.astype(float)
    np.testing.assert_allclose(counts.mean(axis=0), 1.0, atol=0.05)
    covariance = np.cov(counts, rowvar=False)
    expected = np.eye(4) - 0.25  # n p (1 - p) and -n p² with n = 4 and p = 1/4
    np.testing.assert_allclose(covariance, expected, atol=0.05)


def test_the_bootstrap_of_clusters_has_the_error_of_their_mean():
    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(60), 4)
    values = rng.standard_normal(60)[patients]  # images of a patient are copies
    replicates = [values[rows].mean() for rows in patient_bootstrap(patients, 800, rng)]
    assert np.std(replicates) == pytest.approx(values[::4].std() / np.sqrt(60), rel=0.1)


def test_halves_and_subsamples_take_everybody_as_often():
    rng = np.random.default_rng(4)
    first = np.bincount(np.concatenate([split_halves(np.arange(6), rng)[0] for _ in range(2000)]), minlength=6)
    chosen = np.bincount(np.concatenate([subsample(6, 3, rng) for _ in range(2000)]), minlength=6)
    for counts in (first, chosen):
        assert counts.sum() == 6000 and np.abs(counts - 1000).max() < 100  # standard error 22


def test_a_permutation_p_value_is_that_of_scipy():
    rng = np.random.default_rng(5)
    first, second = rng.normal(0.7, 1, 7), rng.normal(0, 1, 6)
    expected = permutation_test(
        (first, second), lambda a, b: a.mean() - b.mean(), alternative="greater", n_resamples=np.inf
    )
    null = np.delete(expected.null_distribution, np.argmin(np.abs(expected.null_distribution - expected.statistic)))
    assert p_value(float(expected.statistic), null) == pytest.approx(expected.pvalue)


def test_a_p_value_under_its_null_is_uniform():
    rng = np.random.default_rng(6)
    values = [p_value(float(row[0]), row[1:]) for row in rng.standard_normal((500, 200))]
    assert kstest(values, "uniform").pvalue > UNLUCKY
    assert binomtest(sum(value <= 0.05 for value in values), 500, 0.05, "greater").pvalue > UNLUCKY


def test_a_two_sided_p_value_is_the_same_for_the_opposite_difference_and_at_most_one():
    rng = np.random.default_rng(7)
    draws = rng.normal(0.5, 1, 300)
    assert two_sided_p_value(draws) == two_sided_p_value(-draws) == two_sided_p_value(7 * draws)
    assert two_sided_p_value(np.array([-1.0, 1.0])) == two_sided_p_value(np.zeros(5)) == 1.0
    assert two_sided_p_value(np.ones(999)) == pytest.approx(0.002)


def test_a_two_sided_p_value_of_a_normal_mean_is_that_of_the_z_test():
    values = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        sample = rng.standard_normal(80)
        draws = sample[rng.integers(0, 80, (400, 80))].mean(axis=1)
        values.append(two_sided_p_value(draws))
    assert binomtest(sum(value <= 0.05 for value in values), 300, 0.075, "greater").pvalue > UNLUCKY
    assert binomtest(sum(value <= 0.5 for value in values), 300, 0.5).pvalue > UNLUCKY


def test_holm_holds_the_family_whatever_the_dependence():
    rng = np.random.default_rng(8)
    independent = rng.random((1000, 5))
    dependent = np.repeat(rng.random((1000, 1)), 5, axis=1)
    for family in (independent, dependent):
        rejected = sum((holm(row) <= 0.05).any() for row in family)
        assert binomtest(rejected, 1000, 0.05, "greater").pvalue > UNLUCKY


def test_holm_is_bonferroni_for_the_smallest_and_never_turns_the_order():
    rng = np.random.default_rng(9)
    for row in rng.random((50, 6)):
        adjusted = holm(row)
        assert adjusted.min() == pytest.approx(min(1.0, 6 * row.min()))
        order = np.argsort(row)
        assert (np.diff(adjusted[order]) >= 0).all() and (adjusted >= row).all() and adjusted.max() <= 1
    assert holm(np.array([0.3])).tolist() == [0.3] and holm(np.zeros(0)).tolist() == []
    np.testing.assert_allclose(holm(np.array([0.01, 0.01, 0.01])), 0.03)
