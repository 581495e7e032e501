"""Memorisation: what is said follows intervals and floors, and the pairs can be looked at."""

import base64
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from report_rows import NAN, quality_row

from equigen.errors import InputError
from equigen.report import ClosePairs, pair_caption, report
from equigen.report.frames import quality_frame
from equigen.report.study.memorisation import memorisation_sentences

HOLM = "p adjusted by Holm over 3 attributes, 0.001 before"


def near(run, attribute, group, estimate, floor=0.01, **rest):
    return quality_row(run, attribute, group, estimate, 0.01, "near_copies", **({"floor": floor} | rest))


def ratio(attribute, group, estimate, floor=1.0):
    return quality_row("none", attribute, group, estimate, 0.02, "nn_ratio", floor=floor, excess=NAN)


def gap(estimate, p, high=0.02):
    band = {"null_low": 0.0, "null_high": high, "p_value": p, "note": HOLM}
    return near("none", "sex", "gap", estimate, NAN, excess=NAN, **band)


def sentences(*rows):
    return memorisation_sentences(quality_frame(pd.DataFrame(rows)))


def said(*rows):
    return [[s.tone, s.text, *s.parts] for s in sentences(*rows)[1:]]


def test_group_whose_interval_lies_above_the_floor_is_named():
    found = said(near("none", "*", "*", 0.015), near("none", "sex", "f", 0.05), near("none", "sex", "m", 0.012),
                 gap(0.038, 0.003))  # fmt: skip
    assert found == [[
        "caution",
        "none: near copies 0.015 (0.005 to 0.025), real held-out images 0.010.",
        "closer to the training images than real held-out ones, by near copies: sex f 0.050 (0.040 to 0.060) against "
        "0.010",
        "near copies by sex: worst f, gap 0.038, chance alone gives up to 0.020, p = 0.003: larger than chance "
        "explains (p corrected over attributes, Holm)",
        "by these metrics privacy is worse than another group's for sex f (near copies)",
    ]]  # fmt: skip


def test_nothing_beyond_chance_claims_nothing():
    found = said(near("none", "*", "*", 0.012), near("none", "sex", "f", 0.015), near("none", "sex", "m", 0.012),
                 gap(0.003, 0.4))  # fmt: skip
    assert found == [[
        "chance",
        "none: near copies 0.012 (0.002 to 0.022), real held-out images 0.010.",
        "no group is shown to be closer to the training images than real held-out images are",
        "gaps not distinguishable from chance: near copies by sex 0.003 (p = 0.40) (p corrected over attributes, Holm)",
        "no group's privacy is shown to be worse than another's; that does not show them to be equal",
    ]]  # fmt: skip


def test_groups_that_differ_but_are_no_closer_than_real_images_are_not_called_worse_off():
    found = said(near("none", "*", "*", 0.005, 0.03), near("none", "sex", "f", 0.03, 0.04),
                 near("none", "sex", "m", 0.0, 0.04), gap(0.03, 0.003))[0]  # fmt: skip
    assert found[0] == "chance" and not any("privacy is worse" in part for part in found)
    assert "groups differ, but even sex f (near copies) is not closer than real held-out images are" in found
    assert found[-1] == "no group's privacy is shown to be worse than another's; that does not show them to be equal"


def test_ratio_is_worse_below_what_held_out_images_give():
    low = said(ratio("*", "*", 0.9), ratio("sex", "f", 0.8), ratio("sex", "m", 0.95))[0]
    assert low[1].endswith("real held-out images 1.000: closer to the training images than new real ones.")
    most = "all 2 groups that were judged, most of all sex f 0.800 (0.780 to 0.820) against 1.000"
    assert low[2].endswith(f"by distance ratio: {most}")
    high = said(ratio("*", "*", 1.2), ratio("sex", "f", 1.2))[0]
    assert high[0] == "chance"
    assert "no group is shown to be closer" in high[2]


def test_without_floor_nothing_is_compared():
    found = said(near("none", "*", "*", 0.2, NAN), near("none", "sex", "f", 0.3, NAN))[0]
    assert found[1] == "none: near copies 0.200 (0.190 to 0.210): not compared."
    assert "no group was compared with real held-out images" in found
    assert "whether one group's privacy is worse than another's was not evaluated" in found


def test_closeness_is_called_a_hint_and_reconstructions_are_left_out():
    found = sentences(near("reconstruction", "*", "*", 0.9), near("none", "*", "*", 0.01))
    assert found[0].tone == "note"
    assert "a hint of copying, not a proof" in found[0].text
    assert [s.text.split(":")[0] for s in found[1:]] == ["none"]


def section(text):
    return re.search(r'<section id="memorisation".*?</section>', text, re.DOTALL)[0]


def test_section_draws_groups_with_floors_and_folds_the_numbers(tmp_path):
    rows = [near("none", "*", "*", 0.05), near("none", "sex", "f", 0.06)]
    rows += [ratio("*", "*", 0.9), ratio("sex", "f", 0.875)]
    rows.append(quality_row("none", "*", "*", 320, 5, "mifid", floor=200.0))
    text = section(report(pd.DataFrame(rows), path=tmp_path).read_text())
    assert len(re.findall("<svg", text)) == 2
    assert "real held-out images</text>" in re.sub("<!--.*?-->", "", text)
    assert "Closeness is a hint" in text
    assert "All numbers on memorisation: near copies, distance ratio and MiFID" in text
    assert "<td>0.875<small>0.855 to 0.895; real held-out images 1.000</small></td>" in text
    assert "<td>320<small>315 to 325; between real images 200</small></td>" in text


