"""Operating points against a search by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, recall_score

from equigen.fairness.thresholds import choose_threshold, task_threshold


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    truth = (rng.random(200) < 0.3).astype(int)
    return truth, (1 / (1 + np.exp(-(truth + rng.normal(size=200))))).round(2)


def test_youden_is_the_best_of_all(data):
    truth, score = data
    found = balanced_accuracy_score(truth, score >= choose_threshold(truth, score))
    assert found == pytest.approx(max(balanced_accuracy_score(truth, score >= t) for t in np.unique(score)))


def test_target_sensitivity_is_the_highest_that_reaches_it(data):
    truth, score = data
    threshold = choose_threshold(truth, score, target_sensitivity=0.9)
    assert recall_score(truth, score >= threshold) >= 0.9
    higher = np.unique(score)[np.unique(score) > threshold][1:]
    assert all(recall_score(truth, score >= t) < 0.9 for t in higher)


def test_without_a_choice_it_says_so():
    empty = pd.DataFrame({"truth": [], "probability": []})
    one = pd.DataFrame({"truth": [1, 1], "probability": [0.2, 0.4]})
    assert (task_threshold(empty).value, task_threshold(empty).note) == (
        0.5,
        "threshold 0.5: no validation rows",
    )
    assert task_threshold(one).value == 0.5 and "one class" in task_threshold(one).note
