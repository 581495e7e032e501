"""Guidance saved with a generator, read back, and given to the rows of a plan."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from equigen.cli.calibrate import set_guidance
from equigen.errors import InputError
from equigen.synthesis import Guidance, apply_guidance, load_calibration

CHOSEN = Guidance(
    attribute="sex & age", groups={"F & old": 1.25, "M & old": 3.0}, common=2.5, default=2.0, objective="worst",
    gap_weight=1.0, bounds=(1.0, 4.0), budget=400, spent=384, images=16, steps=20, seed=0, encoder="e#1", cohort="c",
    cohort_hash="h", split="val", generator="abc", left_out={"F & young": "too small: 3 patients"}, equigen="0.1.0",
)  # fmt: skip
ROWS = pd.DataFrame(
    {"attr.sex": ["F", "M", "F", None, "M"], "attr.age": ["old", "old", "young", "old", None], "seed": range(5),
     "guidance": 2.0, "steps": 20}
)  # fmt: skip


def test_each_row_gets_its_groups_guidance_and_the_rest_the_common_one():
    made = apply_guidance(ROWS, CHOSEN)
    assert made["guidance"].tolist() == [1.25, 3.0, 2.5, 2.5, 2.5]
    assert ROWS["guidance"].tolist() == [2.0] * 5  # a copy
    pd.testing.assert_frame_equal(made.drop(columns="guidance"), ROWS.drop(columns="guidance"))
    assert apply_guidance(ROWS, CHOSEN, "common")["guidance"].tolist() == [2.5] * 5
    assert apply_guidance(ROWS, CHOSEN, "default")["guidance"].tolist() == [2.0] * 5
    assert apply_guidance(ROWS, SimpleNamespace(guidance=CHOSEN))["guidance"].tolist() == made["guidance"].tolist()
    plain = replace(CHOSEN, attribute="sex", groups={"F": 1.0, "M": 4.0})
    assert apply_guidance(ROWS, plain)["guidance"].tolist() == [1.0, 4.0, 1.0, 2.5, 4.0]


def test_what_cannot_be_applied_is_refused():
    with pytest.raises(InputError, match=r"column 'attr\.age': is missing"):
        apply_guidance(ROWS.drop(columns="attr.age"), CHOSEN)
    with pytest.raises(InputError, match="'best'"):
        apply_guidance(ROWS, CHOSEN, "best")


def test_guidance_per_group_is_refused_where_it_would_part_counterfactual_pairs():
    pairs = ROWS.iloc[:2].assign(pair=0, changed="sex")
    with pytest.raises(InputError, match=r"differ in sex alone, and guidance by sex & age would differ with it"):
        apply_guidance(pairs, CHOSEN)
    assert apply_guidance(pairs, CHOSEN, "common")["guidance"].tolist() == [2.5, 2.5]
    # by another attribute both images of a pair have the same
    by_age = replace(CHOSEN, attribute="age", groups={"old": 1.5})
    assert apply_guidance(pairs, by_age)["guidance"].tolist() == [1.5, 1.5]


def test_saved_and_read_it_is_the_same_and_of_one_generator_alone(tmp_path):
    assert CHOSEN.save(tmp_path) == tmp_path / "calibration.json"
    assert load_calibration(tmp_path) == load_calibration(tmp_path, "abc") == CHOSEN
    with pytest.raises(InputError, match=r"made for generator abc, this one is xyz(.|\n)*equigen calibrate"):
        load_calibration(tmp_path, "xyz")
    with pytest.raises(InputError, match="not calibrated"):
        load_calibration(tmp_path / "nowhere")


def test_a_file_that_does_not_say_against_what_is_one_against_images(tmp_path):
    path = replace(CHOSEN, against="reconstructions").save(tmp_path)
    assert load_calibration(tmp_path).against == "reconstructions"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "against"}))
    assert load_calibration(tmp_path) == CHOSEN


@pytest.mark.parametrize("change", [{"groups": None}, {"common": "two"}, {"bounds": [1]}, "half", "lost"])
def test_a_damaged_file_is_refused_with_its_name(tmp_path, change):
    path = CHOSEN.save(tmp_path)
    values = json.loads(path.read_text())
    if change == "lost":
        del values["generator"]
    path.write_text(
        path.read_text()[:50] if change == "half" else json.dumps(values if change == "lost" else {**values, **change})
    )
    with pytest.raises(InputError, match=r"calibration is damaged(.|\n)*calibration\.json"):
        load_calibration(tmp_path)


def test_generate_takes_the_calibration_that_is_there_unless_a_guidance_is_named(tmp_path, capsys):
    assert set_guidance(ROWS, tmp_path, "abc", None) is ROWS
    assert "Guidance by" not in capsys.readouterr().err
    CHOSEN.save(tmp_path)
    assert set_guidance(ROWS, tmp_path, "abc", None)["guidance"].tolist() == [1.25, 3.0, 2.5, 2.5, 2.5]
    told = capsys.readouterr().err
    assert "calibration.json" in told and "F & old 1.25, M & old 3" in told
    assert set_guidance(ROWS, tmp_path, "abc", "calibrated")["guidance"].tolist()[0] == 1.25
    assert set_guidance(ROWS, tmp_path, "abc", "common")["guidance"].tolist() == [2.5] * 5
    assert set_guidance(ROWS, tmp_path, "xyz", "3")["guidance"].tolist() == [3.0] * 5  # named: the file is not asked
    with pytest.raises(InputError, match="another generator"):
        set_guidance(ROWS, tmp_path, "xyz", None)
    with pytest.raises(InputError, match="not calibrated"):
        set_guidance(ROWS, tmp_path / "none", "abc", "calibrated")
    for word in ("much", "-1", "nan", "inf"):
        with pytest.raises(InputError, match="a number of 0 or more, calibrated, or common"):
            set_guidance(ROWS, tmp_path, "abc", word)
