"""The page of a calibration, from tables alone: its words, its figures, what it says where nothing is known."""

import json

import pandas as pd
import pytest

from equigen.errors import InputError
from equigen.report.calibration.findings import calibration_sentences, is_established, levelling_sentences
from equigen.report.calibration.page import write_calibration_page

SETTINGS = {
    "attribute": "sex", "groups": {"<b>women": 1.5, "men": 3.0}, "common": 2.5, "default": 2.0, "objective": "gap",
    "gap_weight": 2.0, "bounds": [1.0, 4.0], "budget": 100, "spent": 96, "left_out": {"other": "too small: 2 patients"},
    "generator": "abc", "cohort": "c", "split": "val", "encoder": "e#1",
}  # fmt: skip
CHOICE = pd.DataFrame({
    "group": ["<b>women", "men", "other"], "default": 2.0, "common": 2.5, "calibrated": [1.5, 3.0, 2.5],
    "excess_default": [0.010, 0.030, None], "excess_common": [0.012, 0.025, None],
    "excess_calibrated": [0.015, 0.020, None], "change_default": [0.005, -0.010, None],
    "change_common": [0.003, -0.005, None], "note": ["", "", "too small: 2 patients"],
})  # fmt: skip

FIGURES = [("overall", "*"), ("group", "<b>women"), ("group", "men"), ("worst", "*"), ("gap", "*")]


def table() -> pd.DataFrame:
    rows = []
    for group, best in (("<b>women", 0.01), ("men", 0.02)):
        for number, w in enumerate((1.0, 2.0, 4.0)):
            point = {"group": group, "guidance": w, "excess": best + 0.001 * number}
            rows += [
                {"kind": "evaluated", "name": str(number), **point},
                {"kind": "curve", "name": f"{w:g}", **point, "low": best - 0.01, "high": best + 0.01},
            ]
            totals = {"mean": 0.02 + 0.001 * number, "gap": 0.01 - 0.002 * number, "worst": 0.03}
            rows += [{"kind": kind, "name": str(number), **point, **totals} for kind in ("shared", "front")]
        rows += [
            {
                "kind": "chosen",
                "name": name,
                "group": group,
                "guidance": 2.0,
                "excess": best,
                "mean": 0.02,
                "gap": 0.01,
                "worst": 0.03,
            }
            for name in ("default", "common", "group")
        ]
    return pd.DataFrame(rows)


def gain() -> pd.DataFrame:
    rows = []
    for name in ("default", "common", "group"):
        earlier = {"default": [""], "common": ["", "default"], "group": ["", "default", "common"]}[name]
        for reference in earlier:
            for figure, group in FIGURES:
                low, high = (-0.009, -0.001) if figure == "gap" else (-0.004, 0.002)
                paired = {
                    "difference": -0.005 if figure == "gap" else -0.001,
                    "difference_low": low,
                    "difference_high": high,
                    "p_value": 0.01 if figure == "gap" else 0.4,
                }
                if group == "<b>women":
                    paired = {"difference": 0.004, "difference_low": 0.001, "difference_high": 0.007, "p_value": 0.02}
                rows.append(
                    {
                        "set": name,
                        "figure": figure,
                        "group": group,
                        "n_real": 60,
                        "n_generated": 80,
                        "excess": 0.02,
                        "ci_low": 0.01,
                        "ci_high": 0.03,
                        "reference": reference,
                        **(paired if reference else {}),
                        "note": "",
                    }
                )
    return pd.DataFrame(rows)


def page(folder, **more) -> str:
    arguments = {"table": table(), "choice": CHOICE, "gain": gain(), "settings": SETTINGS, **more}
    return write_calibration_page(folder, **arguments).read_text()


def test_the_words_say_what_was_chosen_whom_it_harms_and_what_it_gained():
    sentences = calibration_sentences(CHOICE, gain(), SETTINGS)
    text = [sentence.text for sentence in sentences]
    assert "plus 2 times the gap" in text[0] and "<b>women 1.5 and men 3" in text[0] and "all would be 2.5" in text[0]
    assert text[1].startswith("other (too small: 2 patients)")
    harmed = [sentence for sentence in sentences if "levelling down" in sentence.text]
    assert [sentence.tone for sentence in harmed] == ["caution"] * 2
    assert harmed[0].parts == ("<b>women: 10.0 with 2, 15.0 with 1.5",) and "<b>women gets worse" in harmed[0].text
    gaps = [sentence for sentence in sentences if sentence.text.startswith("Gap between groups")]
    assert {sentence.tone for sentence in gaps} == {"finding"} and "from 25.0 to 20.0" in gaps[0].text
    worst = [sentence for sentence in sentences if sentence.text.startswith("Worst group")]
    assert {sentence.tone for sentence in worst} == {"chance"} and "chance can explain" in worst[0].text
    assert "On other patients too, these are worse off: <b>women against default guidance (+4.00)" in text[-1]


def test_a_choice_at_an_end_of_the_range_is_pointed_out():
    texts = [sentence.text for sentence in calibration_sentences(CHOICE, None, SETTINGS)]
    assert not any("a wider one may do better" in text for text in texts)
    groups = {"women": 1.0, "men": 4.0, "other": 2.0}
    texts = [sentence.text for sentence in calibration_sentences(CHOICE, None, {**SETTINGS, "groups": groups})]
    assert "women and men: at an end of the range searched (1 to 4); a wider one may do better." in texts


def test_nothing_is_said_of_harm_where_no_group_gets_worse():
    better = CHOICE.assign(change_default=[-0.001, 0.0, None], change_common=[0.000001, -0.1, None])
    assert levelling_sentences(better) == []
    row = {"difference_low": 0.1, "difference_high": 0.2, "p_value": 0.01}
    assert is_established(row)
    assert not is_established({**row, "p_value": 0.2}) and not is_established({**row, "difference_low": -0.1})
    assert not is_established({**row, "p_value": None})


def test_the_page_escapes_names_shows_both_figures_and_is_the_same_again(tmp_path):
    text = page(tmp_path / "a", phantom=True)
    assert "<b>women" not in text and "&lt;b&gt;women" in text
    assert text.count("<svg") == 3 and "PHANTOM" in text and "levelling down" in text
    assert "+5.00" in text and "change to default" in text  # the guidance table shows each group's change
    assert text == page(tmp_path / "b", phantom=True) != page(tmp_path / "c")
    data = json.loads((tmp_path / "a" / "report.json").read_text())
    assert len(data["calibration"]["rows"]) == len(table()) and data["phantom"] is True
    assert data["settings"]["groups"] == SETTINGS["groups"]


def test_without_a_gain_the_page_says_that_its_numbers_flatter(tmp_path):
    text = page(tmp_path, gain=None)
    assert "not measured on other patients" in text and "flatter" in text and text.count("<svg") == 2


def test_a_table_without_its_columns_is_refused(tmp_path):
    with pytest.raises(InputError, match="column 'gap'"):
        page(tmp_path / "out", table=table().drop(columns="gap"))
    assert not (tmp_path / "out").exists()