def test_what_was_not_evaluated_is_said(tmp_path):
    text = report(pd.DataFrame([quality_row("none", "*", "*", 0.2)]), path=tmp_path / "a").read_text()
    assert "Memorisation was not evaluated: nothing here says whether training images are repeated." in text
    assert 'id="memorisation"' not in report(path=tmp_path / "b").read_text()


def pairs(**rest):
    generated = np.zeros((2, 8, 8, 3), np.uint8)
    training = np.full((2, 8, 8, 3), 200, np.uint8)
    given = {"run": "none", "generated": generated, "training": training, "captions": ["first", "second"]}
    return ClosePairs(**(given | rest))


TABLE = pd.DataFrame([
    {"run": "none", "rank": 1, "generated": "a.png", "training": "row 17", "distance": 1.234, "ratio": 0.61,
     "near_copy": True, "attr.sex": "female"},
    {"run": "none", "rank": 2, "generated": "b.png", "training": "row 3", "distance": 2.5, "ratio": None,
     "near_copy": False, "attr.sex": None},
])  # fmt: skip


def test_pairs_stand_side_by_side_with_captions(tmp_path):
    text = section(report(path=tmp_path, copies=[pairs(threshold=1.5)]).read_text())
    images = re.findall(r'<img src="data:image/png;base64,([^"]+)" width="(\d+)" alt="([^"]+)">', text)
    assert [alt for _, _, alt in images] == [
        f"none, pair {k}: generated image, left, and its closest training image, right; {word}"
        for k, word in ((1, "first"), (2, "second"))
    ]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(images[0][0]))))
    assert pixels.shape == (96, 2 * 96 + 2, 3)  # 8 pixels enlarged twelvefold, to be looked at
    assert pixels[:, :96].max() == 0
    assert (pixels[:, 98:] == 200).all()
    assert "<figcaption>2. second</figcaption>" in text
    assert "A distance of 1.5 or less counts as a near copy." in text


def test_table_of_pairs_is_on_the_page_and_in_the_json(tmp_path):
    text = section(report(path=tmp_path, copies=[pairs()], copies_table=TABLE).read_text())
    first = '<td>a.png</td><td>row 17</td><td>1.23</td><td>0.610</td><td class="beyond">yes</td>'
    first += "<td>–</td><td>female</td>"  # an older table has no view
    assert f'<th scope="row">1</th>{first}' in text
    assert '<th scope="row">2</th><td>b.png</td><td>row 3</td><td>2.50</td><td>–</td><td>no</td><td>–</td>' in text
    data = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert data["copies"]["columns"] == list(TABLE.columns)
    assert data["copies"]["rows"][1] == ["none", 2, "b.png", "row 3", 2.5, None, False, None]
    assert data["pairs"] == [{"run": "none", "captions": ["first", "second"], "threshold": None, "shape": [2, 8, 8, 3]}]


def test_captions_say_what_is_known():
    assert [pair_caption(row) for row in TABLE.to_dict("records")] == [
        "distance 1.23, ratio 0.610: near copy", "distance 2.50: not a near copy",
    ]  # fmt: skip
    assert pair_caption({"distance": NAN, "near_copy": None}) == "distance not known"


def test_hostile_text_stays_text(tmp_path):
    bad = "<script>alert('x')</script>\"-->"
    table = TABLE.assign(run=bad, generated=bad, training=bad).rename(columns={"attr.sex": f"attr.{bad}"})
    rows = [near(bad, bad, bad, 0.3), near(bad, "*", "*", 0.3), near(bad, f"{bad} & x", f"{bad} & y", 0.2)]
    path = report(pd.DataFrame(rows), path=tmp_path, copies=[pairs(run=bad, captions=[bad, bad])], copies_table=table)
    assert "<script" not in path.read_text()
    assert path.read_text().count("&lt;script&gt;") > 10


@pytest.mark.parametrize(
    ("change", "side"),
    [({"generated": np.zeros((2, 8, 8, 3))}, "generated"), ({"training": np.zeros((2, 8, 8), np.uint8)}, "training"),
     ({"training": np.zeros((1, 8, 8, 3), np.uint8)}, "training")],
)  # fmt: skip
def test_pairs_that_do_not_fit_are_refused(change, side):
    with pytest.raises(InputError) as caught:
        pairs(**change)
    assert [problem.message.split("'")[1] for problem in caught.value.problems] == [side]


def test_sides_of_different_size_are_shown(tmp_path):
    text = report(path=tmp_path, copies=[pairs(training=np.zeros((2, 16, 12, 3), np.uint8))]).read_text()
    assert text.count("<img ") == 2


def test_the_page_tests_floors_where_the_table_has_them_and_says_what_the_check_finds(tmp_path):
    rows = pd.DataFrame([near("none", "*", "*", 0.05, p_floor=0.5), near("none", "sex", "f", 0.05, p_floor=0.5)])
    power = pd.DataFrame([{
        "change": "blur 1 px", "attribute": "*", "group": "*", "n": 100, "share": 0.98, "ci_low": 0.93, "ci_high": 1.0,
        "false_alarm": 0.01, "note": "",
    }])  # fmt: skip
    html = report(rows, path=tmp_path, copy_power=power).read_text()
    assert "is tested with the error of both" in html
    assert "what held-out images give is taken as known" not in html
    assert "closer to the training images than real held-out ones, by" not in html  # p is 0.5
    summary = html[html.index('<section class="short"') :]
    assert "98 % would have been found" in summary[: summary.index("</section>")]
