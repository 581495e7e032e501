"""Rows of the quality table from estimates written out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from equigen.quality.cells import Cell
from equigen.quality.metric_inputs import CellEstimate, MetricResult
from equigen.quality.rows import (
    EXCESS_TEST_NOTE,
    UNTESTED_NOTE,
    interval_row,
    join_notes,
    quality_table,
    summarise,
    summarise_estimates,
)
from equigen.statistics import Estimate, interval_error, percentile_interval

TABLE = np.array([[0.5, 0.25, 0.75], [0.5, 0.5, 0.5], [np.nan, 0.25, 0.75], [0.5, np.inf, 0.75], [-0.5, 0.25, 0.75]])
ROWS = np.arange(30)
CELLS = [
    Cell("*", "*", -1, np.arange(60), np.arange(80), 40, [], None, "", 20),
    Cell("sex", "f", 0, ROWS, np.arange(50), 20, [], None, "", 10),
    Cell("sex", "m", 1, ROWS, ROWS, 20, [], None, "", 10),
    Cell("sex", "x", 2, ROWS[:3], ROWS[:2], 3, [], "too small: 3 patients", "", 0),
]
REPLICATES = np.array([[0.4, 0.5, 0.6, 0.5], [0.2, 0.3, 0.3, 0.2], [0.7, 0.7, 0.9, 0.8]])


def result(
    metric: str = "kd", kind: str = "lower", floors: tuple[float | None, ...] = (0.1, 0.05, 0.2)
) -> MetricResult:
    keys = [("*", "*"), ("sex", "f"), ("sex", "m")]
    estimates = {
        key: CellEstimate(value, replicates, floor, 0.01, 0.02)
        for key, value, replicates, floor in zip(keys, (0.5, 0.25, 0.75), REPLICATES, (0.1, 0.05, 0.2), strict=True)
    }
    null = {"sex": np.array([[0.5, 0.6], [0.1, 0.8], [0.4, 0.5], [0.45, 0.5]])}
    return MetricResult(metric, kind, estimates, null, "a note")


def row_of(table, group):
    rows = table[table["group"] == group]
    assert len(rows) == 1
    return rows.iloc[0]


def table_of(*metrics: MetricResult, cells=CELLS, **options):
    return quality_table(list(metrics), cells, "g", "e", 10, **options)


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


def test_a_summary_has_the_summary_of_each_replicate():
    estimates = [
        Estimate(0.5, np.array([0.5, 0.5])),
        Estimate(0.2, np.array([0.1, 0.4])),
        Estimate(0.9, np.array([1, 0.6])),
    ]
    gap = summarise_estimates(estimates, "lower", "gap")
    assert gap.value == pytest.approx(0.7)
    np.testing.assert_allclose(gap.replicates, [0.9, 0.2])


def test_a_group_has_estimate_interval_floor_excess_and_null_band():
    row = row_of(table_of(result()), "f")
    assert (row["estimate"], row["floor"]) == (0.25, 0.05) and row["excess"] == pytest.approx(0.2)
    assert (row["ci_low"], row["ci_high"]) == percentile_interval(REPLICATES[1])
    assert row["standard_error"] == pytest.approx(REPLICATES[1].std(ddof=1))
    assert row["mc_interval"] == pytest.approx(interval_error(REPLICATES[1]))
    assert (row["null_low"], row["null_high"]) == percentile_interval(np.array([0.5, 0.1, 0.4, 0.45]))
    assert (row["n_real"], row["n_generated"], row["matched_n"]) == (30, 50, 10)
    assert (row["mc_estimate"], row["mc_floor"]) == (0.01, 0.02) and row["note"] == "a note"


def test_an_excess_is_of_metrics_alone_of_which_less_is_better():
    assert np.isnan(row_of(table_of(result(kind="share")), "f")["excess"])
    assert np.isnan(row_of(table_of(result(kind="share")), "gap")["excess"])


def test_a_small_cell_has_its_reason_and_no_number():
    row = row_of(table_of(result()), "x")
    assert row["note"] == "too small: 3 patients" and row[["estimate", "ci_low", "floor", "null_low"]].isna().all()


def test_the_gap_is_that_of_the_groups_with_a_number_and_of_their_floors():
    row = row_of(table_of(result()), "gap")
    assert row["estimate"] == pytest.approx(0.5) and row["floor"] == pytest.approx(0.15)
    assert row["excess"] == pytest.approx((0.75 - 0.2) - (0.25 - 0.05))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(percentile_interval(REPLICATES[2] - REPLICATES[1]))
    assert row["mc_estimate"] == pytest.approx(np.hypot(0.01, 0.01))
    assert (
        "without x (too small: 3 patients)" in row["note"] and "excess is made of the groups' excesses" in row["note"]
    )


def test_the_p_value_of_a_gap_is_that_of_its_permutations():
    null = np.array([0.1, 0.7, 0.1, 0.05])  # one of four reaches 0.5
    row = row_of(table_of(result()), "gap")
    assert row["p_value"] == pytest.approx((1 + 1) / (1 + 4))
    assert (row["null_low"], row["null_high"]) == pytest.approx(percentile_interval(null))


def test_the_equity_scaled_value_adds_the_distances_from_all_images():
    row = row_of(table_of(result()), "es")
    assert row["estimate"] == pytest.approx(0.5 + 0.25 + 0.25)
    assert row["floor"] == pytest.approx(0.1 + 0.05 + 0.1) and np.isnan(row["p_value"])


def test_a_frechet_gap_is_tested_in_excess_by_the_bootstrap():
    row = row_of(table_of(result("fd")), "gap")
    draws = REPLICATES[1:].T
    equal = np.ptp(np.sqrt(2) * (draws - draws.mean(axis=0)), axis=1)
    assert row["p_value"] == pytest.approx((1 + (equal >= 0.35).sum()) / 5)
    assert EXCESS_TEST_NOTE in row["note"]


def test_where_groups_differ_the_larger_of_two_p_values_stands():
    different = replace(result(), heterogeneity={"sex": "spread"})
    draws = REPLICATES[1:].T
    equal = np.ptp(draws - draws.mean(axis=0), axis=1)
    bootstrap = (1 + (equal >= 0.5).sum()) / 5
    row = row_of(table_of(different), "gap")
    assert row["p_value"] == pytest.approx(max(0.4, bootstrap)) and "differ in spread" in row["note"]
    untested = row_of(table_of(result("is", "higher")), "gap")
    assert np.isnan([untested["p_value"], untested["null_low"], untested["null_high"]]).all()
    assert UNTESTED_NOTE in untested["note"] and np.isfinite(untested["estimate"])


def test_p_values_are_adjusted_over_the_attributes_of_a_metric():
    cells = [*CELLS, Cell("age", "o", 0, ROWS, ROWS, 20, [], None), Cell("age", "y", 1, ROWS, ROWS, 20, [], None)]
    metric = result()
    for group, key in (("o", ("sex", "f")), ("y", ("sex", "m"))):
        metric.estimates["age", group] = metric.estimates[key]
    metric.null["age"] = np.array([[0.5, 0.5]] * 4)
    gaps = table_of(metric, cells=cells)
    gaps = gaps[gaps["group"] == "gap"].set_index("attribute")
    assert gaps.loc["age", "p_value"] == pytest.approx(2 * 0.2) and gaps.loc["sex", "p_value"] == pytest.approx(0.4)
    assert "p adjusted by Holm over 2 attributes, 0.2 before" in gaps.loc["age", "note"]


def test_one_group_alone_or_no_overall_value_gives_no_summary():
    alone = result()
    del alone.estimates["sex", "m"]
    for metric in (alone, replace(result(), estimates={k: v for k, v in result().estimates.items() if k[0] == "sex"})):
        row = row_of(table_of(metric), "gap")
        assert np.isnan(row["estimate"]) and "fewer than two groups are large enough to compare" in row["note"]


def test_a_share_without_exception_is_bounded_by_the_rule_of_three():
    metric = replace(result("authenticity", "share"), estimates={("*", "*"): CellEstimate(1.0, np.ones(4))})
    assert "up to 0.037 may be" in row_of(table_of(metric, cells=CELLS[:1]), "*")["note"]  # 3 / 80 images
    assert len(table_of(metric, cells=CELLS[:1], overall=False)) == 0


def test_an_interval_counts_undefined_replicates_and_needs_half_of_them():
    row = interval_row(Estimate(1.0, np.array([1.0, 2.0, np.nan])))
    assert row["note"] == "1 of 3 bootstrap replicates are undefined" and row["ci_high"] == pytest.approx(1.975)
    assert interval_row(Estimate(1.0, np.array([1.0, np.nan, np.nan])))["ci_low"] is None
    assert interval_row(Estimate(1.0, np.array([1.0])))["ci_low"] is None


def test_notes_are_joined_without_empty_ones():
    assert join_notes("a", "", "b") == "a; b" and join_notes() == ""
