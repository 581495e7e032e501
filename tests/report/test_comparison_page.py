"""A comparison's page: its verdict says what the table supports and no more; it stands alone and hides no hole."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pandas as pd
import pytest
from report_rows import NAN
from test_report import read

from equigen.errors import InputError
from equigen.report.comparison.convergence import convergence_sentences, curve_section
from equigen.report.comparison.findings import comparison_sentences
from equigen.report.comparison.page import CalibrationSummary, write_comparison_page
from equigen.report.comparison.sections import table_section
from equigen.report.comparison.view import autoencoder_sentences, comparison_views, row_verdict

GROUPS = {"sex": ["female", "male"], "age": ["young", "old"]}


def entry(mechanism, guidance, attribute, figure, estimate, change=NAN, half=NAN, p=NAN, **rest):
    low, high = estimate - 0.004, estimate + 0.004
    joint = {"ci_low": low, "ci_high": high, "seed_low": low, "seed_high": high}
    return {
        "setting": "default", "mechanism": mechanism, "plan": "match", "guidance": guidance, "metric": "kd",
        "attribute": attribute, "figure": figure, "seeds": 3, "n": 40, "estimate": estimate, **joint,
        "patient_low": low, "patient_high": high, "null_gap": 0.005 if figure == "gap" else NAN,
        "reference": "" if pd.isna(change) else "none at guidance 1", "difference": change,
        "difference_low": change - half, "difference_high": change + half, "p_value": p, "p_holm": p, "note": "",
    } | rest  # fmt: skip


def rows(mechanism, guidance="1", *, overall=0.1, gap=0.04, worst=0.12, changes=None, **rest):
    """All figures of one mechanism; ``changes`` maps a figure to (difference, half width, p) for sex."""
    established = changes or {}
    table = [entry(mechanism, guidance, "*", "overall", overall, *established.get("overall", ()), **rest)]
    for attribute, groups in GROUPS.items():
        differences = established if attribute == "sex" else {name: (0.0, 0.01, 1.0) for name in established}
        table += [entry(mechanism, guidance, attribute, name, worst - rank * gap, **rest)
                  for rank, name in enumerate(groups)]  # fmt: skip
        table += [entry(mechanism, guidance, attribute, name, value, *differences.get(name, ()), **rest)
                  for name, value in (("worst", worst), ("gap", gap))]  # fmt: skip
    return table


NARROWER = {"overall": (0.002, 0.004, 0.3), "worst": (-0.02, 0.01, 0.01), "gap": (-0.024, 0.01, 0.01)}
LEVELLED = {"overall": (0.02, 0.01, 0.01), "worst": (0.001, 0.01, 0.8), "gap": (-0.02, 0.01, 0.01)}
NOTHING = {"overall": (0.0, 0.01, 1.0), "worst": (-0.01, 0.02, 0.3), "gap": (-0.01, 0.02, 0.3)}
WIDER = {"overall": (-0.01, 0.004, 0.01), "worst": (0.02, 0.01, 0.01), "gap": (0.02, 0.01, 0.01)}


def table(**rest):
    return pd.DataFrame([
        *rows("none", **rest), *rows("none", "2", gap=0.03, **rest),
        *rows("good", gap=0.016, worst=0.1, changes=NARROWER, **rest),
        *rows("level", gap=0.02, worst=0.121, changes=LEVELLED, **rest), *rows("idle", changes=NOTHING, **rest),
        *rows("wide", gap=0.06, changes=WIDER, **rest),
    ])  # fmt: skip


def seeds_of(summary):
    parts = [summary[["setting", "mechanism", "plan", "guidance", "metric", "attribute", "figure"]].assign(
        seed=seed, estimate=summary["estimate"] + 0.001 * seed, note="") for seed in range(3)]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def findings(summary):
    return [(sentence.tone, sentence.text, *sentence.parts) for sentence in comparison_sentences(summary, "none")]


def test_the_verdict_names_who_narrows_which_gap_by_how_much_and_at_what_cost():
    tones = findings(table())
    assert tones[0][0] == "note"
    assert "trained with 3 training seeds" in tones[0][1]
    overall, reference, changes, halved, worst = tones[1:6]
    assert overall == (
        "finding",
        "Against none, overall quality is better with wide, worse with level.",
        "level at guidance 1: 100 in place of 80.0, difference +20.0 (10.0 to 30.0): worse",
        "wide at guidance 1: 100 in place of 110, difference -10.0 (-14.0 to -6.00): better",
        "no evidence of a change, at any guidance: good and idle",
    )
    assert worst[1] == "Against none, quality of the worst group by sex is better with good, worse with wide."
    assert worst[-1] == "no evidence of a change, at any guidance: level and idle"
    assert reference[1] == ("Gap by sex of none (excess KD x 1000): 40.0 (36.0 to 44.0) at guidance 1, 30.0 (26.0 to "
                            "34.0) at guidance 2. Chance alone would give about 5.00.")  # fmt: skip
    assert changes[:2] == ("finding", "Against none, the gap by sex is narrower with good and level, wider with wide.")
    assert changes[2] == (
        "good at guidance 1: gap 16.0 in place of 40.0 (60 % less), difference -24.0 (-34.0 to -14.0); overall +2.00 "
        "(-2.00 to 6.00): no evidence of a change; worst group -20.0 (-30.0 to -10.0): better"
    )
    assert "the worst group is not shown to gain" in changes[3]
    assert "overall +20.0 (10.0 to 30.0): worse" in changes[3]
    assert "(50 % more)" in changes[4]
    assert changes[5] == "no evidence of a narrower or a wider gap, at any guidance: idle"
    # level halves the gap too, but overall quality is worse
    assert halved[0] == "finding"
    assert halved[1].startswith("The gap by sex is at least halved, without overall quality shown to be worse: ")
    assert halved[1].endswith("worse: good at guidance 1.")


def test_no_evidence_is_said_where_intervals_hold_zero():
    by_age = [finding for finding in findings(table()) if "by age" in finding[1]]
    assert [finding[0] for finding in by_age] == ["note", "chance", "chance", "chance"]
    assert by_age[3][1] == "No evidence that any mechanism changes quality of the worst group by age against none."
    assert by_age[1][1] == "No evidence that any mechanism narrows the gap by age against none."
    assert by_age[1][2].endswith("good, level, idle and wide")
    assert "is not established" in by_age[2][1]


@pytest.mark.parametrize(
    ("difference", "half", "p", "figure", "verdict"),
    [
        (-0.02, 0.01, 0.01, "gap", "better"), (0.02, 0.01, 0.01, "worst", "worse"),
        (-0.02, 0.03, 0.2, "gap", "no evidence"),
        (-0.02, 0.01, 0.08, "gap", "no evidence"),  # not after correction for the number of mechanisms
        (-0.02, 0.01, NAN, "gap", "no evidence"),  # one seed has no p
        (NAN, NAN, NAN, "gap", "not evaluated"),
    ],
)  # fmt: skip
def test_judged(difference, half, p, figure, verdict):
    assert row_verdict(entry("good", "1", "sex", figure, 0.02, difference, half, p)) == verdict


def test_a_gap_of_a_score_is_better_when_smaller_and_the_score_when_larger():
    more = entry("good", "1", "*", "overall", 0.9, 0.1, 0.05, 0.01, metric="precision")
    assert row_verdict(more) == "better"
    assert row_verdict({**more, "figure": "gap", "attribute": "sex"}) == "worse"


def test_one_seed_is_a_rehearsal():
    single = table(seeds=1, p_holm=NAN, p_value=NAN, ci_low=NAN, ci_high=NAN, seed_low=NAN, seed_high=NAN)
    tones = findings(single)
    assert tones[0][0] == "caution"
    assert "trained with 1 training seed. Fewer than 3 are no evidence" in tones[0][1]
    assert "finding" not in {finding[0] for finding in tones}
    assert "40.0 (36.0 to 44.0)" in tones[2][1]  # the patients' interval


def test_calibrated_generators_count_as_mechanisms_of_their_own():
    extra = pd.DataFrame(rows("none", "calibrated", gap=0.01, changes=NARROWER))
    changes = findings(pd.concat([table(), extra], ignore_index=True))[3]
    assert "narrower with none with calibrated guidance, good and level" in changes[1]


def test_views_split_by_setting_plan_and_metric_and_order_guidance():
    summary = pd.concat([table(), table().assign(plan="balanced"), pd.DataFrame(rows("none", "10")),
                      pd.DataFrame(rows("none", "common"))], ignore_index=True)  # fmt: skip
    first, second = comparison_views(summary)
    assert (first.title, second.title) == ("plan match", "plan balanced")
    assert first.guidances == ["1", "2", "10", "common"]
    assert first.groups("age") == ["young", "old"]
    assert {sentence.topic for sentence in comparison_sentences(summary, "none")} == {
        "Verdict", "Verdict: plan match", "Verdict: plan balanced"}  # fmt: skip


QUANTITIES = [("*", "overall"), ("sex", "gap"), ("sex", "female")]
CURVE = pd.DataFrame([
    {"images_seen": images, "seed": seed, "attribute": attribute, "figure": figure,
     "estimate": 0.3 / (1 + images / 10000)}
    for images in (15000, 30000) for seed in range(2) for attribute, figure in QUANTITIES
])  # fmt: skip
CHANGE = pd.DataFrame([
    {"setting": "default", "images_seen": images, "end": 30000, "attribute": attribute, "figure": figure, "seeds": 2,
     "estimate": 0.12, "estimate_end": 0.12 + change, "change": change, "change_low": change - 0.01,
     "change_high": change + 0.01}
    for images, change in ((15000, -0.03), (27000, 0.0)) for attribute, figure in QUANTITIES
])  # fmt: skip
ALONE = pd.DataFrame([
    {"setting": "default", "metric": "kd", "attribute": attribute, "figure": figure, "estimate": value,
     "ci_low": value - 0.005, "ci_high": value + 0.005, "null_gap": 0.006 if figure == "gap" else NAN, "note": ""}
    for attribute, figure, value in (("*", "overall", 0.06), ("sex", "female", 0.055), ("sex", "male", 0.068),
                                 ("sex", "worst", 0.068), ("sex", "gap", 0.013))
])  # fmt: skip
GAIN = pd.DataFrame([
    {"set": "group", "figure": "gap", "group": "*", "excess": 0.02, "reference": "default", "difference": -0.03,
     "difference_low": -0.05, "difference_high": -0.01},
    {"set": "common", "figure": "gap", "group": "*", "excess": 0.07, "reference": "default", "difference": 0.0,
     "difference_low": -0.01, "difference_high": 0.01},
])  # fmt: skip
GUIDANCE = {"attribute": "age", "groups": {"young": 1.25}, "common": 1.75, "default": 2.0, "objective": "worst"}


def write(folder, summary=None, **rest):
    tables = table() if summary is None else summary
    comparison = SimpleNamespace(summary=tables, seeds=seeds_of(tables))
    options = {
        "title": "A <b>comparison", "facts": {"Cohort": "phantoms & co"}, "curve": CURVE, "curve_change": CHANGE,
        "reconstruction": ALONE, "phantom": True,
        "calibrations": [CalibrationSummary("none, seed 0", GUIDANCE, GAIN),
                         CalibrationSummary("none, seed 1", {**GUIDANCE, "groups": {"young": 1.5, "old": 2.5}})],
        "settings": {"seeds": [0, 1, 2]}, "versions": {"equigen": "0.1.0"},
        "timings": {"train": 3.0}, "warnings": ["one <i>image"],
    } | rest  # fmt: skip
    return write_comparison_page(folder, comparison, **options)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write(tmp_path_factory.mktemp("contest"))


def test_the_page_stands_alone_and_lets_no_text_become_markup(page):
    reader, text = read(page), page.read_text()
    assert {link[0] for link in reader.links} == {"#"}
    assert not re.findall(r"https?://|@import|url\((?!#)|<script", text)
    assert len(reader.ids) == len(set(reader.ids))
    assert {link[1:] for link in reader.links} <= set(reader.ids)
    assert "A &lt;b&gt;comparison" in text
    assert "one &lt;i&gt;image" in text
    assert "not about patients" in text
    assert not re.findall(r"(?<![\w])(nan|NaN|inf|None|<NA>)(?![\w])", " ".join(reader.text))


def test_the_page_has_all_its_parts(page):
    reader = read(page)
    text = " ".join(" ".join(reader.text).split())
    labels = [values["aria-label"] for tag, values in reader.tags if tag == "svg"]
    planes = [alt for alt in labels if "gap by" in alt and "across" in alt]
    assert len(planes) == 2
    assert "good at guidance 1: overall 100 (96.0 to 104), gap 16.0 (12.0 to 20.0)" in planes[0]
    assert sum("difference" in alt for alt in labels) == 5  # overall, and worst and gap of two attributes
    assert "reconstruction: overall 60.0 (55.0 to 65.0), gap 13.0 (8.00 to 18.0)" in planes[0]
    assert "reconstruction" not in planes[1]  # it has no gap by age
    assert sum("images seen" in alt for alt in labels) == 2  # no group's own curve
    assert [("reconstruction" in alt) for alt in labels if "images seen" in alt] == [True, True]
    assert sum("from 120 at 15,000 images seen to 75.0 at 30,000 (mean over seeds)" in alt for alt in labels) == 2
    brought = "from 15,000 to 30,000 images seen it went from 120 to 90.0, a change of -30.0 (-40.0 to -20.0)"
    assert f"gap by sex: {brought}." in text
    assert f"overall: {brought}, -25 %." in text
    assert "Training was still improving when it ended" in text
    for phrase in (
        "Chance gap",
        "chance gap",
        "seed 2",
        "takes the common one",
        "1.25",
        "gap, against default guidance",
        "-30.0",
        "Satterthwaite",
        "Nothing is trained again",
    ):
        assert phrase in text, phrase
    assert "against default guidance" in text
    assert text.count("against default guidance") == 1  # the common guidance has no row of its own


def test_the_json_holds_the_tables_and_the_same_words(page):
    data = json.loads((page.parent / "report.json").read_text())
    summary = pd.DataFrame(data["summary"]["rows"], columns=data["summary"]["columns"])
    assert summary["estimate"].tolist() == table()["estimate"].tolist()
    assert data["curve"]["columns"] == list(CURVE.columns)
    assert [finding["text"] for finding in data["in_short"][:-2]] == [finding[1] for finding in findings(table())]
    assert data["in_short"][-2]["topic"] == "Has training converged?"
    assert data["curve_change"]["columns"] == list(CHANGE.columns)
    assert data["reconstruction"]["columns"] == list(ALONE.columns)
    assert data["calibrations"][0]["chosen"]["groups"] == {"young": 1.25}
    assert data["calibrations"][1]["gain"] is None
    assert data["phantom"] is True


@pytest.mark.parametrize(
    ("low", "high", "name", "start", "seeds", "tone", "text"),
    [
        (-0.0049, 0.002, "kd", 60, 3, "note", "Training had stopped improving (less than 5 %): "),
        (-0.0049, -0.001, "kd", 60, 3, "note", "Training had stopped"),  # a little is established, and less than 5 %
        (-0.006, 0.004, "kd", 60, 3, "note", "Whether training had stopped improving cannot be told from these seeds"),
        (-0.006, -0.001, "kd", 60, 3, "caution", "Training was still improving"),
        (0.001, 0.02, "kd", 60, 3, "note", "Training had stopped"),  # it became worse
        (0.001, 0.006, "precision", 60, 3, "caution", "Training was still improving"),
        (-0.02, -0.001, "precision", 60, 3, "note", "Training had stopped"),
        (-0.0049, 0.002, "kd", 80, 3, "note", "Whether training had stopped improving cannot be told, since no"),
        (-0.0049, 0.002, "kd", 60, 1, "note", "Whether training had stopped improving cannot be told from one seed"),
        (NAN, NAN, "kd", 60, 0, "missing", "Whether training had stopped improving was not measured."),
    ],
)  # fmt: skip
def test_training_has_stopped_improving_where_what_its_last_quarter_brought_is_shown_to_be_small(
    low, high, name, start, seeds, tone, text
):
    row = {"setting": "default", "end": 100, "attribute": "*", "figure": "overall", "seeds": seeds, "estimate": 0.1}
    middle = (low + high) / 2
    early = {
        **row,
        "images_seen": 40,
        "change": -0.05,
        "change_low": -0.06,
        "change_high": -0.04,
        "estimate_end": 0.05,
    }  # what came before the last part does not count
    last = {
        **row,
        "images_seen": start,
        "change": middle,
        "change_low": low,
        "change_high": high,
        "estimate_end": 0.1 + middle,
    }
    points = [last] if start == 80 else [early, last]
    (sentence,) = convergence_sentences(pd.DataFrame(points), name)
    assert sentence.tone == tone and sentence.text.startswith(text)
    if name == "kd" and tone == "caution":
        assert sentence.text.endswith("from 60 to 100 images seen it went from 100 to 96.5, a change of -3.50 "
                                      "(-6.00 to -1.00), -4 %.")  # fmt: skip


def test_each_setting_has_a_verdict_of_its_own_and_no_table_none():
    change = pd.concat([CHANGE, CHANGE.assign(setting="long", end=60000)])
    assert [sentence.topic for sentence in convergence_sentences(change, "kd")] == [
        "Has training converged? Setting default", "Has training converged? Setting long"]  # fmt: skip
    assert convergence_sentences(None, "kd") == []
    assert convergence_sentences(CHANGE[:0], "kd") == []


def test_what_the_autoencoder_costs_stands_beside_the_reference():
    (sentence,) = autoencoder_sentences(comparison_views(table(), ALONE), "none")
    assert sentence.text == (
        "Held-out images that go through the autoencoder and back stand at 60.0 (55.0 to 65.0) (excess KD x 1000), "
        "which is about where perfect training of the diffusion model would lead; none stands at 100 at guidance 1 and "
        "100 at guidance 2. Distances do not add up: a generator that stands near this may still err in other ways, "
        "which a measurement against reconstructions shows."
    )
    assert sentence.parts == ("by sex: gap 13.0 (8.00 to 18.0), chance about 6.00; female 55.0, male 68.0",)
    assert autoencoder_sentences(comparison_views(table()), "none") == []
    two = pd.concat([table(), table(setting="other")]), pd.concat([ALONE, ALONE.assign(setting="other", estimate=NAN)])
    first, second = autoencoder_sentences(comparison_views(*two), "none")
    assert first.topic.endswith("Setting default") and second.text.endswith("alone costs was not measured.")


def test_the_tables_end_with_the_autoencoder_alone():
    by_sex, by_age = table_section(comparison_views(table(), ALONE), "none").blocks[0].tables
    assert [len(row.cells) for row in by_sex.rows if row.cells] == [len(by_sex.head) - 1] * 7
    assert [cell.text for cell in by_sex.rows[-1].cells][:6] == ["60.0", "55.0", "68.0", "68.0", "13.0", "6.00"]
    assert by_sex.rows[-1].cells[0].detail == "55.0 to 65.0"
    assert by_age.rows[-1].cells[0].text == "60.0"  # the whole set has no attribute
    views = comparison_views(table()[lambda frame: frame["attribute"] == "*"], ALONE)
    (overall,) = table_section(views, "none").blocks[0].tables
    assert len(overall.rows[-1].cells) == len(overall.head) - 1
    plain = table_section(comparison_views(table()), "none").blocks[0].tables[0]
    assert len(plain.rows) == len(by_sex.rows) - 2


def test_one_point_is_told_to_be_no_curve():
    (block,) = curve_section(CURVE[CURVE["images_seen"] == 30000], CHANGE[:0], "kd").blocks
    assert block.text == ["overall: one point is no curve.", "gap by sex: one point is no curve."]


def small():
    return pd.DataFrame([*rows("none"), *rows("idle", changes=NOTHING)])


def test_the_same_tables_give_the_same_bytes(tmp_path):
    first, second = (write(tmp_path / name, small(), curve=None, curve_change=None) for name in ("a", "b"))
    for name in ("index.html", "report.json"):
        assert (second.parent / name).read_bytes() == (first.parent / name).read_bytes()


def test_a_missing_number_is_a_dash_with_its_reason(tmp_path):
    summary = small()
    hole = (summary["mechanism"] == "idle") & (summary["figure"] == "old")
    summary.loc[hole, ["estimate", "ci_low", "ci_high", "patient_low", "patient_high", "seed_low", "seed_high"]] = NAN
    summary.loc[hole, "note"] = "too small: 9 patients"
    text = " ".join(read(write(tmp_path, summary, curve=None, curve_change=None, calibrations=[])).text)
    assert "too small: 9 patients" in text
    assert "No generator was calibrated." in text
    assert "No kept generator was measured on the way." in text


def test_tables_without_a_column_are_refused_and_nothing_is_written(tmp_path):
    for broken, name in ((table().drop(columns="null_gap"), "null_gap"), (table().drop(columns="note"), "note")):
        with pytest.raises(InputError, match=name):
            write(tmp_path / "out", broken)
    with pytest.raises(InputError, match="images_seen"):
        write(tmp_path / "out", curve=CURVE.drop(columns="images_seen"))
    with pytest.raises(InputError, match="change_low"):
        write(tmp_path / "out", curve_change=CHANGE.drop(columns="change_low"))
    with pytest.raises(InputError, match="null_gap"):
        write(tmp_path / "out", reconstruction=ALONE.drop(columns="null_gap"))
    assert not (tmp_path / "out").exists()
