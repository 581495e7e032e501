"""Generators compared: verdicts follow interval and direction, and one seed is no evidence."""

import json
import re

import pandas as pd
import pytest
from report_rows import NAN

from equigen.errors import InputError
from equigen.report import report
from equigen.report.frames import differences_frame
from equigen.report.study.differences import difference_sentences, difference_verdict


def row(difference, low, high, metric="kd", attribute="*", group="*", **rest):
    values = {"estimate": 0.2 + difference, "reference": 0.2, "difference": difference, "ci_low": low, "ci_high": high}
    names = {"run": "fair", "difference_to": "none", "encoder": "e", "metric": metric}
    return names | {"attribute": attribute, "group": group, **values, "p_value": NAN, "note": ""} | rest


@pytest.mark.parametrize(
    ("metric", "group", "low", "high", "p", "wanted"),
    [
        ("kd", "f", -0.3, -0.1, NAN, "better"),
        ("kd", "f", 0.1, 0.3, NAN, "worse"),
        ("kd", "f", -0.1, 0.3, NAN, "no difference established"),
        ("kd", "f", 0.0, 0.3, NAN, "no difference established"),
        ("semantic_auc", "f", 0.1, 0.3, 0.01, "better"),
        ("semantic_auc", "f", 0.1, 0.3, 0.2, "no difference established"),  # interval and p disagree: not claimed
        ("semantic_auc", "f", -0.3, -0.1, NAN, "worse"),
        ("semantic_auc", "gap", -0.3, -0.1, NAN, "better"),  # a smaller gap, whatever the metric
        ("semantic_auc", "gap", 0.1, 0.3, NAN, "worse"),
        ("semantic_auc", "es", 0.1, 0.3, NAN, "better"),
        ("nn_ratio", "f", 0.1, 0.3, NAN, "better"),
        ("near_copies", "f", 0.1, 0.3, NAN, "worse"),
        ("unheard_of", "f", 0.1, 0.3, NAN, "higher"),
        ("unheard_of", "f", -0.3, -0.1, NAN, "lower"),
        ("kd", "f", NAN, -0.1, NAN, "no interval: nothing is established"),
    ],
)
def test_verdict(metric, group, low, high, p, wanted):
    difference = -0.2 if low < 0 else 0.2
    assert difference_verdict(row(difference, low, high, metric, "sex", group, p_value=p)) == wanted


def test_missing_difference_is_not_evaluated():
    assert difference_verdict(row(NAN, NAN, NAN)) == "not evaluated"


ROWS = [
    row(-0.03, -0.05, -0.01), row(0.02, 0.01, 0.03, attribute="sex", group="f"),
    row(-0.01, -0.02, 0.01, attribute="sex", group="m"), row(-0.02, -0.03, -0.01, attribute="sex", group="gap"),
    row(0.01, -0.01, 0.03, metric="near_copies"), row(5.0, 1.0, 9.0, metric="fd"),
    row(-0.01, -0.04, 0.02, attribute="sex & age", group="f & old"),
]  # fmt: skip


def said(*rows):
    return [[s.tone, s.text, *s.parts] for s in difference_sentences(differences_frame(pd.DataFrame(rows)))]


def test_sentences_hold_the_numbers_and_their_verdicts():
    first, second = said(*ROWS)
    assert first[0] == "caution"
    assert "With fewer than 3 training seeds (none and fair)" in first[1]
    assert "not evidence about the way they were trained" in first[1]
    assert second == [
        "finding",
        "fair against none, on the same real images:",
        "KD x 1000: whole set -30.0 (-50.0 to -10.0): better; better for gap by sex -20.0 (-30.0 to -10.0); worse for "
        "sex f +20.0 (10.0 to 30.0); no difference established for 1 of 3 groups and gaps",
        "near copies: whole set +0.010 (-0.010 to 0.030): no difference established",
    ]


def test_three_seeds_of_each_are_not_called_one():
    rows = [row(-0.1, -0.2, -0.05, run=f"fair-s{k}", difference_to=f"none-s{k}") for k in range(3)]
    found = said(*rows)
    assert found[0][0] == "note"
    assert "at least 3 seeds" in found[0][1]
    assert len(found) == 4


def test_nothing_established_is_tagged_so():
    assert said(row(-0.01, -0.02, 0.01))[1][0] == "chance"


def test_section_has_forest_with_zero_table_and_verdicts(tmp_path):
    text = report(path=tmp_path, differences=pd.DataFrame(ROWS)).read_text()
    section = re.search(r'<section id="compared".*?</section>', text, re.DOTALL)[0]
    assert "0: no difference</text>" in re.sub("<!--.*?-->", "", section)
    assert "difference in KD x 1000, below 0 is better" in section
    cells = "<td>170</td><td>200</td><td>-30.0</td><td>-50.0 to -10.0</td><td>–</td>"
    assert f'<th scope="row">whole set</th>{cells}<td class="beyond">better</td>' in section
    assert "<td>-20.0 to 10.0</td><td>–</td><td>no difference established</td>" in section
    assert "not evidence about the way they were trained" in section
    assert "<details><summary>Other metrics: FD</summary>" in section
    folded = re.search(r"Generators compared on intersections</summary>.*?</details>", section, re.DOTALL)[0]
    assert "sex &amp; age f &amp; old" in folded
    assert len(re.findall("<svg", section)) == 3  # KD, near copies, FD


def test_json_holds_the_comparison_without_nan(tmp_path):
    report(path=tmp_path, differences=pd.DataFrame(ROWS))
    data = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert data["comparison"]["columns"] == list(ROWS[0])
    assert data["comparison"]["rows"][0][6:12] == [0.17, 0.2, -0.03, -0.05, -0.01, None]
    assert data["copies"] is None


def test_no_comparison_no_section(tmp_path):
    text = report(path=tmp_path).read_text()
    assert 'id="compared"' not in text


def test_column_that_is_missing_is_named(tmp_path):
    with pytest.raises(InputError) as caught:
        report(path=tmp_path / "x", differences=pd.DataFrame(ROWS).drop(columns=["difference", "metric"]))
    assert [problem.column for problem in caught.value.problems] == ["metric", "difference"]


def test_holes_and_hostile_text(tmp_path):
    bad = "<script>alert('x')</script>"
    rows = [row(NAN, NAN, NAN, note="no images"), row(0.1, NAN, NAN, attribute=bad, group=bad),
            row(0.1, 0.05, 0.2, **dict.fromkeys(["run", "difference_to", "encoder", "note"], bad), metric=bad,
                attribute=bad, group=bad)]  # fmt: skip
    frame = pd.DataFrame(rows).assign(p_value=None)
    text = report(path=tmp_path, differences=frame).read_text()
    assert "<script" not in text
    assert not re.findall(r"(?<![\w])(nan|NaN|inf|None|<NA>)(?![\w])", text.split("</style>")[1])
    assert '<td class="missing">not evaluated</td>' in text
