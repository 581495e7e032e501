"""Plans against counts worked out by hand, on a cohort of twelve training rows."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from equigen.cohort import AttributeSpec, Cohort, LabelSpec, parse_spec
from equigen.errors import InputError
from equigen.synthesis import allot, plan

SPEC = {
    "name": "hand",
    "table": "t.csv",
    "image": {"column": "f"},
    "patient": None,
    "labels": {"dx": {"kind": "binary", "column": "dx", "levels": ["healthy", "ill"]}},
    "attributes": {"sex": {"column": "sex", "levels": ["female", "male"]}, "eye": {"column": "eye"}},
    "prompt": "A {sex} patient, {eye} eye, {dx}",
}
# (dx, sex, eye): 12 training rows, 3 of them ill, one of unknown sex
TRAIN = (
    [("healthy", "female", "left")] * 4
    + [("healthy", "male", "left")] * 2
    + [("ill", "female", "right")] * 3
    + [("healthy", "female", "right")] * 2
    + [("healthy", None, "left")]
)


def cohort_of(rows, test=()) -> Cohort:
    rows, test = list(rows), list(test)
    everything = rows + test
    frame = pd.DataFrame(
        {
            "row": np.arange(len(everything)) + 2,
            "split": ["train"] * len(rows) + ["test"] * len(test),
            "domain": "id",
            "patient": [str(index) for index in range(len(everything))],
        }
    )
    for position, name in enumerate(("label.dx", "attr.sex", "attr.eye")):
        frame[name] = pd.Series([row[position] for row in everything], dtype=object)
    labels = {"dx": LabelSpec("binary", ["healthy", "ill"], [])}
    attributes = {"sex": AttributeSpec(["female", "male"]), "eye": AttributeSpec(["left", "right"])}
    return Cohort("hand", parse_spec(SPEC, "hand"), None, frame, labels, attributes)


@pytest.fixture
def hand() -> Cohort:
    return cohort_of(TRAIN, test=[("ill", "male", "right")] * 30)  # test rows must not count


def counted(rows, *columns) -> dict:
    return {
        tuple(None if pd.isna(value) else value for value in (key if isinstance(key, tuple) else (key,))): count
        for key, count in rows.groupby(list(columns), dropna=False).size().items()
    }


CELL = ("label.dx", "attr.sex", "attr.eye")


def test_match_has_the_shares_of_the_training_split_unknown_values_included(hand):
    assert counted(plan(hand, "match", 24), *CELL) == {
        ("healthy", "female", "left"): 8,
        ("healthy", "male", "left"): 4,
        ("ill", "female", "right"): 6,
        ("healthy", "female", "right"): 4,
        ("healthy", None, "left"): 2,
    }


def test_balanced_fills_every_cell_equally_and_keeps_the_prevalence(hand):
    rows = plan(hand, "balanced", 40)
    assert counted(rows, "attr.sex", "attr.eye") == {
        (sex, eye): 10 for sex in ("female", "male") for eye in ("left", "right")
    }
    assert counted(rows, "label.dx") == {("healthy",): 30, ("ill",): 10}  # 3 of 12
    per_cell = rows[rows["label.dx"] == "ill"].groupby(["attr.sex", "attr.eye"]).size()
    assert set(per_cell) <= {2, 3}  # 2.5 in each cell of 10


def test_balanced_keeps_a_rare_diagnosis_when_cells_are_small():
    rows = [("healthy", "female", "left")] * 19 + [("ill", "female", "left")]
    made = plan(cohort_of(rows), "balanced", 20)  # cells of five: a twentieth is 0.25 each
    assert counted(made, "label.dx") == {("healthy",): 19, ("ill",): 1}


def test_uniform_makes_every_diagnosis_equally_often_in_every_cell(hand):
    assert set(counted(plan(hand, "uniform", 32), *CELL).values()) == {4}


def test_uniform_leaves_unknown_diagnoses_out():
    made = plan(cohort_of([*TRAIN, (None, "male", "left")]), "uniform", 16)
    assert made["label.dx"].notna().all() and len(made) == 16
    with pytest.raises(InputError, match="diagnoses known"):
        plan(cohort_of([(None, "male", "left")]), "uniform", 4)


def test_complement_gives_what_each_cell_lacks_to_the_largest(hand):
    # known cells: female left 4, male left 2, female right 5, male right 0
    rows = plan(hand, "complement", 1000)
    assert counted(rows, "attr.sex", "attr.eye") == {
        ("female", "left"): 1,
        ("male", "left"): 3,
        ("male", "right"): 5,
    }
    assert len(plan(hand, "complement", 6)) == 6


def test_complement_of_equal_groups_is_empty():
    rows = [("healthy", sex, eye) for sex in ("female", "male") for eye in ("left", "right")]
    assert len(plan(cohort_of(rows), "complement", 10)) == 0


@pytest.mark.parametrize("policy", ["match", "balanced", "uniform"])
@pytest.mark.parametrize("size", [1, 7, 100])
def test_sizes_are_exact(hand, policy, size):
    assert len(plan(hand, policy, size)) == size


def test_columns_and_their_order(hand):
    for policy in ("match", "balanced"):
        assert list(plan(hand, policy, 5)) == [*CELL, "prompt", "seed", "guidance", "steps"]
    assert plan(hand, "match", 5).attrs and not plan(hand, "match", 5, guidance=2.0).attrs
    rows = plan(hand, "match", 5, guidance=3, steps=9)
    assert set(rows["guidance"]) == {3.0} and set(rows["steps"]) == {9}


def test_prompts_say_what_is_asked_for(hand):
    rows = plan(hand, "match", 24)
    for row in rows.to_dict("records"):
        sex = "unknown" if pd.isna(row["attr.sex"]) else row["attr.sex"]
        assert row["prompt"] == f"A {sex} patient, {row['attr.eye']} eye, {row['label.dx']}"


def test_seeds_are_of_seed_and_index_alone_and_never_repeat(hand):
    rows = plan(hand, "match", 500, seed=4)
    assert rows["seed"].nunique() == 500
    assert list(plan(hand, "balanced", 100, seed=4)["seed"]) == list(rows["seed"][:100])
    assert not set(plan(hand, "match", 500, seed=5)["seed"]) & set(rows["seed"])


def test_the_same_call_gives_the_same_plan_and_rows_are_shuffled(hand):
    first = plan(hand, "match", 60, seed=1)
    pd.testing.assert_frame_equal(first, plan(hand, "match", 60, seed=1))
    other = plan(hand, "match", 60, seed=2)
    assert counted(other, *CELL) == counted(first, *CELL)
    assert list(other["label.dx"]) != list(first["label.dx"])
    assert first["label.dx"][:30].nunique() == 2  # an interrupted set has every diagnosis


def test_a_cohort_without_labels_or_without_anything_can_be_planned(hand):
    bare = replace(hand, labels={}, frame=hand.frame.drop(columns="label.dx"))
    bare = replace(bare, spec=bare.spec.model_copy(update={"prompt": None}))
    assert counted(plan(bare, "balanced", 8), "attr.sex", "attr.eye") == {
        (sex, eye): 2 for sex in ("female", "male") for eye in ("left", "right")
    }
    nothing = replace(bare, attributes={}, frame=bare.frame.drop(columns=["attr.sex", "attr.eye"]))
    for policy in ("match", "balanced", "uniform"):
        made = plan(nothing, policy, 5)
        assert len(made) == 5 and made["seed"].nunique() == 5 and made["prompt"].isna().all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"policy": "fair"}, "policy 'fair' is unknown"),
        ({"size": 0}, "size 0"),
        ({"steps": 0}, "steps 0"),
        ({"guidance": -1.0}, "guidance -1.0"),
    ],
)
def test_errors_name_the_value(hand, change, words):
    with pytest.raises(InputError, match=words):
        plan(hand, **change)


def test_all_errors_come_at_once_and_an_empty_training_split_is_one():
    with pytest.raises(InputError) as caught:
        plan(cohort_of([], test=TRAIN), "fair", 0)
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("weights", "total", "expected"),
    [
        ([1, 1, 1], 7, [3, 2, 2]),  # ties go to the first
        ([0.5, 0.3, 0.2], 4, [2, 1, 1]),
        ([0.7, 0.2, 0.1], 1, [1, 0, 0]),
        ([0, 3, 1], 8, [0, 6, 2]),
        ([1, 2], 0, [0, 0]),
    ],
)
def test_allot_gives_whole_numbers_by_largest_remainder(weights, total, expected):
    assert allot(np.array(weights, dtype=float), total).tolist() == expected
