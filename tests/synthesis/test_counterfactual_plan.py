"""Counterfactual plans: pairs that differ in one attribute and in nothing else, down to the noise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_plan import CELL, TRAIN, cohort_of, counted

from equigen.cohort import load_images
from equigen.errors import InputError
from equigen.synthesis import generate, plan

OTHERS = ["label.dx", "attr.eye", "seed", "guidance", "steps", "changed"]


@pytest.fixture
def hand():
    return cohort_of(TRAIN, test=[("ill", "male", "right")] * 30)  # test rows must not count


def test_each_pair_has_every_level_once_and_all_else_the_same(hand):
    rows = plan(hand, "counterfactual", 48, seed=3, guidance=3, steps=9, attribute="sex")
    assert len(rows) == 48 and list(rows["pair"]) == list(np.repeat(np.arange(24), 2))
    assert list(rows["attr.sex"]) == ["female", "male"] * 24
    assert (rows.groupby("pair")[OTHERS].nunique(dropna=False) == 1).all(axis=None)
    assert rows["seed"].nunique() == 24
    assert set(rows["guidance"]) == {3.0} and set(rows["steps"]) == {9} and set(rows["changed"]) == {"sex"}
    assert list(rows) == [*CELL, "prompt", "seed", "guidance", "steps", "pair", "changed"]


def test_all_else_is_drawn_as_the_training_split_has_it(hand):
    rows = plan(hand, "counterfactual", 24, attribute="sex")
    assert counted(rows, "label.dx", "attr.eye", "attr.sex") == {
        (dx, eye, sex): count for sex in ("female", "male")
        for (dx, eye), count in {("healthy", "left"): 7, ("healthy", "right"): 2, ("ill", "right"): 3}.items()
    }  # fmt: skip


def test_prompts_say_the_changed_level(hand):
    for row in plan(hand, "counterfactual", 12, attribute="sex").to_dict("records"):
        assert row["prompt"] == f"A {row['attr.sex']} patient, {row['attr.eye']} eye, {row['label.dx']}"


def test_only_whole_pairs_are_made_and_pairs_are_shuffled(hand):
    assert len(plan(hand, "counterfactual", 13, attribute="sex")) == 12
    first, other = (plan(hand, "counterfactual", 120, seed=seed, attribute="sex") for seed in (1, 2))
    assert counted(first, *CELL) == counted(other, *CELL) and list(first["label.dx"]) != list(other["label.dx"])
    assert not set(first["seed"]) & set(other["seed"])
    pd.testing.assert_frame_equal(first, plan(hand, "counterfactual", 120, seed=1, attribute="sex"))


def test_seeds_are_those_of_a_plan_with_as_many_rows(hand):
    pairs = plan(hand, "counterfactual", 20, seed=4, attribute="eye")
    assert list(pairs["seed"][::2]) == list(plan(hand, "match", 10, seed=4)["seed"])


def test_three_levels_make_triples(phantom_cohort):
    rows = plan(phantom_cohort, "counterfactual", 32, attribute="race")
    assert len(rows) == 30 and list(rows["attr.race"][:3]) == ["asian", "black", "white"]
    assert list(rows["pair"]) == list(np.repeat(np.arange(10), 3))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "no attribute .*name the one to change; the cohort has sex, eye"),
        ({"attribute": "age"}, "attribute 'age' is unknown"),
        ({"attribute": "sex", "size": 1}, "size 1 .*has 2 images"),
        ({"attribute": "sex", "policy": "match"}, "attribute 'sex' with the policy match"),
    ],
)
def test_bad_attributes_are_refused(hand, change, words):
    with pytest.raises(InputError, match=words):
        plan(hand, **{"policy": "counterfactual", "size": 8, **change})


def test_an_attribute_of_one_level_has_no_other(hand):
    hand.attributes["sex"].levels.pop()
    with pytest.raises(InputError, match="attribute 'sex' has one level"):
        plan(hand, "counterfactual", 8, attribute="sex")


def test_a_generator_starts_both_images_of_a_pair_from_the_same_noise(phantom_cohort, pipeline, tmp_path):
    rows = plan(phantom_cohort, "counterfactual", 40, steps=2, attribute="sex")
    noise = pipeline.starting_noise(list(rows["seed"]))
    assert (noise[::2] == noise[1::2]).all() and not (noise[0] == noise[2]).any()
    made = generate(pipeline, rows, tmp_path / "pairs", show=False)
    images = load_images(list(made.frame["path"]), 32).astype(float)
    within = np.abs(images[::2] - images[1::2]).mean()
    between = np.abs(images[::2] - np.roll(images[1::2], 1, axis=0)).mean()
    assert 0 < within < between  # the attribute tells, but most of a picture is its noise
    same = generate(pipeline, rows.assign(**{"attr.sex": "male"}), tmp_path / "same", show=False)
    alike = load_images(list(same.frame["path"]), 32)
    assert np.abs(alike[::2].astype(int) - alike[1::2]).max() <= 1  # nothing changed but the place in the batch
