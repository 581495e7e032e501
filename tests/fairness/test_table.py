"""Tables that others made: any names of columns, and errors that say which row."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from equigen.errors import InputError
from equigen.fairness import audit

FAST = {"replicates": 20, "permutations": 20, "min_patients": 5}
ROLES = {"truth": "y", "score": "p", "patient": "pid", "site": "hospital"}


@pytest.fixture
def foreign(predictions):
    table = predictions(200)
    return table[["truth", "probability", "patient", "site", "attr.sex", "attr.age"]].set_axis(
        ["y", "p", "pid", "hospital", "sex", "race"], axis=1
    )


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_foreign_file(foreign, tmp_path, suffix):
    path = tmp_path / f"predictions.{suffix}"
    if suffix == "parquet":
        foreign.to_parquet(path)
    else:
        foreign.to_csv(path, index=False, sep="," if suffix == "csv" else "\t")
    found = audit(path, ["sex", "race"], **ROLES, **FAST).table
    assert set(found["recipe"]) == {"model"} and set(found["task"]) == {"task"}
    assert set(found["domain"]) == {"all", "north", "south"} and set(found["attribute"]) == {
        "*",
        "sex",
        "race",
    }
    assert found["note"].str.contains("threshold 0.5: no validation rows").all()
    accuracy = found[(found["metric"] == "accuracy") & (found["group"] == "*") & (found["domain"] == "all")]
    assert accuracy["estimate"].item() == pytest.approx(((foreign["p"] >= 0.5) == foreign["y"]).mean())


def test_patients_stay_text(foreign, tmp_path):
    foreign["pid"] = [f"{k:03d}" if k % 2 else str(k) for k in range(len(foreign))]
    foreign.to_csv(tmp_path / "t.csv", index=False)
    found = audit(tmp_path / "t.csv", ["sex"], **ROLES, **FAST).table
    assert found["n_patients"].max() == foreign["pid"].nunique()


def test_missing_columns_are_named_with_the_nearest(foreign):
    with pytest.raises(InputError) as caught:
        audit(foreign, ["sexx"], **(ROLES | {"patient": "pidd", "site": "hopital"}), **FAST)
    assert {problem.column for problem in caught.value.problems} == {"sexx", "pidd", "hopital"}
    assert "did you mean 'pid'?" in str(caught.value) and "did you mean 'hospital'?" in str(caught.value)


def test_bad_cells_are_named_by_row(foreign):
    foreign["y"] = foreign["y"].astype(object)
    foreign.loc[3, "y"] = "maybe"
    foreign.loc[7, "p"] = np.nan
    foreign.loc[9, "p"] = 1.5
    foreign.loc[11, "pid"] = ""
    with pytest.raises(InputError) as caught:
        audit(foreign, ["sex"], **ROLES, **FAST)
    assert [(problem.row, problem.column) for problem in caught.value.problems] == [
        (5, "y"),
        (9, "p"),
        (11, "p"),
        (13, "pid"),
    ]
    assert "maybe" in str(caught.value) and "1.5" in str(caught.value)


def test_no_groups_is_a_question(foreign):
    with pytest.raises(InputError, match="Which groups"):
        audit(foreign, **ROLES, **FAST)
    assert set(audit(foreign, [], **ROLES, **FAST).table["group"]) == {"*"}


def test_a_measurement_is_no_group(foreign):
    foreign["race"] = np.arange(len(foreign)) * 1.5
    with pytest.raises(InputError, match="cut it into bins"):
        audit(foreign, ["race"], **ROLES, **FAST)


def test_structure(predictions, tmp_path):
    table = predictions(60)
    with pytest.raises(InputError, match="scored before"):
        audit(pd.concat([table, table.iloc[:1]]), **FAST)
    with pytest.raises(InputError, match="no row has split 'test'"):
        audit(table.assign(split="train"), **FAST)
    with pytest.raises(InputError, match="cannot be called 'ood'"):
        audit(table.assign(site="ood"), **FAST)
    moved = pd.concat([table, table.assign(recipe="other", patient="somebody")])
    with pytest.raises(InputError, match="another patient"):
        audit(moved, **FAST)
    with pytest.raises(InputError, match="no rows"):
        audit(table.iloc[:0], **FAST)
    with pytest.raises(InputError, match="not found"):
        audit(tmp_path / "absent.csv", **FAST)
    (tmp_path / "table.xlsx").write_bytes(b"")
    with pytest.raises(InputError, match="xlsx"):
        audit(tmp_path / "table.xlsx", **FAST)


def test_settings():
    table = pd.DataFrame()
    with pytest.raises(InputError, match="exclude each other"):
        audit(table, threshold=0.5, target_sensitivity=0.9)
    with pytest.raises(InputError, match=r"target_sensitivity: .*less than or equal to 1"):
        audit(table, target_sensitivity=1.5)


def test_seeds_must_score_the_same_rows(predictions):
    table = predictions(120)
    with pytest.raises(InputError, match="same rows"):
        audit(pd.concat([table, table.iloc[:-2].assign(seed=1)]), **FAST)
