"""Screening in a report: who is accepted, beside how the screen treats real images, and what may be behind a gap."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from test_report import NOTHING, read

from equigen.errors import InputError
from equigen.quality.cells import ResamplingSettings
from equigen.quality.judge.questions import Target
from equigen.report import write_report
from equigen.report.study.screening import screening_section, screening_sentences
from equigen.synthesis.screening.rounds import Rule
from equigen.synthesis.screening.table import FieldVerdicts, screening_table

SEX = Target("attr.sex", ["fe<male", "male"])
N = 400


def table(generated, real=None):
    """Shares accepted of the women and of the men, exactly."""

    def side(shares, patients):
        frame = pd.DataFrame({"attr.sex": np.array(SEX.levels, object)[np.arange(N) % 2]})
        place = np.arange(N) // 2
        ok = np.where(np.arange(N) % 2 == 0, place < shares[0] * N / 2, place < shares[1] * N / 2).astype(float)
        return FieldVerdicts(frame, {"*": ok, "label.dx": ok}, patients)

    asked = side(generated, None)
    tries = np.where(asked.ok["*"] == 1, 1, 4)
    return screening_table(Rule([Target("label.dx", ["no", "yes"])]), asked, tries, tries == 4,
                           None if real is None else side(real, np.array([f"p{i}" for i in range(N)])), [SEX],
                           ResamplingSettings(replicates=200))  # fmt: skip


def said(*given):
    return [own for own in screening_sentences({"none": table(*given)}) if " by sex" in own.text]


@pytest.mark.parametrize(
    ("generated", "real", "tone", "words"),
    [
        ((1.0, 0.6), (1.0, 0.6), "caution", "treats real images of these groups unequally too: it refuses 0.400"),
        ((1.0, 0.6), (0.9, 0.9), "caution", "not shown to treat real images of these groups unequally; beyond its own"),
        ((1.0, 0.6), None, "caution", "causes this was not measured"),
        ((0.9, 0.9), (1.0, 0.6), "chance", "not distinguishable from chance"),
    ],
)
def test_a_gap_is_told_with_its_cause(generated, real, tone, words):
    (own,) = said(generated, real)
    assert own.tone == tone and words in own.text
    if tone == "caution":
        assert "lowest for male, 0.600" in own.text


def test_attributes_of_which_nothing_is_established_share_a_sentence():
    own = table((0.9, 0.9), (1.0, 0.6))
    more = [own[own["attribute"] == "sex"].assign(attribute=name) for name in ("race", "age")]
    unknown = own[own["attribute"] == "sex"].assign(attribute="site", estimate=np.nan, note="too few")
    _, alike, missing = screening_sentences({"none": pd.concat([own, *more, unknown])})
    assert alike.text == "none, share accepted at first: no gap by 3 attributes can be told from chance."
    assert alike.tone == "chance" and [part.split(":")[0] for part in alike.parts] == ["by sex", "by race", "by age"]
    assert all("not distinguishable from chance" in part for part in alike.parts)
    assert (missing.tone, missing.parts) == ("missing", ())
    assert missing.text == "none, share accepted at first: by site: too few."


def test_the_whole_set_comes_first_and_a_missing_side_is_said():
    first, *_, last = screening_sentences({"none": table((1.0, 0.5))})
    assert first.tone == "note" and "0.750 (0.705 to 0.790) of the images were accepted as first drawn" in first.text
    assert "1.75" in first.text and "0.250" in first.text
    assert last.tone == "missing" and "may be the screen's fault" in last.text


def test_a_field_that_is_guessed_is_a_caution():
    given = table((0.9, 0.9), (0.9, 0.9))
    place = (given.metric == "false_rejection") & (given.field == "label.dx") & (given.group == "*")
    given.loc[place, "note"] = "on real images the screen reads label.dx no better than chance: leave it out"
    found = [own for own in screening_sentences({"none": given}) if "no better than chance" in own.text]
    assert [own.tone for own in found] == ["caution"] and "real images, label.dx:" in found[0].text


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("report"), **NOTHING,
                        screening={"no<b>ne": table((1.0, 0.6), (1.0, 0.7)), "other": table((1, 1))})  # fmt: skip


def test_the_page_shows_both_sides_by_group(page):
    reader, raw = read(page), page.read_text()
    text = " ".join(" ".join(reader.text).split())
    assert "<b>" not in raw and "fe&lt;male" in raw
    drawn = [values["aria-label"] for tag, values in reader.tags if tag == "svg"]
    assert "generated, male: 0.400" in drawn[0] and "real, male: 0.300" in drawn[0]
    assert "Screening by all fields" in text and "Screening by label.dx" in text
    assert len(reader.ids) == len(set(reader.ids))
    data = json.loads((page.parent / "report.json").read_text())
    kept = pd.DataFrame(data["screening"]["other"]["rows"], columns=data["screening"]["other"]["columns"])
    assert kept["estimate"].dropna().tolist() == table((1, 1))["estimate"].dropna().tolist()


def test_without_screening_there_is_no_section(tmp_path):
    assert screening_section({}) is None and screening_sentences({}) == []
    text = write_report(tmp_path, **NOTHING).read_text()
    assert 'id="screening"' not in text


def test_a_table_without_a_column_is_refused(tmp_path):
    with pytest.raises(InputError, match="column 'count', a: column is missing"):
        write_report(tmp_path / "out", **NOTHING, screening={"a": table((1, 1)).drop(columns="count")})
    assert not (tmp_path / "out").exists()
