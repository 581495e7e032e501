"""screening.parquet against numbers worked out by hand and by other software."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from screen_world import DX, SEX, row

from equigen.quality.cells import ResamplingSettings
from equigen.quality.group_means import clustered_group_means, independent_group_means
from equigen.quality.judge.questions import Target
from equigen.synthesis.screening.rounds import Rule
from equigen.synthesis.screening.table import COLUMNS, FieldVerdicts, field_verdicts, groupings, screening_table

SETTINGS = ResamplingSettings(replicates=400, seed=0, min_patients=30)
RULE = Rule([DX])


def frame(sexes, dx=None) -> pd.DataFrame:
    return pd.DataFrame({"attr.sex": np.array(sexes, object), "label.dx": dx if dx is not None else "ill"})


def made(ok, sexes, tries=None, real=None, rule=RULE, groups=(SEX,)):
    ok = np.array(ok, float)
    tries = np.ones(len(ok), np.int64) if tries is None else np.array(tries)
    side = FieldVerdicts(frame(sexes), {"*": ok, "label.dx": ok})
    return screening_table(rule, side, tries, tries == 4, real, groups, SETTINGS)


SEXES = ["female"] * 60 + ["male"] * 40
OK = [1] * 45 + [0] * 15 + [1] * 10 + [0] * 30


def test_shares_counts_and_intervals_are_those_of_scipy():
    table = made(OK, SEXES, tries=[1] * 90 + [4] * 10)
    assert list(table.columns) == COLUMNS
    for group, k, n in (("female", 45, 60), ("male", 10, 40)):
        found = row(table, "accepted_first", "sex", group)
        expected = binomtest(k, n).proportion_ci(method="wilson")
        assert (found["count"], found["n"], found["estimate"]) == (k, n, k / n)
        assert (found["ci_low"], found["ci_high"]) == pytest.approx((expected.low, expected.high))
    assert row(table, "accepted_first")["estimate"] == 0.55
    assert row(table, "tries")["estimate"] == pytest.approx(1.3)
    assert row(table, "given_up", "sex", "female")["estimate"] == 0
    assert row(table, "given_up", "sex", "female")["ci_high"] == pytest.approx(
        binomtest(0, 60).proportion_ci(method="wilson").high)  # fmt: skip
    assert row(table, "given_up", "sex", "male")["count"] == 10
    assert row(table, "tries", "sex", "male")["count"] == 70


def test_a_gap_is_held_against_chance():
    gap = row(made(OK, SEXES), "accepted_first", "sex", "gap")
    assert gap["estimate"] == pytest.approx(0.5) and gap["p_value"] == pytest.approx(1 / 401)
    rng = np.random.default_rng(0)
    permuted = np.abs([ok[:60].mean() - ok[60:].mean() for ok in (rng.permutation(OK) for _ in range(4000))])
    expected = np.quantile(permuted, [0.025, 0.975])
    assert (gap["null_low"], gap["null_high"]) == pytest.approx(expected, abs=0.042)  # one image more or less is 1 / 24


def test_p_values_under_the_null_are_as_likely_to_be_small_as_they_say():
    rng, small = np.random.default_rng(1), 0
    for seed in range(200):
        ok = (rng.random(100) < 0.6).astype(float)
        codes = (np.arange(100) >= 60).astype(np.int64)
        found = independent_group_means(ok, codes, SEX.levels, ResamplingSettings(replicates=60, seed=seed), "null")
        observed = abs(found.cells["female"].value - found.cells["male"].value)
        chance = np.abs(found.null["female"] - found.null["male"])
        small += (1 + (chance >= observed - 1e-12).sum()) / 61 <= 0.2
    assert small / 200 <= 0.2 + 3 * np.sqrt(0.2 * 0.8 / 200)


def test_a_small_group_has_no_number_and_no_place_in_the_gap():
    table = made([1] * 100 + [0] * 29, ["female"] * 100 + ["male"] * 29)
    small = row(table, "accepted_first", "sex", "male")
    assert np.isnan(small["estimate"]) and small["note"] == "too small: 29 images" and small["n"] == 29
    gap = row(table, "accepted_first", "sex", "gap")
    assert np.isnan(gap["estimate"]) and "fewer than two groups" in gap["note"] and "without male" in gap["note"]


def test_p_values_are_adjusted_over_attributes():
    table = made(OK, SEXES, groups=(SEX, Target("attr.eye", ["left", "right"])))
    assert "p adjusted" not in row(table, "accepted_first", "sex", "gap")["note"]  # eye has no groups
    eye, ok = Target("attr.eye", ["left", "right"]), np.array(OK, float)
    side = FieldVerdicts(frame(SEXES).assign(**{"attr.eye": ["left", "right"] * 50}), {"*": ok, "label.dx": ok})
    both = screening_table(RULE, side, np.ones(100, np.int64), np.zeros(100, bool), None, (SEX, eye), SETTINGS)
    found = row(both, "accepted_first", "sex", "gap")
    assert found["p_value"] == pytest.approx(2 / 401) and "Holm over 2 attributes" in found["note"]


# Real images


def patients(n, each):
    return np.array([f"p{index // each}" for index in range(n)])


def test_false_rejection_is_counted_by_patient():
    """Four images a patient, all alike: the interval is that of 50 patients, not of 200 images."""
    refused = np.repeat((np.arange(50) % 5 == 0).astype(float), 4)
    sexes = ["female", "male"] * 100
    alone, together = (FieldVerdicts(frame(sexes), {"*": 1 - refused, "label.dx": 1 - refused}, own)
                       for own in (patients(200, 1), patients(200, 4)))  # fmt: skip
    widths = []
    for real in (alone, together):
        found = row(made(OK, SEXES, real=real), "false_rejection")
        assert found["estimate"] == pytest.approx(0.2) and found["count"] == 40 and found["n"] == 200
        widths.append(found["ci_high"] - found["ci_low"])
    assert widths[0] == pytest.approx(2 * 1.96 * np.sqrt(0.16 / 200), rel=0.2)
    assert widths[1] / widths[0] == pytest.approx(2, rel=0.25)
    assert row(made(OK, SEXES, real=together), "false_rejection")["n_patients"] == 50


def test_excess_is_refusal_less_false_rejection():
    real = FieldVerdicts(frame(["female", "male"] * 100), {name: np.tile([1.0, 1, 1, 0, 0, 1, 1, 1], 25)
                                                   for name in ("*", "label.dx")}, patients(200, 2))  # fmt: skip
    table = made(OK, SEXES, real=real)
    for group, refused, falsely in (("female", 15 / 60, 25 / 100), ("male", 30 / 40, 25 / 100)):
        assert row(table, "false_rejection", "sex", group)["estimate"] == pytest.approx(falsely)
        found = row(table, "excess_rejection", "sex", group)
        assert found["estimate"] == pytest.approx(refused - falsely)
        assert found["ci_low"] < found["estimate"] < found["ci_high"]
    gap = row(table, "excess_rejection", "sex", "gap")
    assert gap["estimate"] == pytest.approx(0.5) and gap["p_value"] < 0.02


def test_a_field_that_the_screen_guesses_is_named():
    rng = np.random.default_rng(0)
    dx = np.array(["healthy", "ill"] * 200, object)
    for share, said in ((0.5, True), (0.9, False)):
        ok = (rng.random(400) < share).astype(float)
        real = FieldVerdicts(frame(["female"] * 400, dx), {"*": ok, "label.dx": ok}, patients(400, 2))
        note = row(made(OK, SEXES, real=real, groups=(SEX, DX)), "false_rejection", field="label.dx")["note"]
        assert ("no better than chance" in note) == said
        other = made(OK, SEXES, real=real, groups=(SEX, DX), rule=Rule([DX], 0.5))
        assert "chance" not in row(other, "false_rejection", field="label.dx")["note"]


def test_clustered_means_are_those_of_the_bootstrap_by_hand():
    values, codes = np.array([1.0, 0, 1, np.nan]), np.array([0, 0, 1, 1])
    patients, settings = np.array(["a", "b", "c", "c"]), ResamplingSettings(min_patients=1)
    found = clustered_group_means(values, codes, SEX.levels, patients, settings, "x")
    assert found.cells["female"].value == 0.5 and found.cells["male"].n == 1
    women = found.cells["female"].replicates
    assert set(women[np.isfinite(women)]) <= {0, 0.5, 1, 1 / 3, 2 / 3}
    assert np.isnan(found.cells["male"].replicates).any()  # a replicate without its one patient


# From verdicts to a side, from tables to groups


def test_an_image_of_which_nothing_is_checked_does_not_count():
    verdicts = pd.DataFrame({"accepted": [True, True, False], "ok.a": [1.0, np.nan, 0.0], "ok.b": [np.nan] * 2 + [1.0]})
    side = field_verdicts(pd.DataFrame(index=range(3)), verdicts)
    np.testing.assert_array_equal(side.ok["*"], [1, np.nan, 0])
    assert list(side.ok) == ["*", "a", "b"]


def test_groups_are_attributes_labels_and_findings_with_the_cohorts_levels_first():
    table = pd.DataFrame({"label.f": ["edema|nodule", "", None], "attr.age": ["old", "unborn", None], "seed": 1})
    found = groupings([table], {"attr.age": ["young", "old"]}, {})
    assert [(own.name, own.levels) for own in found] == [
        ("label.f edema", ["no edema", "edema"]), ("label.f nodule", ["no nodule", "nodule"]),
        ("attr.age", ["young", "old", "unborn"])]  # fmt: skip
