"""Each metric against scikit-learn or fairlearn, and weights against rows repeated by hand."""

from __future__ import annotations

import numpy as np
import pytest
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference
from sklearn import metrics as oracle

from equigen.fairness import metrics


@pytest.fixture(params=["continuous", "ties"])
def data(request):
    rng = np.random.default_rng(1)
    truth = (rng.random(300) < 0.3).astype(int)
    score = 1 / (1 + np.exp(-(truth + rng.normal(size=300))))
    return truth, score.round(1) if request.param == "ties" else score


ORACLES = {
    "auc": oracle.roc_auc_score,
    "pr_auc": oracle.average_precision_score,
    "brier": oracle.brier_score_loss,
    "accuracy": lambda y, p: oracle.accuracy_score(y, p >= 0.5),
    "balanced_accuracy": lambda y, p: oracle.balanced_accuracy_score(y, p >= 0.5),
    "sensitivity": lambda y, p: oracle.recall_score(y, p >= 0.5),
    "specificity": lambda y, p: oracle.recall_score(1 - y, p < 0.5),
}


@pytest.mark.parametrize("name", ORACLES)
def test_scikit_learn(name, data):
    truth, score = data
    assert float(getattr(metrics, name)(truth, score)) == pytest.approx(ORACLES[name](truth, score), abs=1e-12)
    assert metrics.measure(truth, score)[name][0] == pytest.approx(ORACLES[name](truth, score), abs=1e-12)


def test_ece_by_bins(data):
    truth, score = data
    expected = 0.0
    for low in range(10):
        inside = (score * 10).astype(int).clip(0, 9) == low
        if inside.any():
            expected += inside.mean() * abs(truth[inside].mean() - score[inside].mean())
    assert float(metrics.ece(truth, score)) == pytest.approx(expected, abs=1e-12)


def test_weights_are_repeated_rows(data):
    truth, score = data
    weights = np.random.default_rng(2).integers(0, 4, (300, 5)).astype(float)
    found = metrics.measure(truth, score, weights, threshold=0.4)
    for column in range(5):
        rows = np.repeat(np.arange(300), weights[:, column].astype(int))
        alone = metrics.measure(truth[rows], score[rows], threshold=0.4)
        assert set(alone) == set(found)
        for name, value in alone.items():
            assert found[name][column] == pytest.approx(value[0], abs=1e-12), name


def test_duplicating_everything_changes_nothing(data):
    truth, score = data
    once, twice = metrics.measure(truth, score), metrics.measure(np.tile(truth, 2), np.tile(score, 2))
    assert all(once[name][0] == pytest.approx(twice[name][0]) for name in once)


def test_one_class_is_nan_not_zero():
    found = metrics.measure(np.ones(3), np.array([0.1, 0.6, 0.9]))
    assert np.isnan([found[name][0] for name in ("auc", "specificity", "balanced_accuracy")]).all()
    assert found["sensitivity"][0] == pytest.approx(2 / 3)
    none = metrics.measure(np.zeros(3), np.array([0.1, 0.6, 0.9]))
    assert np.isnan([none["pr_auc"][0], none["sensitivity"][0]]).all() and none["accuracy"][0] == pytest.approx(1 / 3)
    assert np.isnan(metrics.measure(np.ones(2), np.ones(2), np.zeros(2))["accuracy"][0])


def test_fairlearn(data):
    truth, score = data
    groups = np.random.default_rng(3).integers(0, 4, 300)
    flag = (score >= 0.45).astype(int)
    assert metrics.dpd(truth, score, groups, threshold=0.45) == pytest.approx(
        demographic_parity_difference(truth, flag, sensitive_features=groups)
    )
    assert metrics.deodds(truth, score, groups, threshold=0.45) == pytest.approx(
        equalized_odds_difference(truth, flag, sensitive_features=groups)
    )
    relabelled = np.array([7, 1, 9, 3])[groups]
    assert metrics.deodds(truth, score, relabelled) == metrics.deodds(truth, score, groups)


def test_every_metric_of_four_patients_by_hand():
    truth, score = np.array([1, 1, 0, 0]), np.array([0.85, 0.45, 0.65, 0.05])
    found = {name: float(values[0]) for name, values in metrics.measure(truth, score, threshold=0.6).items()}
    expected = {
        "auc": 3 / 4,  # 0.85 beats both, 0.45 beats one of two negatives
        "pr_auc": (1 + 2 / 3) / 2,
        "accuracy": 0.5,
        "balanced_accuracy": 0.5,
        "sensitivity": 0.5,
        "specificity": 0.5,
        "selection_rate": 0.5,
        "brier": (0.15**2 + 0.55**2 + 0.65**2 + 0.05**2) / 4,
        "ece": (0.15 + 0.55 + 0.65 + 0.05) / 4,
    }
    assert found == pytest.approx(expected)


def test_a_score_at_the_threshold_is_positive_and_one_of_1_is_in_the_last_bin():
    assert metrics.sensitivity(np.array([1, 1]), np.array([0.5, 0.5 - 1e-12])) == 0.5
    assert metrics.ece(np.array([1, 0]), np.array([1.0, 0.95])) == pytest.approx(abs(1 - 1.95) / 2)


def test_the_calibration_error_is_the_sum_of_its_parts(data):
    truth, score = data
    weights = np.random.default_rng(5).integers(0, 3, (300, 4)).astype(float)
    residuals, shares = metrics.calibration_parts(truth, score, weights)
    np.testing.assert_allclose(np.abs(residuals).sum(axis=0), metrics.measure(truth, score, weights)["ece"])
    assert shares.sum() == pytest.approx(1.0) and residuals.shape == (10, 4)
    np.testing.assert_allclose(residuals.sum(axis=0), weights.T @ (truth - score) / weights.sum(axis=0), atol=1e-12)


def test_a_group_alone_has_no_difference_and_one_without_a_class_none_that_is_defined():
    score = np.array([0.9, 0.1, 0.8])
    assert metrics.dpd(np.ones(3), score, np.zeros(3)) == 0
    assert np.isnan(metrics.deodds(np.array([1, 0, 1]), score, np.array([0, 0, 1])))


def test_single_weightings_have_one_value_and_many_one_each(data):
    truth, score = data
    for function in (metrics.auc, metrics.pr_auc, metrics.brier, metrics.ece, metrics.accuracy):
        assert np.shape(function(truth, score)) == ()
        assert np.shape(function(truth, score, np.ones(300))) == ()
        values = function(truth, score, np.ones((300, 3)))
        assert values == pytest.approx(np.full(3, float(function(truth, score))))
