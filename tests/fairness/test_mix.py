"""Groups standardised to a common case mix, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from equigen.errors import InputError
from equigen.fairness import audit
from equigen.fairness.standardisation import standardise_weights

FAST = {"replicates": 40, "permutations": 40, "min_patients": 5, "min_cases": 1, "site": None, "threshold": 0.5}


def rows(name, stage, truth, score, count):
    columns = {"attr.group": name, "attr.stage": stage, "truth": truth, "probability": score}
    return pd.DataFrame(columns, index=range(count))


def mixed():
    """Sensitivity 0.8, specificity 0.9 in both groups; prevalence 40 of 50 in a, 10 of 50 in b."""
    parts = [
        rows("a", "late", 1, 0.9, 32),
        rows("a", "late", 1, 0.1, 8),
        rows("a", "early", 0, 0.1, 9),
        rows("a", "early", 0, 0.9, 1),
        rows("b", "late", 1, 0.9, 8),
        rows("b", "late", 1, 0.1, 2),
        rows("b", "early", 0, 0.1, 36),
        rows("b", "early", 0, 0.9, 4),
    ]
    table = pd.concat(parts, ignore_index=True)
    return table.assign(patient=table.index, image=table.index)


def value(table, metric, level):
    return table[(table["metric"] == metric) & (table["group"] == level) & (table["attribute"] == "group")].iloc[0]


@pytest.mark.parametrize("column", ["truth", "stage", "attr.stage"])
def test_what_follows_prevalence_is_equal_at_equal_prevalence(column):
    plain, found = audit(mixed(), ["group"], **FAST).table, audit(mixed(), ["group"], **FAST, standardise=column).table
    assert value(plain, "accuracy", "gap")["estimate"] == pytest.approx(0.06)  # 0.82 and 0.88
    assert value(plain, "dpd", "gap")["estimate"] == pytest.approx(33 / 50 - 12 / 50)
    for metric in ("accuracy", "dpd", "brier", "pr_auc", "ece"):
        assert value(found, metric, "gap")["estimate"] == pytest.approx(0, abs=1e-12), metric
    assert value(found, "accuracy", "a")["estimate"] == pytest.approx(0.85)
    assert value(found, "sensitivity", "a")["estimate"] == pytest.approx(0.8)
    name = column.removeprefix("attr.")
    for level in ("a", "gap", "worst"):
        assert f"standardised to the shares of {name}" in value(found, "accuracy", level)["note"]
    assert "prevalence" not in value(found, "accuracy", "gap")["note"]
    overall = found[(found["group"] == "*") & (found["metric"] == "accuracy")].iloc[0]
    assert overall["estimate"] == pytest.approx(0.85) and "standardised" not in overall["note"]


def test_the_column_of_the_case_mix_is_no_attribute():
    found = audit(mixed(), None, **FAST, standardise="stage").table
    assert set(found["attribute"]) == {"*", "group"}


def test_a_group_without_a_stratum_has_no_value():
    table = mixed()
    table.loc[(table["attr.group"] == "b") & (table["attr.stage"] == "late"), "attr.stage"] = "early"
    row = value(audit(table, ["group"], **FAST, standardise="stage").table, "accuracy", "b")
    assert np.isnan(row["estimate"]) and "a stratum of stage has no row" in row["note"]


def test_rows_of_unknown_strata_weigh_nothing_and_are_counted():
    table = mixed()
    more = table.iloc[:5].assign(patient=range(900, 905), image=range(900, 905), **{"attr.stage": None})
    found = audit(pd.concat([table, more]), ["group"], **FAST, standardise="stage").table
    row = value(found, "accuracy", "a")
    assert row["estimate"] == pytest.approx(0.85) and "5 rows of unknown stage without weight" in row["note"]


def test_no_such_column():
    with pytest.raises(InputError):
        audit(mixed(), ["group"], **FAST, standardise="nothing")


def test_weights_by_hand():
    given = np.array([[1.0, 2], [1, 0], [2, 0], [5, 5]])
    weights = standardise_weights(given, np.array([0, 0, 1, -1]), np.array([0.75, 0.25]))
    assert weights[:, 0].tolist() == [1.5, 1.5, 1.0, 0.0] and np.isnan(weights[:, 1]).all()
