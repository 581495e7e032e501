"""KD is quoted in full, every other metric is folded below it; intersections and errors have their place."""

import json
import re

import pandas as pd
import pytest
from report_rows import NAN, quality_row

from equigen.report import report
from equigen.report.frames import quality_frame
from equigen.report.metrics import METRICS, error_text, floor_name, lookup_metric, sort_metrics
from equigen.report.study.details import metrics_table, monte_carlo_text, numbers_table
from equigen.report.study.quality import quality_sentences

QUALITY = [
    "kd", "fd", "fd_inf", "is", "precision", "recall", "density", "coverage", "mifid", "nn_ratio", "authenticity",
    "near_copies", "semantic_auc", "semantic_attribute_auc", "semantic_attribute_probability", "judge_agreement",
    "oracle_accuracy", "oracle_found", "oracle_attribute_accuracy",
]  # fmt: skip
ERRORS = {"standard_error": 0.0123, "mc_estimate": 0.0004, "mc_floor": 0.0002, "mc_interval": 0.002, "mc_p": 0.0031}
SMALL = {
    "estimate": NAN, "ci_low": NAN, "ci_high": NAN, "floor": NAN, "excess": NAN,
    "note": "too small: 12 patients, 30 needed",
}  # fmt: skip


def html(path, *rows, **rest):
    return report(pd.DataFrame(rows), path=path, **rest).read_text()


def folded(text):
    return dict(re.findall(r"<details><summary>(.*?)</summary>(.*?)</details>", text, re.DOTALL))


@pytest.mark.parametrize("name", QUALITY)
def test_every_metric_has_words_direction_family_and_floor(name):
    words = METRICS[name]
    assert words.better in {"lower", "higher"}
    assert words.family in {"distance", "variety", "manifold", "memorisation", "semantic"}
    assert len(words.meaning) > 60
    assert words.title
    assert words.short
    assert words.source
    assert words.floor


def test_floors_are_named_by_what_they_are():
    names = ("kd", "is", "recall", "near_copies", "semantic_auc", "auc")
    floors = {name: floor_name(lookup_metric(name)) for name in names}
    assert floors == {
        "kd": "between real images", "is": "real images score", "recall": "real held-out images score",
        "near_copies": "real held-out images", "semantic_auc": "ceiling (real images)", "auc": "real images score",
    }  # fmt: skip


def test_metrics_are_ordered_as_the_catalogue_has_them():
    assert sort_metrics(["mine", "coverage", "fd", "kd"]) == ["kd", "fd", "coverage", "mine"]


def test_only_kd_is_drawn_and_the_others_are_folded(tmp_path):
    names = ["fd", "kd", "fd_inf", "is", "precision", "coverage"]
    text = html(tmp_path, *(quality_row("none", "sex", g, 0.3, metric=m) for m in names for g in "fm"))
    titles = re.findall(r"<h3>(.*?)</h3>", text)
    assert [title for title in titles if "encoder" in title] == [
        "Kernel distance (KD), shown x 1000, encoder efficientnet-lite0"
    ]
    assert len(re.findall("<svg", text)) == 1
    by = ", encoder efficientnet-lite0"
    assert [f"Other distances: FD and FD-infinity{by}", f"Variety: IS{by}",
            f"Realism and variety apart: precision and coverage{by}"] == list(folded(text))[:3]  # fmt: skip


def test_without_kd_the_first_metric_is_shown_in_full(tmp_path):
    score, recall = (quality_row("none", "*", "*", 2.5, metric=name) for name in ("is", "recall"))
    text = html(tmp_path, score, recall)
    assert "<h3>Inception score (IS), encoder efficientnet-lite0</h3>" in text
    assert "Realism and variety apart: recall, encoder efficientnet-lite0" in folded(text)


def test_family_table_has_groups_as_rows_and_metrics_as_columns():
    rows = quality_frame(pd.DataFrame([
        quality_row("none", "*", "*", 0.5, metric="recall", floor=0.7),
        quality_row("none", "*", "*", 0.6, metric="precision", floor=0.8),
        quality_row("none", "sex", "f", 0.4, metric="precision", floor=NAN),
        quality_row("none", "sex", "gap", 0.1, metric="precision", null_high=0.05, null_low=0.0, p_value=0.02),
    ]))  # fmt: skip
    table = metrics_table(rows, ["precision", "recall", "density"], "none")
    assert table.head == ["group", "precision", "recall"]
    assert [row.head for row in table.rows] == ["whole set", "sex", "f", "gap"]
    assert [(cell.text, cell.detail) for cell in table.rows[0].cells] == [
        ("0.600", "0.580 to 0.620; real held-out images score 0.800"),
        ("0.500", "0.480 to 0.520; real held-out images score 0.700"),
    ]
    assert [cell.text for cell in table.rows[2].cells] == ["0.400", "–"]
    assert (table.rows[3].cells[0].detail, table.rows[3].cells[0].mark) == ("0.080 to 0.120; p = 0.020", "beyond")


def test_errors_have_their_columns_and_empty_columns_are_left_out():
    frame = quality_frame(pd.DataFrame([quality_row("none", "sex", "gap", 0.25, p_value=0.04, **ERRORS)]))
    table = numbers_table(frame, lookup_metric("kd"))
    found = dict(zip(table.head[1:], (cell.text for cell in table.rows[0].cells), strict=True))
    assert found == {
        "real": "800", "generated": "800", "matched n": "100", "value": "250", "standard error": "12",
        "95 % interval": "230 to 270", "p": "0.040", "MC of value": "0.40", "MC of floor": "0.20",
        "MC of interval": "2.0", "MC of p": "0.0031",
    }  # fmt: skip


