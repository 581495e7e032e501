"""What must not change an audit, and what must change it in one known way."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from equigen.errors import InputError
from equigen.fairness import audit

FAST = {"replicates": 40, "permutations": 40, "min_patients": 10, "min_cases": 2, "threshold": 0.4, "site": None}
KEY = ["recipe", "task", "domain", "metric", "attribute", "group"]
NUMBERS = ["estimate", "ci_low", "ci_high", "null_low", "null_high", "p_value"]


def numbers(table: pd.DataFrame, columns: list[str] = NUMBERS) -> pd.DataFrame:
    return table.set_index(KEY)[columns].sort_index()


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    patient = np.arange(300) // 2
    truth = rng.integers(0, 2, 300)
    sex, age = (rng.integers(0, count, 150)[patient] for count in (2, 3))
    score = 1 / (1 + np.exp(-(1.5 * (truth - 0.5) + rng.normal(size=300))))
    return pd.DataFrame(
        {
            "patient": [f"p{code:03d}" for code in patient],
            "image": [f"i{row:03d}" for row in range(300)],
            "truth": truth,
            "probability": score.round(3),
            "attr.sex": np.array(["female", "male"])[sex],
            "attr.age": np.array(["1 young", "2 middle", "3 old"])[age],
        }
    )


@pytest.fixture(scope="module")
def plain(rows) -> pd.DataFrame:
    return audit(rows, **FAST).table


def test_the_order_of_rows_and_columns_changes_no_number(rows, plain):
    shuffled = rows.sample(frac=1, random_state=0)[rows.columns[::-1]]
    pd.testing.assert_frame_equal(numbers(audit(shuffled, **FAST).table), numbers(plain), rtol=1e-12)


def test_renamed_groups_have_the_numbers_of_the_groups(rows, plain):
    names = {"female": "group 1", "male": "group 2"}  # in the same order, since draws follow the order of names
    table = audit(rows.replace({"attr.sex": names}), **FAST).table.replace({"group": {v: k for k, v in names.items()}})
    pd.testing.assert_frame_equal(numbers(table), numbers(plain), rtol=1e-12)
    exchanged = audit(rows.replace({"attr.sex": {"female": "z"}}), **FAST).table.replace({"group": {"z": "female"}})
    pd.testing.assert_frame_equal(
        numbers(exchanged, ["estimate"]), numbers(plain, ["estimate"]), rtol=1e-12
    )  # in another order, the same estimates


def test_an_attribute_more_changes_nothing_in_the_others(rows, plain):
    table = audit(rows.assign(**{"attr.zone": "n"}), **FAST).table
    pd.testing.assert_frame_equal(
        numbers(table[table["attribute"] != "zone"], ["estimate", "ci_low", "ci_high", "null_low", "null_high"]),
        numbers(plain, ["estimate", "ci_low", "ci_high", "null_low", "null_high"]),
        rtol=1e-12,
    )


def test_every_patient_twice_keeps_estimates_and_narrows_intervals(rows, plain):
    copies = rows.assign(patient="copy " + rows["patient"], image="copy " + rows["image"])
    table = audit(pd.concat([rows, copies]), **FAST).table
    pd.testing.assert_frame_equal(numbers(table, ["estimate"]), numbers(plain, ["estimate"]), rtol=1e-12)
    both = plain.merge(table, on=KEY, suffixes=("", "_twice"))
    shares = both[~both["group"].isin(["gap", "worst", "es"]) & (both["metric"] != "ece")]
    widths = [(shares[f"ci_high{end}"] - shares[f"ci_low{end}"]).mean() for end in ("", "_twice")]
    assert widths[1] == pytest.approx(widths[0] / np.sqrt(2), rel=0.12)


def test_every_image_twice_of_its_patient_keeps_estimates_and_intervals(rows, plain):
    copies = rows.assign(image="copy " + rows["image"])
    table = audit(pd.concat([rows, copies]), **FAST).table
    columns = ["estimate", "ci_low", "ci_high", "null_low", "null_high", "p_value"]
    pd.testing.assert_frame_equal(numbers(table, columns), numbers(plain, columns), rtol=1e-9)


def test_the_opposite_condition_exchanges_sensitivity_and_specificity(rows, plain):
    opposite = rows.assign(truth=1 - rows["truth"], probability=1 - rows["probability"])
    table = audit(opposite, **FAST | {"threshold": 0.6 + 1e-9}).table
    names = {"sensitivity": "specificity", "specificity": "sensitivity"}
    expected, found = numbers(plain, ["estimate"]), numbers(table.replace({"metric": names}), ["estimate"])
    for metric in ("auc", "accuracy", "balanced_accuracy", "brier", "sensitivity", "specificity"):
        pd.testing.assert_frame_equal(
            found.xs(metric, level="metric"), expected.xs(metric, level="metric"), rtol=1e-9, check_exact=False
        )


def test_a_rising_map_of_the_scores_keeps_what_ranks_and_what_is_flagged(rows, plain):
    mapped = rows.assign(probability=rows["probability"] ** 2)
    table = audit(mapped, **FAST | {"threshold": 0.16}).table
    for metric in ("auc", "pr_auc", "sensitivity", "specificity", "accuracy", "dpd", "deodds"):
        pd.testing.assert_frame_equal(
            numbers(table).xs(metric, level="metric"), numbers(plain).xs(metric, level="metric"), rtol=1e-9
        )
    changed = numbers(table).xs("brier", level="metric")["estimate"]
    assert (changed != numbers(plain).xs("brier", level="metric")["estimate"]).all()


def test_a_second_recipe_changes_no_number_of_the_first_and_differs_from_its_copy_by_nothing(rows, plain):
    pair = pd.concat([rows.assign(recipe="real"), rows.assign(recipe="again")])
    table = audit(pair, **FAST).table
    own = table[table["recipe"] == "again"].assign(recipe=plain["recipe"].iloc[0])
    pd.testing.assert_frame_equal(numbers(own), numbers(plain), rtol=1e-12)
    differences = own[["difference", "difference_low", "difference_high"]].dropna()
    assert len(differences) > 30 and (differences == 0).all(axis=None)


def test_rows_without_a_score_are_refused_with_their_number(rows):
    damaged = rows.astype({"probability": object})
    damaged.loc[7, "probability"] = None
    damaged.loc[9, "probability"] = "nan"
    with pytest.raises(InputError) as caught:
        audit(damaged, **FAST)
    assert {problem.row for problem in caught.value.problems} == {9, 11}  # of a table whose heading is row 1


def test_a_group_without_rows_is_no_group(rows):
    women = rows[rows["attr.sex"] == "female"]
    table = audit(women, **FAST).table
    sex = table[(table["attribute"] == "sex") & (table["metric"] == "auc")]
    assert set(sex["group"]) == {"female", "gap", "worst", "es"}
    assert sex[sex["group"] != "female"]["estimate"].isna().all()
    overall = table[(table["attribute"] == "*") & (table["metric"] == "auc")]["estimate"].item()
    assert sex[sex["group"] == "female"]["estimate"].item() == pytest.approx(overall)
