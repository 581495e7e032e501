"""Rows of the audit's table from metrics written out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from equigen.fairness.cells import Cell, Frame, MinimumSizes, Sizes
from equigen.fairness.null_bands import effective_numbers
from equigen.fairness.rows import BIASED, LEANS, Series, adjust, cell_series, table_row
from equigen.statistics import percentile_interval, share_interval

MINIMUM = MinimumSizes(patients=5, cases=2)
SIZES = Sizes(n=40, patients=20, positives=8, negatives=15)
# AUC of three groups: the estimate and four replicates; the third group is undefined
AUC = np.array([[0.9, 0.8, 0.9, 1.0, 0.7], [0.6, 0.7, 0.5, 0.6, 0.6], [np.nan] * 5])
NULL = np.array([[0.8, 0.7], [0.75, 0.9], [np.nan] * 2])


def frame(metric: str = "auc", groups: np.ndarray = AUC, null: np.ndarray = NULL, **options) -> Frame:
    sizes = [SIZES, replace(SIZES, n=10, patients=10), Sizes(3, 3, 1, 2)]
    overall = {metric: np.array([0.7, 0.7, 0.7, 0.7, 0.7])}
    support = {metric: np.array([8, 5, 1])}
    arguments = {"attribute": "sex", "levels": ["a", "b", "c"], "sizes": sizes, "unknown": 0, **options}
    return Frame(overall=overall, groups={metric: groups}, null={metric: null}, support=support, **arguments)


def cell(*frames: Frame, metric: str = "auc", note: str = "") -> Cell:
    overall = {metric: np.array([0.7, 0.7, 0.7, 0.7, 0.7])}
    return Cell(SIZES, ("key",), overall, {metric: 8}, list(frames), note)


def series_of(result: Cell) -> dict[str, Series]:
    return {series.group: series for series in cell_series(result, MINIMUM)}


def series(value: float, replicates: list[float], **options) -> Series:
    return Series(value, np.array(replicates), "auc", "sex", "a", 40, 20, **options)


def test_gap_worst_and_equity_scaled_value_in_every_replicate():
    found = series_of(cell(frame()))
    assert list(found) == ["*", "a", "b", "c", "gap", "worst", "es"]
    assert found["gap"].value == pytest.approx(0.3)
    np.testing.assert_allclose(found["gap"].replicates, [0.1, 0.4, 0.4, 0.1])
    assert found["worst"].value == 0.6
    np.testing.assert_array_equal(found["worst"].replicates, [0.7, 0.5, 0.6, 0.6])
    assert found["es"].value == pytest.approx(0.7 / (1 + 0.2 + 0.1))
    np.testing.assert_allclose(found["es"].replicates, 0.7 / (1 + np.array([0.1, 0.4, 0.4, 0.1])))
    np.testing.assert_allclose(found["gap"].null, [0.05, 0.2])
    assert found["gap"].tested and not found["worst"].tested
    assert (found["gap"].n, found["gap"].n_patients) == (50, 30)


def test_under_the_null_the_overall_value_moves_with_the_groups_by_their_rows():
    found = series_of(cell(frame()))
    deviations = NULL[:2] - NULL[:2].mean(axis=1, keepdims=True)
    overall = 0.7 + (40 * deviations[0] + 10 * deviations[1]) / 50
    np.testing.assert_allclose(found["es"].null, overall / (1 + np.abs(NULL[:2] - overall).sum(axis=0)))


def test_notes_name_the_worst_group_those_left_out_and_the_lean_of_a_gap():
    found = series_of(cell(replace(frame(), unknown=4), note="mean of 2 seeds"))
    assert found["worst"].notes[0] == "worst is b"
    assert "without c (too small)" in found["gap"].notes and LEANS in found["gap"].notes
    assert "4 rows of unknown sex left out" in found["gap"].notes
    assert "part of the gap may be case mix" in found["gap"].notes
    assert all(item.notes[-1] == "mean of 2 seeds" for item in found.values())
    assert found["c"].notes[0] == "too small: 3 patients, at least 5 are needed"


def test_a_standardised_gap_is_not_blamed_on_case_mix():
    found = series_of(cell(frame(standardised=True, note="standardised")))
    assert not any("case mix" in note for note in found["gap"].notes) and "standardised" in found["gap"].notes


def test_of_a_metric_of_which_less_is_better_the_worst_is_the_largest():
    found = series_of(cell(frame("brier"), metric="brier"))
    assert found["worst"].value == 0.9 and found["worst"].notes[0] == "worst is a"
    assert "es" not in found


def test_fewer_than_two_groups_have_no_summary():
    alone = AUC.copy()
    alone[1] = np.nan
    found = series_of(cell(frame(groups=alone)))
    for name in ("gap", "worst", "es"):
        assert np.isnan(found[name].value) and found[name].notes[0] == "too small: fewer than two groups"
    empty = Frame("sex", [], [], 40, {"auc": AUC[0]}, {"auc": AUC[:0]}, {"auc": NULL[:0]}, {"auc": np.zeros(0)})
    assert series_of(cell(empty))["gap"].notes[0] == "no row has a known sex"


def test_equalised_odds_are_the_larger_of_two_gaps_in_every_replicate():
    rates = {
        "selection_rate": np.array([[0.5, 0.4], [0.2, 0.3]]),
        "sensitivity": np.array([[0.9, 0.8], [0.7, 0.2]]),
        "specificity": np.array([[0.9, 0.5], [0.5, 0.6]]),
    }
    null = {name: np.array([[0.1, 0.2], [0.3, 0.1]]) for name in rates}
    support = {name: np.array([8, 8]) for name in rates}
    overall = {name: np.array([0.5, 0.5]) for name in rates}
    both = Frame("sex", ["a", "b"], [SIZES, SIZES], 0, overall, rates, null, support)
    found = {item.metric: item for item in cell_series(cell(both), MINIMUM) if item.metric in ("dpd", "deodds")}
    assert found["dpd"].value == pytest.approx(0.3) and found["dpd"].replicates == pytest.approx([0.1])
    assert found["deodds"].value == pytest.approx(0.4) and found["deodds"].replicates == pytest.approx([0.6])
    assert found["deodds"].null == pytest.approx([0.2, 0.1])
    assert "selection_rate" not in {item.metric for item in cell_series(cell(both), MINIMUM)}


def test_the_interval_of_a_share_is_wilsons_with_the_effective_number():
    replicates = [0.8, 0.9, 0.7, 0.85]
    row = table_row(series(0.8, replicates, support=12), None, None)
    number = effective_numbers(np.array([[0.8, *replicates]]), np.array([12]))[0]
    assert (row["ci_low"], row["ci_high"]) == share_interval(0.8, number, 11.0)
    plain = table_row(series(0.8, replicates), None, None)
    assert (plain["ci_low"], plain["ci_high"]) == percentile_interval(np.array(replicates))


def test_undefined_replicates_are_counted_and_half_of_them_suffice():
    row = table_row(series(0.8, [0.7, 0.9, np.nan, np.nan]), None, None)
    assert row["ci_low"] is not None and row["note"] == "2 of 4 replicates had a group of one class"
    row = table_row(series(0.8, [0.7, np.nan, np.nan, np.nan]), None, None)
    assert row["ci_low"] is None and row["ci_high"] is None
    assert table_row(series(0.8, []), None, None)["ci_low"] is None


def test_a_row_without_estimate_has_no_other_number():
    row = table_row(series(np.nan, [0.7, 0.8], null=np.array([0.1, 0.2]), tested=True), series(0.5, [0.5, 0.5]), "real")
    names = ("estimate", "ci_low", "null_low", "p_value", "difference", "difference_low")
    assert [row[name] for name in names] == [None] * 6 and row["difference_to"] == "real"


def test_the_p_value_of_a_gap_counts_the_null_values_that_reach_it():
    null = np.array([0.1, 0.2, 0.3, np.nan, 0.4])
    row = table_row(series(0.3, [0.3, 0.3], null=null, tested=True), None, None)
    assert row["p_value"] == pytest.approx((1 + 2) / (1 + 4))
    assert (row["null_low"], row["null_high"]) == percentile_interval(null[np.isfinite(null)])
    assert "1 of 5 draws of chance" in row["note"]
    assert table_row(series(0.3, [0.3, 0.3], null=null), None, None)["p_value"] is None


def test_a_calibration_error_has_no_interval_but_its_gap_and_difference_have():
    ece = Series(0.1, np.array([0.1, 0.2]), "ece", "sex", "a", 40, 20)
    row = table_row(ece, Series(0.05, np.array([0.05, 0.05]), "ece", "sex", "a", 40, 20), "real")
    assert row["ci_low"] is None and row["note"] == BIASED
    assert row["difference"] == pytest.approx(0.05) and row["difference_high"] is not None
    assert table_row(replace(ece, group="gap"), None, None)["ci_low"] is not None


def test_a_difference_is_paired_and_taken_on_the_shared_rows():
    own, shared = series(0.8, [0.8, 0.9]), series(0.7, [0.6, 0.8])
    baseline = series(0.6, [0.5, 0.7])
    row = table_row(own, baseline, "real", shared)
    assert row["estimate"] == 0.8 and row["difference"] == pytest.approx(0.1)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((0.1, 0.1))
    assert table_row(own, baseline, "real")["difference"] == pytest.approx(0.2)


def test_holm_is_over_the_attributes_of_one_recipe_task_domain_and_metric():
    rows = [("r", "t", "all", "auc", 0.01), ("r", "t", "all", "auc", 0.04), ("r", "t", "all", "brier", 0.04)]
    rows += [("r", "t", "id", "auc", 0.04), ("r", "t", "all", "auc", None)]
    table = adjust(pd.DataFrame(rows, columns=["recipe", "task", "domain", "metric", "p_value"]))
    np.testing.assert_allclose(table["p_value"], [0.02, 0.04, 0.04, 0.04, np.nan])