def test_old_table_has_no_block_of_errors(tmp_path):
    old, new = quality_row("none", "sex", "f", 0.25), quality_row("none", "sex", "f", 0.25, **ERRORS)
    assert not any("Monte-Carlo" in title for title in folded(html(tmp_path / "old", old)))
    blocks = folded(html(tmp_path / "new", new))
    block = blocks["KD, encoder efficientnet-lite0: all numbers, with standard and Monte-Carlo errors"]
    assert '<th scope="col">standard error</th>' in block
    assert "<td>0.40</td>" in block


def test_monte_carlo_error_is_held_against_the_interval():
    rows = [quality_row("none", "sex", "f", 0.25, mc_estimate=0.0004, mc_interval=0.001),  # 0.04 wide
            quality_row("none", "sex", "m", 0.25, mc_estimate=0.006, mc_interval=0.001)]  # fmt: skip
    assert monte_carlo_text(quality_frame(pd.DataFrame(rows[:1]))) == [
        "The Monte-Carlo error (MC) is at most 2.5% of an interval's width: KD, none, f (sex)."
    ]
    said = monte_carlo_text(quality_frame(pd.DataFrame(rows)))
    assert said == [
        "The Monte-Carlo error (MC) is at most 15.0% of an interval's width: KD, none, m (sex). "
        "More repeats and replicates would make these numbers steadier."
    ]
    assert monte_carlo_text(quality_frame(pd.DataFrame([quality_row("none", "*", "*", 0.2)]))) == []


def test_errors_keep_two_digits():
    shown = [error_text(value, lookup_metric("precision")) for value in (0.000123, 0.0451, 0.0, NAN, None)]
    assert shown == ["0.00012", "0.045", "0", "–", "–"]
    assert error_text(0.0123, lookup_metric("kd")) == "12"


CROSSED = [
    quality_row("none", "sex & age", "f & young", 0, more=SMALL),
    quality_row("none", "sex & age", "f & old", 0.401),
    quality_row("none", "sex & age", "m & old", 0.301),
    quality_row("none", "sex & age", "gap", 0.1, null_low=0.0, null_high=0.15, p_value=0.21,
                note="p adjusted by Holm over 2 attributes, 0.1 before"),
]  # fmt: skip
WORST = (
    "Worst intersection: f &amp; old, none, 400 (380 to 420); gap 100, chance alone gives up to 150, p = 0.21: not "
    "distinguishable from chance (p corrected over attributes, Holm). 1 of 3 intersections are too small to be judged."
)


def test_intersections_have_a_folded_block_and_small_cells_no_number(tmp_path):
    text = html(tmp_path, quality_row("none", "sex", "f", 0.3), quality_row("none", "sex", "m", 0.3), *CROSSED)
    block = folded(text)["Intersections of attributes, encoder efficientnet-lite0"]
    assert '<td class="missing">too small<small>12 patients, 30 needed</small></td>' in block
    assert "<td>401<small>381 to 421; excess 400</small></td>" in block
    assert WORST in block
    assert len(re.findall("<svg", text)) == 1  # by sex; none by intersections
    outside = re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)
    assert "m &amp; old" not in outside
    assert outside.count(WORST) == 1  # in short


def test_intersections_do_not_enter_the_sentences_on_mechanisms():
    rows = [quality_row("none", "sex", "f", 0.3), quality_row("fair", "sex", "f", 0.1), *CROSSED]
    said = " ".join(part for s in quality_sentences(quality_frame(pd.DataFrame(rows))) for part in (s.text, *s.parts))
    assert said.count("sex & age") == 0
    assert said.count("f & old") == 1
    assert "f & young" not in said


def test_two_intersections_without_numbers_have_no_worst(tmp_path):
    text = html(tmp_path, quality_row("none", "*", "*", 0.3), CROSSED[0], CROSSED[1])
    assert "No intersection can be called the worst: fewer than two have a number. 1 of 2" in text


def test_long_note_stands_below_once_and_not_in_each_cell(tmp_path):
    note = "undefined: " + "the neighbourhoods of this cell hold no image at all, " * 3
    rows = [quality_row("none", "sex", str(g), 0, metric="recall", more=SMALL | {"note": note}) for g in range(5)]
    text = html(tmp_path, quality_row("none", "*", "*", 0.2), *rows)
    assert text.count(note) == 1
    assert text.count("see the notes of the tables") >= 5
    assert f"{note}</th><td>quality</td><td>5</td><td>recall</td>" in text


def test_reading_says_which_number_to_quote_and_what_monte_carlo_error_means(tmp_path):
    text = html(tmp_path, quality_row("none", "*", "*", 0.2))
    assert "Quote excess KD with its 95 % interval" in text
    assert "Do not quote raw FD (FID) of a group" in text
    assert "if the same computation ran again with other random draws. It is not an interval" in text
    assert "Which number to quote" not in report(path=tmp_path / "empty").read_text()


def test_everything_unknown_is_printed_as_no_number(tmp_path):
    gone = dict.fromkeys(["estimate", "ci_low", "ci_high", "floor", "excess", *ERRORS])
    rows = [quality_row("none", a, g, 0.0, metric=m, more=gone) for m in QUALITY
            for a, g in (("*", "*"), ("sex", "f"), ("sex", "gap"), ("sex", "es"), ("sex & age", "f & y"))]  # fmt: skip
    shown = html(tmp_path, *rows)
    assert not re.findall(r"(?<![\w])(nan|NaN|inf|None|<NA>)(?![\w])", shown.split("</style>")[1])
    assert "not evaluated" in shown
    data = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert len(data["quality"]["rows"]) == len(rows)
