"""The page of counterfactual pairs: it stands alone, escapes what tables say, and says no more than they support."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from report_rows import NAN
from test_report import read

from equigen.errors import InputError
from equigen.report.pairs.findings import merged_prompt, pairs_sentences
from equigen.report.pairs.page import write_pairs_page

EVIL = "<b>&\"woman'"
LEVELS = [EVIL, "man"]


@dataclass(frozen=True)
class Pairs:
    """Stands in for ``equigen.synthesis.PairComparison``."""

    metrics: pd.DataFrame
    image_table: pd.DataFrame
    pixels: Any
    attribute: str = "sex"
    levels: tuple = tuple(LEVELS)
    warnings: tuple = ("guidance differs within 2 pairs <i>",)
    methods: tuple = ("features of colour#123",)

    def images(self, count):
        return self.pixels[:count]


def entry(metric, field, group, estimate, half=0.05, reference=NAN, ratio=NAN, n=40, note="", to="other seeds"):
    return {
        "metric": metric, "field": field, "attribute": "sex", "group": group, "n": n, "estimate": estimate,
        "ci_low": estimate - half, "ci_high": estimate + half, "reference_to": "" if np.isnan(reference) else to,
        "reference": reference, "reference_low": reference - 0.02, "reference_high": reference + 0.02,
        "ratio": ratio, "ratio_low": ratio - 0.1, "ratio_high": ratio + 0.1, "note": note,
    }  # fmt: skip


def pair_metrics(flip=0.1, flip_half=0.05):
    return pd.DataFrame([
        entry("pixel_difference", "", "*", 5.0, 1, 20.0, 0.25), entry("feature_distance", "", "*", 1.5, 0.1, 3.0, 0.5),
        entry("read_as_asked", "attr.sex", "*", 0.8, reference=0.9, to="real images"),
        entry("read_as_asked", "attr.sex", EVIL, 0.9, reference=0.91, to="real images"),
        entry("read_as_asked", "attr.sex", "man", 0.7, reference=0.89, to="real images"),
        entry("read_as_asked", "label.dx", "*", 0.85), entry("read_as_asked", "label.dx", "man", NAN, n=3,
                                                            note="too small: 3 pairs"),
        entry("flip", "label.dx", "*", flip, flip_half, 0.1, flip / 0.1),
    ])  # fmt: skip


def image_table(count=30):
    rows = [
        {"pair": pair, "level": level, "image": "a.png", "prompt": f"An eye of a {level}, <script>ill</script>",
         "seed": pair, "pixel_difference": 5.25, "feature_distance": 1.5,
         "read.attr.sex": level if pair else "man", "p.attr.sex": 0.9,
         "read.label.dx": ["ill", "ill" if pair else "healthy"][index], "p.label.dx": 0.8}
        for pair in range(count) for index, level in enumerate(LEVELS)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def pixels(count=30):
    """Each pair and level has a colour of its own."""
    images = np.zeros((count, 2, 16, 16, 3), np.uint8)
    images[..., 0] = (np.arange(count) * 8)[:, None, None, None]
    images[..., 1] = np.array([40, 200])[None, :, None, None]
    return images


PAIRS = Pairs(pair_metrics(), image_table(), pixels())


def write(folder, pairs=PAIRS, **rest):
    options = {"title": "Pairs <b>by sex", "facts": {"Cohort": "phantoms & co"}, "phantom": True,
               "versions": {"equigen": "0.1.0"}, "settings": {"seed": 0}} | rest  # fmt: skip
    return write_pairs_page(folder, pairs, **options)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write(tmp_path_factory.mktemp("pairs"))


def text_of(page):
    return " ".join(" ".join(read(page).text).split())


def test_the_page_stands_alone_and_lets_no_text_become_markup(page):
    reader, text = read(page), page.read_text()
    assert {link.split(":")[0] if link.startswith("data:") else link[0] for link in reader.links} == {"#", "data"}
    assert not re.findall(r"https?://|@import|url\((?!#)|<script", text)
    assert "<b>" not in text and "<i>" not in text
    assert "&lt;script&gt;ill&lt;/script&gt;" in text and "Pairs &lt;b&gt;by sex" in text
    assert len(reader.ids) == len(set(reader.ids)) and {link[1:] for link in reader.links if link[0] == "#"} <= set(
        reader.ids)  # fmt: skip
    assert "not about patients" in text
    assert not re.findall(r"(?<![\w])(nan|NaN|inf|None|<NA>)(?![\w])", " ".join(reader.text))


def test_every_row_holds_all_levels_of_one_pair_with_its_prompt(page):
    images = [values for tag, values in read(page).tags if tag == "img"]
    assert len(images) == 2 * 24  # the first 24 pairs of 30
    for index, values in enumerate(images):
        pair, level = divmod(index, 2)
        image = np.asarray(Image.open(io.BytesIO(base64.b64decode(values["src"].split(",")[1]))))
        assert image.shape == (96, 96, 3) and (image == [8 * pair, [40, 200][level], 0]).all()
        assert values["alt"].startswith(f"Pair {pair}: An eye of a [{EVIL}, / man,] <script>ill</script>; ")
        assert f", {LEVELS[level]}. sex: reads" in values["alt"]
    text = text_of(page)
    assert "The first 24 pairs of the plan, in its order, not chosen." in text
    assert "pixels differ by 5.25, features by 1.50" in text


def test_what_is_read_otherwise_than_asked_is_marked_below_the_image(page):
    text = text_of(page)
    assert text.count("not as asked") == 1
    assert "sex: reads man (0.90), not as asked; dx: reads ill (0.80), differs" in text
    assert text.count("(0.80), differs") == 2  # both images of pair 0


def test_findings_say_what_changes_and_what_else(page):
    text = text_of(page)
    assert "feature distance: 0.500 (0.400 to 0.600), 1.50 (1.40 to 1.60) within pairs, 3.00 (2.98 to 3.02)" in text
    assert "sex is read as asked less often than in real images for man:" in text
    assert "man: 0.700 (0.650 to 0.750); of real images 0.890 (0.870 to 0.910)" in text
    assert "Changing sex changes what is read as dx in 0.100 (0.050 to 0.150) of pairs" in text
    assert "too small: 3 pairs" in text and "guidance differs within 2 pairs" in text


@pytest.mark.parametrize(
    ("flip", "tone", "text"),
    [(0.4, "caution", "more than noise and the classifier's errors explain"), (0.01, "finding", "changing the seed"),
     (0.1, "chance", "cannot be told apart")],
)  # fmt: skip
def test_a_flip_is_held_against_other_seeds(flip, tone, text):
    (sentence,) = [sentence for sentence in pairs_sentences(pair_metrics(flip, 0.04), "sex")
                   if sentence.topic == "Does anything else change?"]  # fmt: skip
    assert sentence.tone == tone and text in sentence.text


def test_what_was_not_measured_is_said(tmp_path):
    columns = ["pair", "level", "prompt", "pixel_difference", "feature_distance"]
    pairs = Pairs(pd.DataFrame([entry("pixel_difference", "", "*", NAN, n=3, note="too small: 3 pairs"),
                                entry("feature_distance", "", "*", NAN, n=3, note="too small: 3 pairs")]),
                  image_table(3)[columns], pixels(3))  # fmt: skip
    page = write(tmp_path, pairs)
    text = text_of(page)
    assert "How much sex changes was not measured: too small: 3 pairs." in text
    assert "Whether sex shows as asked was not measured: no classifier read it." in text
    assert "Whether other fields are read otherwise was not measured." in text
    assert "No classifier read the images." in text and "No distance was measured" in text
    assert sum(tag == "img" for tag, _ in read(page).tags) == 6  # the images are shown all the same


def test_the_json_holds_the_tables_and_the_same_words(page):
    data = json.loads((page.parent / "report.json").read_text())
    table = pd.DataFrame(data["measured"]["rows"], columns=data["measured"]["columns"])
    assert table["estimate"].tolist()[:2] == [5.0, 1.5] and len(data["pairs"]["rows"]) == 60
    sentences = pairs_sentences(pair_metrics(), "sex")
    assert [sentence["text"] for sentence in data["in_short"]] == [sentence.text for sentence in sentences]
    assert (data["attribute"], data["levels"], data["shown"]) == ("sex", LEVELS, [24, 2, 16, 16, 3])


def test_the_same_pairs_give_the_same_bytes(page, tmp_path):
    second = write(tmp_path)
    for name in ("index.html", "report.json"):
        assert (second.parent / name).read_bytes() == (page.parent / name).read_bytes()


def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path):
    cases = [(replace(PAIRS, metrics=pair_metrics().drop(columns="ratio")), "column 'ratio'"),
             (replace(PAIRS, image_table=image_table().drop(columns="prompt")), "column 'prompt'"),
             (replace(PAIRS, pixels=pixels()[:, :1]), r"images are uint8 \[24, 1, 16, 16, 3\]"),
             (replace(PAIRS, image_table=image_table(10)), "the table has 20 rows")]  # fmt: skip
    for broken, message in cases:
        with pytest.raises(InputError, match=message):
            write(tmp_path / "out", broken)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("prompts", "merged"),
    [
        (["eye of a man", "eye of a woman"], "eye of a [man / woman]"),
        (["a man", "a man"], "a man"),
        (["young man here", "man here"], "[young / ] man here"),
        (["a b a", "a b b a"], "a b [ / b] a"),
        (["x y", "z w", "q"], "[x y / z w / q]"),
        ([None, "a"], ""),
    ],
)
def test_prompts_of_a_pair_are_merged(prompts, merged):
    assert merged_prompt(prompts) == merged
