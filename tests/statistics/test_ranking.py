"""Areas under curves for many weightings, against scikit-learn and by hand; means that leave out what is undefined."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from equigen.errors import InputError
from equigen.statistics import Ranking, defined_mean, quotient, ranking, weighted_auc, weighted_mean


def test_weighted_auc_is_that_of_sklearn_with_ties_and_multiplicities():
    rng = np.random.default_rng(0)
    truth, score = rng.integers(0, 2, 200), rng.integers(0, 15, 200) / 15
    weights = rng.poisson(1.0, (30, 200))
    expected = [roc_auc_score(truth, score, sample_weight=row) for row in weights]
    np.testing.assert_allclose(weighted_auc(truth, score, weights), expected, rtol=0, atol=1e-12)


def test_a_multiplicity_is_a_repeated_row_and_blocks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(1)
    truth, score, weights = rng.integers(0, 2, 50), rng.random(50).round(1), rng.integers(0, 4, (9, 50))
    whole = weighted_auc(truth, score, weights)
    one = np.ones((1, int(weights[3].sum())))
    assert whole[3] == weighted_auc(np.repeat(truth, weights[3]), np.repeat(score, weights[3]), one)[0]
    monkeypatch.setattr(ranking, "WEIGHTS_IN_MEMORY", 100)
    np.testing.assert_array_equal(weighted_auc(truth, score, weights), whole)
    order = rng.permutation(50)
    np.testing.assert_allclose(weighted_auc(truth[order], score[order], weights[:, order]), whole, atol=1e-14)


def test_weighted_auc_of_one_class_is_undefined_and_bad_input_is_refused():
    values = weighted_auc(np.array([0, 1, 1]), np.array([0.1, 0.2, 0.3]), np.array([[1, 1, 0], [0, 1, 1], [1, 0, 0]]))
    assert values[0] == 1
    assert np.isnan(values[1:]).all()
    assert np.isnan(weighted_auc(np.zeros(0), np.zeros(0), np.zeros((2, 0)))).all()
    with pytest.raises(InputError, match="1 scores are not"):
        weighted_auc(np.array([0, 1]), np.array([np.nan, 1.0]), np.ones((1, 2)))
    with pytest.raises(InputError, match="2 truths, 2 scores"):
        weighted_auc(np.array([0, 1]), np.array([0.5, 1.0]), np.ones((1, 3)))


@pytest.mark.parametrize("levels", [3, 15, 10_000])
def test_both_areas_are_those_of_scikit_learn(levels):
    rng = np.random.default_rng(levels)
    truth, score = rng.integers(0, 2, 120), rng.integers(0, levels, 120) / levels
    weights = rng.poisson(1.0, (120, 9))
    found = Ranking(truth, score, weights)
    for column, row in enumerate(weights.T):
        assert found.auc()[column] == pytest.approx(roc_auc_score(truth, score, sample_weight=row), abs=1e-12)
        expected = average_precision_score(truth, score, sample_weight=row)
        assert found.pr_auc()[column] == pytest.approx(expected, abs=1e-12)


def test_areas_by_hand():
    # scores 4 > 3 = 3 > 1 with truths 1, 0, 1, 0: pairs won 2, 1/2 tied, 1 won of 4; precisions 1/1 and 2/3
    found = Ranking(np.array([1, 0, 1, 0]), np.array([4.0, 3.0, 3.0, 1.0]), np.ones((4, 1)))
    assert found.auc()[0] == (2 + 0.5 + 1) / 4
    assert found.pr_auc()[0] == pytest.approx((1 + 2 / 3) / 2)


def test_areas_where_a_class_is_absent():
    ones = Ranking(np.ones(3), np.arange(3.0), np.ones((3, 1)))
    assert np.isnan(ones.auc()[0]) and ones.pr_auc()[0] == 1
    zeros = Ranking(np.zeros(3), np.arange(3.0), np.ones((3, 1)))
    assert np.isnan(zeros.auc()[0]) and np.isnan(zeros.pr_auc()[0])


def test_a_monotone_map_of_the_scores_and_exchanged_classes():
    rng = np.random.default_rng(4)
    truth, score, weights = rng.integers(0, 2, 60), rng.random(60).round(1), rng.integers(0, 3, (60, 5))
    value = Ranking(truth, score, weights)
    assert (Ranking(truth, np.exp(3 * score), weights).pr_auc() == value.pr_auc()).all()
    np.testing.assert_allclose(Ranking(1 - truth, score, weights).auc(), 1 - value.auc(), atol=1e-14)
    np.testing.assert_allclose(Ranking(truth, score, 7 * weights).pr_auc(), value.pr_auc(), atol=1e-14)


def test_a_quotient_is_undefined_unless_its_denominator_is_positive():
    np.testing.assert_array_equal(quotient(np.arange(4.0), np.array([2, 4, 0, -1])), [0, 0.25, np.nan, np.nan])
    assert quotient(np.zeros((2, 0)), np.zeros((2, 0))).shape == (2, 0)


def test_means_leave_out_what_is_not_finite():
    table = np.array([[1.0, np.nan, 5.0], [np.nan, np.nan, np.inf]])
    np.testing.assert_array_equal(defined_mean(table, axis=1), [3.0, np.nan])
    np.testing.assert_array_equal(defined_mean(table, axis=0), [1.0, np.nan, 5.0])
    scores, weights = np.array([1.0, np.nan, 4.0]), np.array([[2, 9, 1], [0, 9, 0], [0, 0, 3]], dtype=float)
    np.testing.assert_array_equal(weighted_mean(scores, weights), [2.0, np.nan, 4.0])
    assert np.isnan(weighted_mean(np.zeros(0), np.zeros((2, 0)))).all()
