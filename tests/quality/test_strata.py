"""A comparison within one diagnosis: what a difference in mix makes of a gap is away, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from quality_images import ColourEncoder

from equigen.comparison.evaluation import Sample, evaluate_comparison
from equigen.errors import InputError
from equigen.quality import ImageSet, evaluate
from equigen.quality.strata import filter_by_labels

FAST = {"encoder": ColourEncoder(), "repeats": 2, "replicates": 60, "min_patients": 20, "show": False}
SHARE = {"a": 0.2, "b": 0.8}  # of the diagnosis `hard`, by group


def images(n: int, seed: int, fault: float = 0.0, multilabel: bool = False) -> ImageSet:
    """Two groups alike but for how often they have `hard`; what is generated of `hard` is too bright, in both alike."""
    rng = np.random.default_rng(seed)
    sex = rng.choice(["a", "b"], n)
    hard = rng.random(n) < np.array([SHARE[group] for group in sex])
    level = 0.4 + 0.2 * hard[:, None, None, None] + 0.05 * rng.standard_normal((n, 1, 1, 3))
    level = level + fault * hard[:, None, None, None] + 0.02 * rng.standard_normal((n, 8, 8, 3))
    names = np.where(hard, "hard|rare" if multilabel else "hard", "easy")
    frame = pd.DataFrame({"patient": [f"{seed}-{number}" for number in range(n)], "attr.sex": sex, "label.dx": names})
    return ImageSet(frame, (np.clip(level, 0, 1) * 255).astype(np.uint8))


def pick(table: pd.DataFrame, group: str) -> pd.Series:
    return table[(table["metric"] == "kd") & (table["group"] == group)].iloc[0]


def measured(real, made, **rest) -> pd.DataFrame:
    return evaluate(real, {"mine": made}, ["sex"], metrics=["kd"], **{**FAST, **rest}).quality


def test_a_gap_that_is_one_between_diagnoses_is_away_within_each():
    real, made = images(500, 0), images(500, 1, fault=0.15)
    whole = pick(measured(real, made), "gap")
    assert whole["estimate"] > whole["null_high"] and whole["p_value"] < 0.03
    for level in ("hard", "easy"):
        table = measured(real, made, only={"dx": [level]})
        assert pick(table, "gap")["estimate"] < 0.4 * whole["estimate"] and pick(table, "gap")["p_value"] > 0.05
    hard, easy = (pick(measured(real, made, only={"dx": [level]}), "*")["excess"] for level in ("hard", "easy"))
    assert hard > 20 * abs(easy)


def test_it_is_the_evaluation_of_the_images_that_remain():
    real, made = images(300, 2), images(300, 3, fault=0.1)
    chosen = [side.take(np.flatnonzero(side.frame["label.dx"] == "hard")) for side in (real, made)]
    table = measured(real, made, only={"dx": ["hard"]})
    left = int((real.frame["label.dx"] == "hard").sum())
    assert f"only dx hard: {left} of 300 real images" in pick(table, "*")["note"]
    pd.testing.assert_frame_equal(table.drop(columns="note"), measured(*chosen).drop(columns="note"))
    samples = [[Sample("default", "none", 0, "match", 1, side)] for side in (made, chosen[1])]
    own = {**FAST, "permutations": 20}
    kept = evaluate_comparison(real, samples[0], only={"dx": ["hard"]}, **own)
    pd.testing.assert_frame_equal(kept.seeds, evaluate_comparison(chosen[0], samples[1], **own).seeds)
    assert f"only dx hard: {left} of 300 real images" in kept.summary.iloc[0]["note"]


def test_a_group_may_be_absent_within_a_diagnosis():
    real, made = images(200, 4), images(200, 5)
    alone = (real.frame["attr.sex"] == "a") | (real.frame["label.dx"] == "easy")
    table = measured(real.take(np.flatnonzero(alone)), made, only={"dx": ["hard"]})
    assert "b" in set(table["group"]) and np.isnan(pick(table, "b")["estimate"])


def test_of_several_findings_one_suffices_and_unknown_ones_do_not():
    side = images(60, 6, multilabel=True)
    side.frame.loc[:9, "label.dx"] = None
    kept = filter_by_labels({"real": side, "mine": side}, {"dx": ["rare"]})
    known = side.frame["label.dx"].iloc[10:]
    assert set(kept["real"].frame["label.dx"]) == {"hard|rare"} and len(kept["mine"]) == (known == "hard|rare").sum()
    assert filter_by_labels({"real": side}, {})["real"] is side
    every = filter_by_labels({"real": side.take(np.arange(10, 60))}, {"dx": ["hard", "easy"]})["real"]
    assert len(every) == 50 and every.remark == ""


def test_the_judge_is_not_asked_for_what_all_images_have():
    real, made, train = images(240, 7), images(240, 8), images(240, 9)
    kept = {"train": train, "only": {"dx": ["hard"]}, "intersections": False, **FAST}
    metrics = set(evaluate(real, {"mine": made}, ["sex"], **kept).quality["metric"])
    assert "kd" in metrics and "semantic_auc" not in metrics
    for other in ({"only": {}}, {"only": {"dx": ["hard", "easy"]}}, {"labels": ["dx"]}):
        table = evaluate(real, {"mine": made}, ["sex"], **{**kept, **other}).quality
        assert "semantic_auc" in set(table["metric"])


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ({"dxx": ["hard"]}, r"the images of real have no label 'dxx' .*did you mean 'dx'"),
        ({"dx": ["haard"]}, r"'haard' is no level of 'dx' .*did you mean 'hard'"),
        ({"dx": []}, r"no level of 'dx' is named .*easy, hard"),
    ],
)
def test_what_is_not_there_is_named(only, message):
    with pytest.raises(InputError, match=message):
        measured(images(60, 10), images(60, 11), only=only)


def test_a_set_without_the_diagnosis_is_refused_before_anything_is_encoded():
    made, encoder = images(60, 12), ColourEncoder()
    easy = made.take(np.flatnonzero(made.frame["label.dx"] == "easy"))
    with pytest.raises(InputError, match="mine: no image has dx hard"):
        measured(images(60, 13), easy, only={"dx": ["hard"]}, encoder=encoder)
    bare = ImageSet(made.frame.drop(columns="label.dx"), made.pixels)
    with pytest.raises(InputError, match="the images of mine have no label 'dx'"):
        measured(images(60, 13), bare, only={"dx": ["hard"]}, encoder=encoder)
    assert encoder.seen == 0
