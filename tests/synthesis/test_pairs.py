"""Counterfactual pairs of a set: found, checked and measured, on generators that are known to obey or to entangle."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from designed_images import BrightnessEncoder
from phantom_world import PhantomPainter, oracle_reader
from screen_world import Painter, asked, reader, real_cohort, write_set

from equigen.errors import InputError
from equigen.synthesis import compare_pairs, plan, read_pairs, screen

FAST = {"encoder": BrightnessEncoder(), "replicates": 60, "show": False}


def pairs_plan(n: int) -> pd.DataFrame:
    """Pairs by sex of the world of three colours."""
    rows = asked(n // 2)
    rows = rows.loc[np.repeat(np.arange(n // 2), 2)].reset_index(drop=True)
    return rows.assign(**{"attr.sex": ["female", "male"] * (n // 2), "pair": np.repeat(np.arange(n // 2), 2),
                          "changed": "sex", "prompt": ["a woman's eye", "a man's eye"] * (n // 2)})  # fmt: skip


def row(table, metric, group="*", field=""):
    (found,) = table[(table.metric == metric) & (table.group == group) & (table.field == field)].to_dict("records")
    return found


# Which images belong together


def test_pairs_are_read_from_the_sets_table_level_by_level(tmp_path):
    rows = pairs_plan(20).iloc[np.random.default_rng(0).permutation(20)].reset_index(drop=True)
    pairs = read_pairs(write_set(tmp_path / "set", rows, Painter()))
    assert (pairs.attribute, len(pairs), pairs.warnings) == ("sex", 10, [])
    assert list(pairs.frame["pair"]) == list(np.repeat(np.arange(10), 2))
    assert list(pairs.frame["attr.sex"]) == pairs.levels * 10 and set(pairs.levels) == {"female", "male"}
    images = pairs.images([3, 0], 8)
    assert images.shape == (2, 2, 8, 8, 3)
    assert (images[:, pairs.levels.index("male"), 0, 0, 1] > 128).all()


def test_pairs_are_read_from_the_plan_where_the_table_does_not_tell_them(tmp_path):
    rows = pairs_plan(20)
    place = write_set(tmp_path / "set", rows.drop(columns=["pair", "changed"]), Painter())
    with pytest.raises(InputError, match=r"has no columns pair and changed .*give the plan"):
        read_pairs(place)
    with pytest.raises(InputError, match="was made from another plan"):
        read_pairs(place, rows.assign(seed=rows["seed"] + 1))
    pd.testing.assert_frame_equal(
        read_pairs(place, rows).frame.drop(columns=["path", "pair", "changed"]),
        read_pairs(write_set(tmp_path / "other", rows, Painter())).frame.drop(columns=["path", "pair", "changed"]),
    )
    screen(place, Painter(lambda row, luck: True), reader(), tries=1, replicates=20, show=False)
    assert len(read_pairs(place, rows)) == 10  # by the seeds that it began with


def test_pairs_that_are_not_whole_are_left_out_and_counted(tmp_path):
    rows = pairs_plan(20).drop(index=[3])
    place = write_set(tmp_path / "set", rows.reset_index(drop=True), Painter())
    table = pd.read_parquet(place / "synthetic.parquet")
    table.loc[0, "accepted"] = False
    table.to_parquet(place / "synthetic.parquet")
    pairs = read_pairs(place)
    assert set(pairs.frame["pair"]) == set(range(2, 10))
    assert pairs.warnings == ["2 pairs are left out: a level is missing or was refused by screening."]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"guidance": [1.0, 2.0] * 10}, "guidance differs within 10 pairs"),
        ({"seed": [*range(20)]}, "seed differs within 10 pairs"),
        ({"label.dx": ["ill", "healthy"] + ["ill"] * 18}, r"label\.dx differs within 1 pairs"),
        ({"prompt": "an eye"}, "The prompt is the same for all levels of 10 pairs"),
    ],
)
def test_what_else_differs_within_pairs_is_said(tmp_path, change, words):
    pairs = read_pairs(write_set(tmp_path / "set", pairs_plan(20).assign(**change), Painter()))
    (said,) = pairs.warnings
    assert said.startswith(words.replace("\\", ""))


def test_sets_without_pairs_are_refused(tmp_path):
    with pytest.raises(InputError, match="There is no synthetic set"):
        read_pairs(tmp_path)
    several = pairs_plan(20).assign(changed=["sex"] * 10 + ["age"] * 10)
    with pytest.raises(InputError, match="changed are: age, sex"):
        read_pairs(write_set(tmp_path / "several", several, Painter()))
    single = pairs_plan(20).iloc[::2].reset_index(drop=True)
    with pytest.raises(InputError, match="no pair has every level once"):
        read_pairs(write_set(tmp_path / "single", single, Painter()))
    with pytest.raises(InputError, match="limit 1"):
        compare_pairs(write_set(tmp_path / "set", pairs_plan(20), Painter()), limit=1, **FAST)


# Known truth, in three colours


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    return real_cohort(tmp_path_factory.mktemp("real") / "images")


def test_a_generator_that_obeys_changes_the_attribute_alone(tmp_path, held_out):
    place = write_set(tmp_path / "set", pairs_plan(120), Painter())
    found = compare_pairs(place, classifier=reader(), held_out=held_out, **FAST)
    pixels = row(found.metrics, "pixel_difference")
    assert pixels["estimate"] == 50 and pixels["n"] == 60  # green alone, 150 of three channels
    assert pixels["reference"] > 50 and 0 < pixels["ratio"] < 1
    for group in ("female", "male"):
        shows = row(found.metrics, "read_as_asked", group, "attr.sex")
        assert shows["estimate"] == 1 and shows["reference"] == 1 and shows["reference_to"] == "real images"
        assert shows["reference_low"] < 0.97  # of 100 patients
    flip = row(found.metrics, "flip", "*", "label.dx")
    assert flip["estimate"] == 0 and flip["ci_high"] < 0.1
    assert not len(found.metrics.query("metric == 'flip' and field == 'attr.sex'"))  # it is to change


def test_a_generator_that_entangles_the_label_is_found_out(tmp_path):
    """Men are painted ill whatever is asked for."""
    painter = Painter(lambda row, luck: row["attr.sex"] == "male" and row["label.dx"] == "healthy")
    found = compare_pairs(write_set(tmp_path / "set", pairs_plan(160), painter), classifier=reader(), **FAST)
    flip = row(found.metrics, "flip", "*", "label.dx")
    assert flip["estimate"] == 0.5 and flip["reference"] == 0 and flip["ci_low"] > 0.35
    wrong = [row(found.metrics, "read_as_asked", group, "label.dx")["estimate"] for group in ("female", "male")]
    assert wrong == [1, 0.5]
    assert row(found.metrics, "read_as_asked", "male", "label.dx")["reference_to"] == ""


def test_a_generator_that_ignores_the_attribute_is_found_out(tmp_path):
    painter = Painter()
    blind = painter.one
    painter.one = lambda row, seed: blind({**row, "attr.sex": "female"}, seed)
    found = compare_pairs(write_set(tmp_path / "set", pairs_plan(80), painter), classifier=reader(), **FAST)
    assert row(found.metrics, "pixel_difference")["ratio"] == row(found.metrics, "feature_distance")["ratio"] == 0
    assert row(found.metrics, "read_as_asked", "male", "attr.sex")["estimate"] == 0


def test_both_tables_are_written_and_each_image_has_its_row(tmp_path):
    place = write_set(tmp_path / "set", pairs_plan(80), Painter())
    found = compare_pairs(place, classifier=reader(), **FAST)
    pd.testing.assert_frame_equal(pd.read_parquet(place / "pair_measures.parquet"), found.metrics)
    pd.testing.assert_frame_equal(pd.read_parquet(place / "pairs.parquet"), found.image_table)
    assert len(found.image_table) == 80 and list(found.image_table["level"]) == ["female", "male"] * 40
    assert list(found.image_table["read.attr.sex"]) == list(found.image_table["level"])
    assert set(found.image_table["pixel_difference"]) == {50}
    assert found.images(3).shape == (3, 2, 8, 8, 3) and found.images(500).shape == (40, 2, 8, 8, 3)
    again = compare_pairs(place, classifier=reader(), **FAST)
    pd.testing.assert_frame_equal(again.metrics, found.metrics)


def test_a_limit_takes_the_first_pairs_and_says_so(tmp_path):
    found = compare_pairs(write_set(tmp_path / "set", pairs_plan(80), Painter()), limit=30, **FAST)
    assert row(found.metrics, "pixel_difference")["n"] == 30 and list(found.image_table["pair"])[-1] == 29
    assert found.warnings == ["The first 30 of 40 pairs are measured."]
    assert not set(found.metrics["metric"]) - {"pixel_difference", "feature_distance"}  # no classifier, no readings


def test_real_images_that_the_classifier_knows_are_refused(tmp_path, held_out):
    place = write_set(tmp_path / "set", pairs_plan(80), Painter())
    with pytest.raises(InputError, match="learned from 1 of their patients"):
        compare_pairs(place, classifier=reader(patients=frozenset({"p0-0"})), held_out=held_out, **FAST)


# Known truth, on phantoms


def phantom_pairs(cohort, folder, painter):
    rows = plan(cohort, "counterfactual", 99, seed=2, attribute="race")
    return compare_pairs(write_set(folder, rows, painter), classifier=oracle_reader(), **FAST)


def test_the_oracle_sees_the_race_change_and_the_glaucoma_stay(phantom_cohort, tmp_path):
    found = phantom_pairs(phantom_cohort, tmp_path / "set", PhantomPainter())
    assert found.levels == ["asian", "black", "white"] and len(found.pairs) == 33
    for level in found.levels:
        assert row(found.metrics, "read_as_asked", level, "attr.race")["estimate"] >= 0.85
    flip = row(found.metrics, "flip", "*", "label.glaucoma")
    assert flip["estimate"] < 0.05
    assert set(found.metrics.query("metric == 'pixel_difference'")["group"]) == {
        "*", "asian to black", "asian to white", "black to white"}  # fmt: skip
    far, near = (row(found.metrics, "pixel_difference", group)["estimate"]
                 for group in ("black to white", "asian to white"))  # fmt: skip
    assert far > near > 0
    assert row(found.metrics, "pixel_difference")["ratio_high"] < 1


def test_the_oracle_sees_a_glaucoma_that_comes_with_the_race(phantom_cohort, tmp_path):
    painter = PhantomPainter(glaucoma=lambda row, luck: "glaucoma" if row["attr.race"] == "black" else "healthy")
    found = phantom_pairs(phantom_cohort, tmp_path / "set", painter)
    flips = {level: row(found.metrics, "flip", level, "label.glaucoma") for level in found.levels}
    assert flips["black"]["estimate"] > 0.9 and flips["white"]["estimate"] == pytest.approx(0.5, abs=0.05)
    assert row(found.metrics, "flip", "*", "label.glaucoma")["reference"] < 0.1
