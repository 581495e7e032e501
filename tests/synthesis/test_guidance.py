"""Guidance saved with a generator, read back, and given to the rows of a plan."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from equigen.cli.generate import _with_guidance
from equigen.diffusion import open_any_generator
from equigen.errors import InputError
from equigen.synthesis import Guidance, apply_guidance, generate, load_calibration, plan, set_guidance
from equigen.synthesis.guidance import DEFAULT_MARK

CHOSEN = Guidance(
    attribute="sex & age", groups={"F & old": 1.25, "M & old": 3.0}, common=2.5, default=2.0, objective="worst",
    gap_weight=1.0, bounds=(1.0, 4.0), budget=400, spent=384, images=16, steps=20, seed=0, encoder="e#1", cohort="c",
    cohort_hash="h", split="val", generator="abc", left_out={"F & young": "too small: 3 patients"}, equigen="0.1.0",
)  # fmt: skip
ROWS = pd.DataFrame(
    {"attr.sex": ["F", "M", "F", None, "M"], "attr.age": ["old", "old", "young", "old", None], "seed": range(5),
     "guidance": 2.0, "steps": 20}
)  # fmt: skip
ROWS.attrs = {DEFAULT_MARK: True}  # as `plan` marks a plan for which no guidance was named


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


def test_a_plan_of_default_guidance_takes_the_calibration_that_is_there_unless_a_guidance_is_named(tmp_path):
    assert set_guidance(ROWS, None, tmp_path, "abc") == (ROWS, None)
    CHOSEN.save(tmp_path)
    rows, calibration = set_guidance(ROWS, None, tmp_path, "abc")
    assert rows["guidance"].tolist() == [1.25, 3.0, 2.5, 2.5, 2.5] and calibration == CHOSEN
    assert set_guidance(ROWS, "calibrated", tmp_path, "abc")[0]["guidance"].tolist()[0] == 1.25
    assert set_guidance(ROWS, "common", tmp_path, "abc")[0]["guidance"].tolist() == [2.5] * 5
    rows, calibration = set_guidance(ROWS, 3, tmp_path, "xyz")  # a number: the file is not read
    assert rows["guidance"].tolist() == [3.0] * 5 and calibration is None
    own = ROWS.assign(guidance=[2.0, 2.0, 2.0, 2.0, 3.0])  # the plan names its guidance
    assert set_guidance(own, None, tmp_path, "xyz") == (own, None)
    two = pd.DataFrame(ROWS.to_dict("list"))  # 2 was asked for, as in a plan's file
    assert set_guidance(two, None, tmp_path, "xyz") == (two, None)
    assert set_guidance(own, "common", tmp_path, "abc")[0]["guidance"].tolist() == [2.5] * 5


def test_guidance_that_cannot_be_used_is_refused(tmp_path):
    CHOSEN.save(tmp_path)
    with pytest.raises(InputError, match="another generator"):
        set_guidance(ROWS, None, tmp_path, "xyz")
    with pytest.raises(InputError, match="not calibrated"):
        set_guidance(ROWS, "calibrated", tmp_path / "none", "abc")
    with pytest.raises(InputError, match=r"not calibrated(.|\n)*give the generator's folder"):
        set_guidance(ROWS, "common", None, "abc")
    for level in ("much", "3", -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="a number of 0 or more, calibrated, or common"):
            set_guidance(ROWS, level, tmp_path, "abc")


def test_the_command_prints_the_calibration_and_reads_numbers(tmp_path, capsys):
    assert _with_guidance(ROWS, tmp_path, "abc", None) is ROWS
    assert "Guidance by" not in capsys.readouterr().err
    CHOSEN.save(tmp_path)
    assert _with_guidance(ROWS, tmp_path, "abc", None)["guidance"].tolist() == [1.25, 3.0, 2.5, 2.5, 2.5]
    note = capsys.readouterr().err
    assert "calibration.json" in note and "F & old 1.25, M & old 3" in note
    assert _with_guidance(ROWS, tmp_path, "abc", "common")["guidance"].tolist() == [2.5] * 5
    assert "2.5 for all" in capsys.readouterr().err
    assert _with_guidance(ROWS, tmp_path, "xyz", "3")["guidance"].tolist() == [3.0] * 5
    assert "Guidance by" not in capsys.readouterr().err
    for word in ("much", "-1", "nan", "inf"):
        with pytest.raises(InputError, match="a number of 0 or more, calibrated, or common"):
            _with_guidance(ROWS, tmp_path, "abc", word)


def test_generate_in_python_takes_the_calibration_of_a_run_or_a_folder(generator, phantom_cohort, tmp_path):
    folder = tmp_path / "g"
    shutil.copytree(generator.folder, folder)
    rows = plan(phantom_cohort, size=4, steps=1)
    pipeline = open_any_generator(folder)
    levels = {"female": 1.5, "male": 3.0}
    replace(CHOSEN, attribute="sex", groups=levels, common=2.5, generator=pipeline.hash).save(folder)
    expected = [levels.get(level, 2.5) for level in rows["attr.sex"]]
    for name, source in {"run": replace(generator, folder=folder), "folder": folder, "text": str(folder)}.items():
        frame = generate(source, rows, tmp_path / name, show=False).frame
        assert frame["guidance"].tolist() == expected != [2.0] * 4
    assert set(generate(folder, rows, tmp_path / "off", guidance=2, show=False).frame["guidance"]) == {2.0}
    assert set(generate(folder, rows, tmp_path / "all", guidance="common", show=False).frame["guidance"]) == {2.5}
    assert set(generate(pipeline, rows, tmp_path / "open", show=False).frame["guidance"]) == {2.0}
