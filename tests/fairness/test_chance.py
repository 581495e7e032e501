"""What chance gives when groups differ in size, prevalence and images a patient, against binomials and by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from equigen.errors import InputError
from equigen.fairness import audit
from equigen.fairness.null_bands import (
    common_value,
    effective_numbers,
    null_calibration_errors,
    null_values,
    replace_degenerate,
)
from equigen.statistics import share_interval, wilson_interval

DRAWS = {"replicates": 300, "permutations": 1500, "site": None, "threshold": 0.5}


def group(name, positives, negatives, *, hits, alarms=0, copies=1):
    """Patients of one group: ``hits`` of the positives and ``alarms`` of the negatives are called positive."""
    truth = np.repeat([1, 0], [positives, negatives])
    score = np.full(len(truth), 0.2)
    score[:hits] = 0.8
    score[positives : positives + alarms] = 0.8
    table = pd.DataFrame({"truth": truth, "probability": score, "attr.group": name})
    table["patient"] = [f"{name}{row}" for row in range(len(table))]
    table = table.loc[np.repeat(table.index, copies)]
    return table.assign(image=[f"{name}-{row}" for row in range(len(table))])


def row_of(table, metric, level):
    rows = table[(table["metric"] == metric) & (table["group"] == level) & (table["attribute"] == "group")]
    assert len(rows) == 1
    return rows.iloc[0]


def test_effective_number_of_a_share_is_the_number_of_cases():
    rng = np.random.default_rng(0)
    replicates = rng.binomial(50, 0.8, 20_000) / 50
    values = np.concatenate([[0.8], replicates])[None, :]
    assert effective_numbers(values, np.array([50]))[0] == pytest.approx(49, rel=0.03)  # 50 less n / (n - 1)
    assert effective_numbers(np.ones((1, 100)), np.array([12]))[0] == pytest.approx(12)
    assert np.isnan(effective_numbers(np.full((1, 9), np.nan), np.array([12]))[0])
    assert common_value(np.array([0.5, np.nan]), np.array([9.0, np.nan])) == pytest.approx(0.5)


@pytest.mark.parametrize("copies", [1, 5])
@pytest.mark.parametrize("small_negatives", [20, 400])
def test_band_of_a_small_group_is_that_of_its_own_binomial(copies, small_negatives):
    """20 positives against 400: chance moves a sensitivity of 0.75 by the small group's noise, whatever the negatives.

    Copies of an image carry no information, so neither five images a patient in the large group nor one in the small
    one narrows or widens the band. Permuted labels gave the band of a group of mean prevalence and mean clusters.
    """
    table = pd.concat([group("large", 400, 400, hits=300, copies=copies), group("small", 20, small_negatives, hits=15)])
    found = row_of(audit(table, **DRAWS).table, "sensitivity", "gap")
    rng = np.random.default_rng(1)
    gaps = np.abs(rng.binomial(20, 0.75, 50_000) / 20 - rng.binomial(400, 0.75, 50_000) / 400)
    assert found["estimate"] == pytest.approx(0.0)
    assert found["null_high"] == pytest.approx(np.quantile(gaps, 0.975), rel=0.2)


def test_p_value_of_a_gap_is_that_of_the_binomials():
    table = pd.concat([group("large", 2000, 50, hits=1500), group("small", 40, 200, hits=23)])
    found = row_of(audit(table, **DRAWS).table, "sensitivity", "gap")
    exact = 2 * binom.cdf(23, 40, 0.75)  # two-sided; 0.575 against 0.75
    assert found["p_value"] == pytest.approx(exact, abs=0.02)


def test_patients_in_several_groups_share_their_noise():
    rng = np.random.default_rng(3)
    common = rng.normal(0, 0.03, 400)
    same = np.clip(np.stack([np.concatenate([[0.8], 0.8 + common])] * 2), 0, 1)
    drawn = [
        np.ptp(null_values(same, np.array([100, 100]), 400, np.random.default_rng(1), mixed=mixed), axis=0)
        for mixed in (True, False)
    ]
    assert np.mean(drawn[0]) < 0.2 * np.mean(drawn[1])


def test_values_under_chance_have_the_common_mean_and_each_their_own_variance():
    rng = np.random.default_rng(0)
    values = np.stack([np.concatenate([[0.6], rng.normal(0.6, sd, 4000)]) for sd in (0.02, 0.06)])
    drawn = null_values(values, np.array([2000, 2000]), 4000, rng)
    assert drawn.mean(axis=1) == pytest.approx([0.6, 0.6], abs=0.005)
    assert drawn.std(axis=1) == pytest.approx([0.02, 0.06], rel=0.08)
    absent = null_values(np.stack([values[0], np.full(4001, np.nan)]), np.array([2000, 3]), 10, rng)
    assert np.isfinite(absent[0]).all() and np.isnan(absent[1]).all()


def test_calibration_under_chance_by_hand():
    """Two groups of 10 and 30 rows whose bin is off by 0.4 and by 0: the common curve is off by 0.1."""
    surprise = np.zeros((2, 10, 3))
    surprise[0, 2] = [0.4, 0.5, 0.4]
    shares = np.zeros((2, 10))
    shares[:, 2] = 1.0
    drawn = null_calibration_errors(surprise, shares, np.array([10, 30]), np.array([5, 30]), 4)
    moved = 0.1 * np.sqrt(5 / 4)
    assert drawn[0] == pytest.approx([0.1 + moved, 0.1, 0.1 + moved, 0.1]) and drawn[1] == pytest.approx([0.1] * 4)


def test_a_small_group_may_look_worse_calibrated_by_chance():
    """Calibrated scores: the error of 60 rows is larger than that of 3000, and that is within the band."""
    rng = np.random.default_rng(5)
    score = rng.random(3060)
    table = pd.DataFrame(
        {
            "truth": (rng.random(3060) < score).astype(int),
            "probability": score,
            "patient": np.arange(3060),
            "image": np.arange(3060),
            "attr.group": np.repeat(["large", "small"], [3000, 60]),
        }
    )
    found = row_of(audit(table, **DRAWS).table, "ece", "gap")
    assert found["estimate"] > 0.05 and found["p_value"] > 0.1 and found["null_high"] > found["estimate"]


def test_one_positive_in_a_group_is_no_sensitivity():
    """152 patients with one positive: no sensitivity, AUC or odds, and no gap from them; accuracy stays."""
    table = pd.concat([group("large", 100, 200, hits=80, alarms=20), group("rare", 1, 151, hits=1, alarms=9)])
    found = audit(table, **DRAWS).table
    for metric in ("sensitivity", "auc", "pr_auc", "balanced_accuracy"):
        row = row_of(found, metric, "rare")
        assert np.isnan(row["estimate"]) and np.isnan(row["ci_low"])
        assert row["note"].startswith("too small: 1 patients with the condition, 10 are needed")
        assert np.isnan(row_of(found, metric, "gap")["p_value"])
    assert np.isnan(row_of(found, "deodds", "gap")["estimate"])
    for metric in ("specificity", "accuracy", "brier"):
        assert np.isfinite(row_of(found, metric, "rare")["estimate"])
        assert np.isfinite(row_of(found, metric, "gap")["p_value"])
    allowed = audit(table, **DRAWS, min_cases=1).table
    assert row_of(allowed, "sensitivity", "rare")["estimate"] == 1.0


def test_few_negatives_are_no_specificity_and_leave_the_gap():
    parts = [group("a", 60, 60, hits=50, alarms=9), group("b", 60, 60, hits=40, alarms=20), group("c", 90, 9, hits=9)]
    found = audit(pd.concat(parts), **DRAWS).table
    row = row_of(found, "specificity", "c")
    assert np.isnan(row["estimate"]) and "9 patients without the condition, 10 are needed" in row["note"]
    gap = row_of(found, "specificity", "gap")
    assert gap["estimate"] == pytest.approx(11 / 60) and "without c (too small)" in gap["note"]
    assert row_of(found, "sensitivity", "worst")["estimate"] == pytest.approx(0.1)


def test_all_successes_have_the_width_of_their_number():
    """12 of 12 positives: the bootstrap knows no other value, Wilson's interval with Student's t does."""
    table = pd.concat([group("all", 12, 40, hits=12), group("rest", 40, 40, hits=40)])
    found = audit(table, **DRAWS).table
    row, wilson = row_of(found, "sensitivity", "all"), wilson_interval(12, 12)
    assert row["estimate"] == row["ci_high"] == 1.0 and 0.68 < row["ci_low"] < wilson[0]
    gap = row_of(found, "sensitivity", "gap")
    assert gap["estimate"] == 0.0 and gap["ci_high"] > 0.05 and gap["null_high"] > 0.05 and gap["p_value"] == 1.0
    assert row_of(found, "sensitivity", "worst")["ci_low"] < 0.95


def test_replicates_that_vary_are_left_as_they_are():
    rng = np.random.default_rng(0)
    values = np.array([1.0, 1.0, 0.9])
    assert replace_degenerate(values, 10, rng) is values
    drawn = replace_degenerate(np.ones(5001), 10, rng)
    assert drawn[0] == 1.0 and drawn[1:].mean() == pytest.approx(10.5 / 11, abs=0.005)


def test_share_interval_is_wilsons_and_wider_with_few_degrees_of_freedom():
    assert share_interval(0.3, 40.0, np.inf) == pytest.approx(wilson_interval(12, 40))
    narrow, wide = share_interval(0.3, 40.0, 200.0), share_interval(0.3, 40.0, 9.0)
    assert wide[0] < narrow[0] and wide[1] > narrow[1]
    for wrong in ((1.2, 4.0, 3.0), (0.5, 0.0, 3.0), (0.5, 4.0, 0.0), (float("nan"), 4.0, 3.0)):
        with pytest.raises(InputError):
            share_interval(*wrong)


def test_copies_of_an_image_leave_an_interval_as_it_was():
    alone = audit(group("a", 40, 40, hits=30, alarms=5), ["group"], **DRAWS).table
    copied = audit(group("a", 40, 40, hits=30, alarms=5, copies=4), ["group"], **DRAWS).table
    for metric in ("sensitivity", "accuracy", "auc"):
        widths = [row["ci_high"] - row["ci_low"] for row in (row_of(t, metric, "a") for t in (alone, copied))]
        assert widths[1] == pytest.approx(widths[0], rel=1e-6)


def test_gaps_carry_their_warnings():
    table = pd.concat([group("a", 60, 60, hits=50, alarms=9), group("b", 60, 60, hits=40, alarms=20)])
    found = audit(table, **DRAWS).table
    gaps = found[found["group"] == "gap"].set_index("metric")["note"]
    assert gaps.str.contains("never holds 0").all()
    follows = set(gaps.index[gaps.str.contains("follows prevalence")])
    assert follows == {"pr_auc", "accuracy", "brier", "ece", "dpd"}
    assert "case mix" in gaps["auc"] and not found[found["group"] == "*"]["note"].str.contains("never holds").any()


def test_no_resampling_no_band():
    table = pd.concat([group("a", 60, 60, hits=50), group("b", 60, 60, hits=40)])
    found = audit(table, replicates=0, permutations=50, site=None).table
    assert found[["null_low", "null_high", "p_value", "ci_low"]].isna().all(axis=None)
    assert np.isfinite(row_of(found, "auc", "gap")["estimate"])


def test_a_calibration_error_has_no_interval_but_its_gap_has():
    rng = np.random.default_rng(0)
    score = rng.uniform(size=400)
    table = pd.DataFrame({
        "patient": [f"p{row}" for row in range(400)], "truth": (rng.uniform(size=400) < score).astype(int),
        "probability": score, "sex": np.where(np.arange(400) % 2, "f", "m"),
    })  # fmt: skip
    rows = audit(table, ["sex"], replicates=50, permutations=50).table.query("metric == 'ece'").set_index("group")
    assert rows.loc[["*", "f", "m", "worst"], "ci_low"].isna().all() and rows["estimate"].notna().all()
    assert rows.loc[["*", "f"], "note"].str.contains("no interval").all()
    assert np.isfinite(rows.loc["gap", "ci_high"])
