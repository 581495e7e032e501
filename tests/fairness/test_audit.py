"""The audit's numbers by hand masks, under the null, paired, and in small cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference
from sklearn.metrics import roc_auc_score

from equigen.fairness import audit, choose_threshold
from equigen.fairness.rows import COLUMNS
from equigen.statistics import equity_scaled

FAST = {"replicates": 60, "permutations": 60, "min_patients": 10, "min_cases": 2}


def pick(table, **wanted):
    """The one row with these values."""
    wanted = {"recipe": "real", "task": "sick", "domain": "all", "attribute": "*", "group": "*"} | wanted
    mask = np.all([table[column] == value for column, value in wanted.items()], axis=0)
    assert mask.sum() == 1, (mask.sum(), wanted)
    return table[mask].iloc[0]


def test_numbers_by_hand(predictions):
    table = predictions()
    found = audit(table, **FAST).table
    assert list(found.columns) == COLUMNS
    val, test = table[table["split"] == "val"], table[table["split"] == "test"]
    threshold = choose_threshold(val["truth"].to_numpy(), val["probability"].to_numpy())
    flag = (test["probability"] >= threshold).to_numpy()
    for domain, rows in {
        "all": test,
        "ood": test[test["domain"] == "ood"],
        "south": test[test["site"] == "south"],
    }.items():
        overall = roc_auc_score(rows["truth"], rows["probability"])
        row = pick(found, domain=domain, metric="auc")
        assert row["estimate"] == pytest.approx(overall) and row["ci_low"] < overall < row["ci_high"]
        assert (row["n"], row["n_patients"]) == (len(rows), rows["patient"].nunique())
        by_age = {age: roc_auc_score(g["truth"], g["probability"]) for age, g in rows.groupby("attr.age")}
        for age, value in by_age.items():
            assert pick(found, domain=domain, metric="auc", attribute="age", group=age)["estimate"] == pytest.approx(
                value
            )
        values = np.array(list(by_age.values()))
        at = {"domain": domain, "metric": "auc", "attribute": "age"}
        assert pick(found, **at, group="gap")["estimate"] == pytest.approx(np.ptp(values))
        assert pick(found, **at, group="worst")["estimate"] == pytest.approx(values.min())
        assert min(by_age, key=by_age.get) in pick(found, **at, group="worst")["note"]
        scaled = equity_scaled(overall, values, relative=False, higher_is_better=True)
        assert pick(found, **at, group="es")["estimate"] == pytest.approx(scaled)
    truth, sex = test["truth"].to_numpy(), test["attr.sex"].to_numpy()
    women = sex == "f"
    row = pick(found, metric="sensitivity", attribute="sex", group="f")
    assert row["estimate"] == pytest.approx((flag & women & (truth == 1)).sum() / (women & (truth == 1)).sum())
    assert pick(found, metric="dpd", attribute="sex", group="gap")["estimate"] == pytest.approx(
        demographic_parity_difference(truth, flag, sensitive_features=sex)
    )
    assert pick(found, metric="deodds", attribute="sex", group="gap")["estimate"] == pytest.approx(
        equalized_odds_difference(truth, flag, sensitive_features=sex)
    )


def test_order_of_rows_does_not_matter(predictions):
    table = predictions()
    shuffled = table.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(audit(table, **FAST).table, audit(shuffled, **FAST).table)
    bare = table.drop(columns=["image", "recipe", "task", "domain"])
    pd.testing.assert_frame_equal(audit(bare, **FAST).table, audit(bare.sample(frac=1, random_state=3), **FAST).table)


def test_same_seed_same_numbers_other_seed_other_intervals(predictions):
    table = predictions()
    first, again, other = audit(table, **FAST).table, audit(table, **FAST).table, audit(table, **FAST, seed=1).table
    pd.testing.assert_frame_equal(first, again)
    assert first["estimate"].equals(other["estimate"]) and not first["ci_low"].equals(other["ci_low"])


def test_fair_model_lies_in_its_null_band_and_unfair_does_not(predictions):
    fair = audit(predictions(2400, seed=5), ["sex"], **FAST).table
    row = pick(fair, metric="auc", attribute="sex", group="gap")
    assert row["null_low"] <= row["estimate"] <= row["null_high"] and row["p_value"] > 0.05
    unfair = audit(predictions(2400, seed=5, signal=2.5, unfair=2.0), ["sex"], **FAST).table
    row = pick(unfair, metric="auc", attribute="sex", group="gap")
    assert row["estimate"] > row["null_high"] and row["p_value"] == pytest.approx(1 / 61)
    scaled = pick(unfair, metric="auc", attribute="sex", group="es")
    assert scaled["estimate"] < scaled["null_low"]


def test_p_values_are_uniform_under_the_null(predictions):
    tables = [predictions(240, seed=seed).drop(columns=["site", "domain"]) for seed in range(40)]
    found = [audit(table, ["sex"], replicates=39, permutations=39, min_patients=5).table for table in tables]
    values = [pick(table, metric="auc", attribute="sex", group="gap")["p_value"] for table in found]
    assert 0.35 < np.mean(values) < 0.65 and np.mean(np.array(values) <= 0.1) < 0.25


def test_holm_over_attributes(predictions):
    table = predictions(1200, signal=2.5, unfair=2.0)
    alone = pick(audit(table, ["sex"], **FAST).table, metric="auc", attribute="sex", group="gap")["p_value"]
    both = pick(audit(table, ["sex", "age"], **FAST).table, metric="auc", attribute="sex", group="gap")["p_value"]
    assert both == pytest.approx(2 * alone)


def test_paired_with_itself_is_exactly_zero(predictions):
    table = predictions()
    found = audit(pd.concat([table, table.assign(recipe="copy")]), **FAST).table
    copy = found[(found["recipe"] == "copy") & found["estimate"].notna()]
    assert (copy["difference_to"] == "real").all()
    assert (copy[["difference", "difference_low", "difference_high"]] == 0).all(axis=None)
    real = found[found["recipe"] == "real"]
    assert real["difference_to"].isna().all() and real["difference"].isna().all()


def test_paired_interval_is_narrower_than_unpaired(predictions):
    table = predictions(1200)
    noise = np.random.default_rng(0).normal(0, 0.01, len(table))
    better = table.assign(recipe="near", probability=(table["probability"] + noise).clip(0, 1))
    found = audit(pd.concat([table, better]), **FAST).table
    row = pick(found, recipe="near", metric="auc")
    assert row["difference_high"] - row["difference_low"] < 0.5 * (row["ci_high"] - row["ci_low"])
    assert row["difference"] == pytest.approx(row["estimate"] - pick(found, metric="auc")["estimate"])


def test_recipes_with_other_rows_are_compared_on_those_they_share(predictions):
    table = predictions()
    noise = np.random.default_rng(0).normal(0, 0.1, len(table))
    other = table.assign(recipe="other", probability=(table["probability"] + noise).clip(0, 1))
    found = audit(pd.concat([table.iloc[3:], other.iloc[:-7]]), ["sex"], **FAST).table
    shared = audit(pd.concat([table.iloc[3:-7], other.iloc[3:-7]]), ["sex"], **FAST, threshold=0.5).table
    row, expected = pick(found, recipe="other", metric="auc"), pick(shared, recipe="other", metric="auc")
    assert row["difference"] == pytest.approx(expected["difference"]) and row["difference_to"] == "real"
    assert row["difference_low"] < row["difference"] < row["difference_high"]
    own, real, both = (part[part["split"] == "test"] for part in (other.iloc[:-7], table.iloc[3:], table.iloc[3:-7]))
    assert row["estimate"] == pytest.approx(roc_auc_score(own["truth"], own["probability"])) and row["n"] == len(own)
    assert f"difference on the {len(both)} rows shared with real, of {len(own)} and {len(real)}" in row["note"]
    women = {"attribute": "sex", "group": "f", "metric": "auc", "recipe": "other"}
    assert pick(found, **women)["difference"] == pytest.approx(pick(shared, **women)["difference"])
    assert "shared with real" in pick(found, **women)["note"]


def test_recipes_that_share_no_row_say_so(predictions):
    table = predictions()
    moved = table.assign(recipe="moved", image=table["image"] + "x")
    found = audit(pd.concat([table, moved]), ["sex"], **FAST).table
    moved = found[found["recipe"] == "moved"]
    assert moved["difference"].isna().all() and moved["difference_to"].isna().all()
    assert moved["note"].str.contains("no row is shared with real").all()
    assert not found.loc[found["recipe"] == "real", "note"].str.contains("shared").any()


def test_macro_is_compared_over_the_tasks_that_both_have(predictions):
    tasks = [predictions(seed=seed).assign(task=f"dx:{name}") for seed, name in enumerate("abc")]
    tasks = [part.assign(**{"attr.sex": tasks[0]["attr.sex"], "attr.age": tasks[0]["attr.age"]}) for part in tasks]
    other = [
        part.assign(recipe="other", probability=part["probability"] ** 0.5 * 0.9 + 0.1 * part["truth"])
        for part in tasks[:2]
    ]
    found = audit(pd.concat([*tasks, *other]), ["sex"], **FAST).table
    each = [pick(found, recipe="other", task=f"dx:{name}", metric="auc")["difference"] for name in "ab"]
    row = pick(found, recipe="other", task="dx:macro", metric="auc")
    assert row["difference"] == pytest.approx(np.mean(each)) and "difference over 2 of 3 tasks" in row["note"]


def test_bootstrap_keeps_patients_whole(predictions):
    """Ten copies of each row under one patient carry no more information; under ten patients they seem to."""
    table = predictions(300, rows_per_patient=1)
    copies = [table.assign(image=table["image"] + f"-{k}") for k in range(10)]
    whole = pick(audit(pd.concat(copies), ["sex"], **FAST).table, metric="auc")
    torn = pick(audit(pd.concat([c.assign(patient=c["image"]) for c in copies]), ["sex"], **FAST).table, metric="auc")
    alone = pick(audit(table, ["sex"], **FAST).table, metric="auc")
    width = lambda row: row["ci_high"] - row["ci_low"]  # noqa: E731
    assert width(whole) == pytest.approx(width(alone), rel=0.3) and width(torn) < 0.6 * width(whole)


def test_small_cells_have_no_number(predictions):
    table = predictions()
    few = table.index[table["split"] == "test"][:8]
    table.loc[few, "attr.age"] = "rare"
    found = audit(table, ["age"], **FAST).table
    row = pick(found, metric="auc", attribute="age", group="rare")
    assert (
        np.isnan(row["estimate"])
        and np.isnan(row["ci_low"])
        and "too small: 4 patients" in row["note"]
        and row["n"] == 8
    )
    gap = pick(found, metric="auc", attribute="age", group="gap")
    assert np.isfinite(gap["estimate"]) and "without rare (too small)" in gap["note"]
    nothing = audit(table, ["age"], **(FAST | {"min_patients": 10_000})).table
    assert nothing["estimate"].isna().all() and nothing["note"].str.contains("too small").all()


def test_one_class_group(predictions):
    table = predictions()
    table.loc[table["attr.sex"] == "f", "truth"] = 0
    found = audit(table, ["sex"], **FAST).table
    row = pick(found, metric="auc", attribute="sex", group="f")
    assert np.isnan(row["estimate"]) and row["note"] == "too small: one class only"
    assert np.isfinite(pick(found, metric="accuracy", attribute="sex", group="f")["estimate"])
    assert "fewer than two groups" in pick(found, metric="auc", attribute="sex", group="gap")["note"]


def test_replicates_without_a_value_are_counted(predictions):
    table = predictions(rows_per_patient=1)
    women = table.index[(table["attr.sex"] == "f") & (table["split"] == "test")]
    table.loc[women, "truth"] = 0
    table.loc[women[:2], "truth"] = 1
    row = pick(audit(table, ["sex"], **FAST).table, metric="auc", attribute="sex", group="f")
    assert np.isfinite(row["estimate"]) and np.isfinite(row["ci_low"])
    assert "of 60 replicates had a group of one class" in row["note"]


def test_unknown_groups_are_no_level(predictions):
    table = predictions()
    table.loc[::5, "attr.sex"] = None
    found = audit(table, ["sex"], **FAST).table
    assert set(found.loc[found["attribute"] == "sex", "group"]) == {"f", "m", "gap", "worst", "es"}
    unknown = table.loc[table["split"] == "test", "attr.sex"].isna().sum()
    assert f"{unknown} rows of unknown sex left out" in pick(found, metric="auc", attribute="sex", group="gap")["note"]


def test_seeds_are_averaged(predictions):
    table = predictions()
    other = table.assign(seed=1, probability=table["probability"] ** 2 + 0 * table["truth"])
    other["probability"] = np.random.default_rng(0).permutation(other["probability"])
    found = audit(pd.concat([table, other]), ["sex"], **FAST).table
    each = [audit(part, ["sex"], **FAST).table for part in (table, other)]
    mean = np.mean([pick(part, metric="auc")["estimate"] for part in each])
    row = pick(found, metric="auc")
    assert row["estimate"] == pytest.approx(mean) and row["note"] == "mean of 2 seeds"


def test_macro_and_high_risk(predictions):
    parts = [
        predictions(seed=seed).assign(
            task=f"dx:{name}",
            **{"attr.sex": predictions()["attr.sex"], "attr.age": predictions()["attr.age"]},
        )
        for seed, name in enumerate(["mel", "nv", "high_risk"])
    ]
    found = audit(pd.concat(parts), **FAST).table
    aucs = [
        pick(found, task=f"dx:{name}", metric="auc", attribute="sex", group="f")["estimate"] for name in ("mel", "nv")
    ]
    assert pick(found, task="dx:macro", metric="auc", attribute="sex", group="f")["estimate"] == pytest.approx(
        np.mean(aucs)
    )
    gap = pick(found, task="dx:macro", metric="auc", attribute="sex", group="gap")
    men = [
        pick(found, task=f"dx:{name}", metric="auc", attribute="sex", group="m")["estimate"] for name in ("mel", "nv")
    ]
    assert gap["estimate"] == pytest.approx(abs(np.mean(aucs) - np.mean(men))) and np.isfinite(gap["p_value"])
    risk = pick(found, task="dx:high_risk", metric="high_risk_sensitivity")
    assert risk["estimate"] == pick(found, task="dx:high_risk", metric="sensitivity")["estimate"]
    assert not (found[found["task"] == "dx:mel"]["metric"] == "high_risk_sensitivity").any()


def test_macro_compares_groups_over_the_same_tasks(predictions):
    base = predictions()
    parts = [
        predictions(seed=seed).assign(task=f"dx:{name}", **{"attr.sex": base["attr.sex"]})
        for seed, name in enumerate("abc")
    ]
    parts[2].loc[parts[2]["attr.sex"] == "f", "truth"] = 0
    found = audit(pd.concat(parts), ["sex"], **FAST).table
    row = pick(found, task="dx:macro", metric="auc", attribute="sex", group="m")
    expected = np.mean(
        [pick(found, task=f"dx:{name}", metric="auc", attribute="sex", group="m")["estimate"] for name in "ab"]
    )
    assert row["estimate"] == pytest.approx(expected) and "mean of 2 of 3 tasks, without c" in row["note"]


def test_threshold_never_from_test(predictions):
    table = predictions()
    changed = table.copy()
    test = changed["split"] == "test"
    changed.loc[test, "probability"] = 1 - changed.loc[test, "probability"]
    val = table[table["split"] == "val"]
    threshold = choose_threshold(val["truth"].to_numpy(), val["probability"].to_numpy())
    expected = ((changed.loc[test, "probability"] >= threshold) == changed.loc[test, "truth"]).mean()
    assert pick(audit(changed, ["sex"], **FAST).table, metric="accuracy")["estimate"] == pytest.approx(expected)
    fixed = pick(audit(table, ["sex"], **FAST, threshold=0.9).table, metric="sensitivity")["estimate"]
    rows = table[test & (table["truth"] == 1)]
    assert fixed == pytest.approx((rows["probability"] >= 0.9).mean())
