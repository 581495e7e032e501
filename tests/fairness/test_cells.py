"""Metrics of one recipe and task in every group: sizes, seeds, tasks, thresholds and resamples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame
from sklearn.metrics import accuracy_score, average_precision_score, brier_score_loss, recall_score, roc_auc_score

from equigen.fairness import resamples as resamples_module
from equigen.fairness.cells import MinimumSizes, Sizes, evaluate, macro_average
from equigen.fairness.resamples import draw_resamples
from equigen.fairness.thresholds import Threshold

LEVELS = {"sex": ["f", "m"], "age": ["old", "young"]}
MINIMUM = MinimumSizes(patients=5, cases=2)


def table(seed: int = 0, n: int = 240) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    patient = np.arange(n) // 3
    truth = rng.integers(0, 2, n)
    return pd.DataFrame(
        {
            "unit": [f"u{row:03d}" for row in range(n)],
            "patient": [f"p{code}" for code in patient],
            "truth": truth,
            "probability": np.round(1 / (1 + np.exp(-(truth - 0.5 + rng.normal(size=n)))), 2),
            "attr.sex": np.array(["f", "m"])[np.random.default_rng(1).integers(0, 2, 80)][patient],
            "attr.age": np.array(["old", "young", None], dtype=object)[np.random.default_rng(2).integers(0, 3, n)],
        }
    )


def draws(rows: pd.DataFrame, replicates: int = 30):
    return draw_resamples(rows, LEVELS, replicates=replicates, permutations=20, seed=0)


def test_every_metric_in_every_group_is_that_of_scikit_learn_by_fairlearn():
    rows = table()
    metrics = {
        "auc": roc_auc_score, "pr_auc": average_precision_score, "brier": brier_score_loss,
        "accuracy": lambda y, p: accuracy_score(y, p >= 0.4), "sensitivity": lambda y, p: recall_score(y, p >= 0.4),
        "specificity": lambda y, p: recall_score(1 - y, p < 0.4), "selection_rate": lambda y, p: np.mean(p >= 0.4),
    }  # fmt: skip
    found = evaluate([(rows, Threshold(0.4))], draws(rows), MINIMUM)
    for frame in found.frames:
        known = rows[rows[f"attr.{frame.attribute}"].notna()]
        expected = MetricFrame(
            metrics=metrics, y_true=known["truth"], y_pred=known["probability"],
            sensitive_features=known[f"attr.{frame.attribute}"],
        ).by_group  # fmt: skip
        for name in metrics:
            values = expected.loc[frame.levels, name].to_numpy(dtype=float)
            np.testing.assert_allclose(frame.groups[name][:, 0], values, atol=1e-12)
        assert frame.unknown == len(rows) - len(known)
        assert sum(size.n for size in frame.sizes) == len(known)
    for name, metric in metrics.items():
        assert found.overall[name][0] == pytest.approx(metric(rows["truth"], rows["probability"]), abs=1e-12)


def test_a_replicate_is_the_metric_of_the_patients_that_it_draws():
    rows = table()
    resamples = draws(rows)
    found = evaluate([(rows, Threshold(0.5))], resamples, MINIMUM)
    names = np.unique(rows["patient"])
    for column in (1, 17):
        counts = dict(zip(names, resamples.multiplicity[:, column], strict=True))
        repeated = rows.loc[np.repeat(rows.index, [counts[name] for name in rows["patient"]])]
        assert len(repeated) == 240 and found.overall["auc"][column] == pytest.approx(
            roc_auc_score(repeated["truth"], repeated["probability"])
        )
        women = repeated[repeated["attr.sex"] == "f"]
        assert found.frames[0].groups["accuracy"][0, column] == pytest.approx(
            accuracy_score(women["truth"], women["probability"] >= 0.5)
        )


def test_blocks_of_replicates_change_no_number(monkeypatch):
    rows = table()
    together = evaluate([(rows, Threshold(0.5))], draws(rows), MINIMUM)
    monkeypatch.setattr(resamples_module, "CELLS", 500)  # two replicates at a time
    apart = evaluate([(rows, Threshold(0.5))], draws(rows), MINIMUM)
    for name, values in together.overall.items():
        np.testing.assert_allclose(apart.overall[name], values, rtol=1e-14)


def test_seeds_are_averaged_in_every_replicate_each_at_its_own_threshold():
    first, second = table(), table()
    second["probability"] = (second["probability"] * 0.5).round(3)
    resamples = draws(first)
    runs = [(first, Threshold(0.5)), (second, Threshold(0.25, "threshold 0.5: no validation rows"))]
    both = evaluate(runs, resamples, MINIMUM)
    alone = [evaluate([run], resamples, MINIMUM) for run in runs]
    for name in ("auc", "sensitivity", "brier"):
        expected = (alone[0].overall[name] + alone[1].overall[name]) / 2
        np.testing.assert_allclose(both.overall[name], expected, rtol=1e-12)
    assert alone[0].overall["sensitivity"][0] == alone[1].overall["sensitivity"][0]  # halved with the scores
    assert both.note == "mean of 2 seeds; threshold 0.5: no validation rows"


def test_support_is_the_class_that_a_metric_divides_by():
    sizes = Sizes(n=50, patients=30, positives=4, negatives=28)
    assert {name: sizes.support(name) for name in ("auc", "sensitivity", "specificity", "accuracy", "ece")} == {
        "auc": 4, "sensitivity": 4, "specificity": 28, "accuracy": 30, "ece": 30,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "sizes", "reason"),
    [
        ("accuracy", Sizes(9, 4, 4, 4), "too small: 4 patients, at least 5 are needed"),
        ("accuracy", Sizes(9, 9, 0, 9), ""),
        ("auc", Sizes(9, 9, 0, 9), "too small: one class only"),
        ("auc", Sizes(9, 9, 1, 9), "too small: 1 patients with the condition, 2 are needed"),
        ("auc", Sizes(9, 9, 8, 1), "too small: 1 patients without the condition, 2 are needed"),
        ("sensitivity", Sizes(9, 9, 9, 0), ""),
        ("specificity", Sizes(9, 9, 9, 1), "too small: 1 patients without the condition, 2 are needed"),
    ],
)
def test_why_a_metric_has_no_estimate(metric, sizes, reason):
    assert MINIMUM.missing(metric, sizes) == reason


def test_a_group_of_one_class_keeps_what_is_defined_there():
    rows = table()
    rows.loc[rows["attr.sex"] == "f", "truth"] = 0
    women = {name: values[0, 0] for name, values in evaluate(
        [(rows, Threshold(0.5))], draws(rows), MINIMUM
    ).frames[0].groups.items()}  # fmt: skip
    assert np.isnan([women[name] for name in ("auc", "pr_auc", "sensitivity", "balanced_accuracy")]).all()
    assert np.isfinite([women[name] for name in ("accuracy", "specificity", "brier", "ece")]).all()


def test_equal_scores_rank_nobody():
    rows = table().assign(probability=0.3)
    found = evaluate([(rows, Threshold(0.3))], draws(rows), MINIMUM)
    assert (found.overall["auc"] == 0.5).all()
    assert found.overall["sensitivity"][0] == 1 and found.overall["specificity"][0] == 0
    assert found.overall["pr_auc"][0] == pytest.approx(rows["truth"].mean())


def test_the_mean_over_tasks_leaves_out_tasks_without_an_estimate():
    rows = table()
    resamples = draws(rows)
    good = evaluate([(rows, Threshold(0.5))], resamples, MINIMUM)
    other = evaluate([(table(5), Threshold(0.5))], resamples, MINIMUM)
    empty = evaluate([(rows.assign(truth=0), Threshold(0.5))], resamples, MINIMUM)
    mean = macro_average({"dx:a": good, "dx:b": other, "dx:c": empty}, resamples)
    np.testing.assert_allclose(mean.overall["auc"], (good.overall["auc"] + other.overall["auc"]) / 2)
    np.testing.assert_allclose(
        mean.frames[0].groups["auc"], (good.frames[0].groups["auc"] + other.frames[0].groups["auc"]) / 2
    )
    assert mean.note == "mean of 2 of 3 tasks, without c"
    assert mean.support["auc"] == min(good.support["auc"], other.support["auc"])
    nothing = macro_average({"dx:a": empty, "dx:b": empty}, resamples)
    assert np.isnan(nothing.overall["auc"]).all() and nothing.support["auc"] == 0


def test_resamples_draw_patients_and_know_those_in_several_groups():
    rows = table()
    resamples = draws(rows)
    assert (resamples.multiplicity[:, 0] == 1).all()
    assert (resamples.multiplicity.sum(axis=0) == 80).all()
    assert [attribute.mixed for attribute in resamples.attributes] == [False, True]
    assert (resamples.attributes[1].codes == -1).sum() == rows["attr.age"].isna().sum()
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = draws(rows.iloc[order])
    np.testing.assert_array_equal(shuffled.multiplicity, resamples.multiplicity)
    np.testing.assert_array_equal(shuffled.rows_of(rows["unit"]), np.arange(240))


def test_without_replicates_there_are_estimates_and_no_null():
    rows = table()
    found = evaluate([(rows, Threshold(0.5))], draws(rows, 0), MINIMUM)
    full = evaluate([(rows, Threshold(0.5))], draws(rows), MINIMUM)
    assert all(values.shape == (1,) for values in found.overall.values())
    assert found.frames[0].null["auc"].shape == (2, 0)
    assert found.overall["auc"][0] == full.overall["auc"][0]


def test_the_streams_of_a_domain_depend_on_their_purpose_and_the_seed():
    resamples = draws(table())
    first, same = resamples.stream("chance", "sex"), resamples.stream("chance", "sex")
    other, seeded = resamples.stream("chance", "age"), replace(resamples, seed=1).stream("chance", "sex")
    values = [generator.random() for generator in (first, same, other, seeded)]
    assert values[0] == values[1] and len(set(values)) == 3
