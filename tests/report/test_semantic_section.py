"""Conditioning: AUC beside its ceiling, ES-AUC, and for phantoms the oracle and the agreement."""

import re

import pandas as pd
from report_rows import NAN, quality_row

from equigen.report import report
from equigen.report.frames import quality_frame
from equigen.report.study.semantic import semantic_sentences


def auc(attribute, group, estimate, metric="semantic_auc", **rest):
    return quality_row("none", attribute, group, estimate, 0.03, metric, **({"floor": 0.88, "excess": NAN} | rest))


ROWS = [
    auc("*", "*", 0.8), auc("sex", "f", 0.74, floor=0.86), auc("sex", "m", 0.87),
    auc("sex", "gap", 0.13, floor=NAN, null_low=0.0, null_high=0.06, p_value=0.004),
    auc("sex", "es", 0.708, floor=NAN, null_low=0.741, null_high=0.79),
]  # fmt: skip


def said(*rows):
    return [[s.tone, s.text, *s.parts] for s in semantic_sentences(quality_frame(pd.DataFrame(rows)))]


def test_auc_is_read_against_the_ceiling_with_gap_and_equity_scaled_value():
    assert said(*ROWS) == [[
        "caution",
        "none, diagnosis AUC: 0.800 (0.770 to 0.830), real images reach 0.880: below the ceiling.",
        "by sex: lowest for f, 0.740 (0.710 to 0.770), real images reach 0.860: below the ceiling; gap 0.130, chance "
        "alone gives up to 0.060, p = 0.004: larger than chance explains; ES-AUC 0.708 (0.678 to 0.738), chance alone "
        "from 0.741",
    ]]  # fmt: skip


def test_interval_that_holds_the_ceiling_is_not_below_it():
    text = "none, diagnosis AUC: 0.860 (0.830 to 0.890), real images reach 0.880: not shown to be below the ceiling."
    assert said(auc("*", "*", 0.86)) == [["finding", text]]
    assert "no ceiling measured" in said(auc("*", "*", 0.86, floor=NAN))[0][1]
    assert "not evaluated for the whole set" in said(auc("*", "*", NAN, ci_low=NAN, ci_high=NAN))[0][1]


def test_real_images_of_their_own_are_no_generator():
    assert said(auc("*", "*", 0.9) | {"run": "real"}) == []


def section(tmp_path, *rows):
    text = report(pd.DataFrame(rows), path=tmp_path).read_text()
    return re.search(r'<section id="semantic".*?</section>', text, re.DOTALL)[0]


def test_section_draws_the_ceiling(tmp_path):
    text = section(tmp_path, *ROWS)
    assert "Its score on held-out real images of the same group (the black tick) is the ceiling" in text
    assert "ceiling (real images)</text>" in re.sub("<!--.*?-->", "", text)
    assert "phantoms" not in text
    assert '<th scope="row">equity-scaled</th><td></td><td></td><td>0.708<small>0.678 to 0.738; chance 0.741 to' in text


def test_oracle_stands_beside_the_classifier_with_their_agreement(tmp_path):
    oracle = {"encoder": "oracle", "floor": NAN}
    rows = [*ROWS, auc("*", "*", 0.91, "oracle_accuracy", **oracle), auc("*", "*", 0.77, "judge_agreement", floor=0.93)]
    text = section(tmp_path, *rows)
    assert "The images are phantoms" in text
    caption = "<caption>none: diagnosis AUC, oracle accuracy and judge and oracle agree</caption>"
    table = text.split(caption)[1].split("</table>")[0]
    assert (
        "<td>0.800<small>0.770 to 0.830; ceiling (real images) 0.880</small></td>"
        "<td>0.910<small>0.880 to 0.940</small></td>"
    ) in table
    assert "<td>0.770<small>0.740 to 0.800; on real images 0.930</small></td>" in table
    parts = said(*rows)
    lead = "How often the classifier and the phantom's oracle agree on an image:"
    assert ["finding", lead, "none 0.770 (0.740 to 0.800)"] in parts
    assert parts[-1][2] == "none 0.910 (0.880 to 0.940)"


def test_oracle_alone_needs_no_classifier(tmp_path):
    text = section(tmp_path, auc("*", "*", 0.91, "oracle_accuracy", encoder="oracle", floor=NAN))
    assert "<h3>Oracle accuracy</h3>" in text
    assert "A classifier trained" not in text
    assert "side by side" not in text


def test_not_evaluated_is_said(tmp_path):
    text = section(tmp_path, quality_row("none", "*", "*", 0.2))
    assert "Whether the images show what was asked for was not evaluated." in text


def test_attributes_are_one_sentence_with_the_lowest_group():
    name = "semantic_attribute_probability"
    rows = [auc("*", "*", 0.7, name, floor=0.71), auc("sex", "f", 0.6, name, floor=0.7), auc("sex", "m", 0.72, name)]
    assert said(*rows) == [[
        "caution", "Is the attribute asked for seen (attribute probability)?",
        "none: 0.700 (0.670 to 0.730), real images reach 0.710: not shown to be below the ceiling; lowest for sex f, "
        "0.600 (0.570 to 0.630), real images reach 0.700: below the ceiling",
    ]]  # fmt: skip
