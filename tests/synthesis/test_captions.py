"""Plans of cohorts whose prompts are a column: captions of images alike, dealt out evenly, by the seed alone."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_plan import SPEC, TRAIN, cohort_of

from equigen.cohort import parse_spec
from equigen.errors import InputError
from equigen.synthesis import match_plan, plan

CELL = ["label.dx", "attr.sex", "attr.eye"]
# each training row has a caption of its own, but the last healthy man's left eye; test rows have others
CAPTIONS = [None if number == 5 else f"caption {number}" for number in range(len(TRAIN))]


def told(captions=CAPTIONS, rows=TRAIN):
    cohort = cohort_of(rows, test=[("ill", "male", "right")] * 3)
    frame = cohort.frame.assign(prompt=pd.Series([*captions, *["of a test image"] * 3], dtype=object))
    return replace(cohort, frame=frame, spec=parse_spec({**SPEC, "prompt": {"column": "caption"}}, "hand"))


def cells(rows):
    return [tuple(None if pd.isna(value) else value for value in row) for row in rows[CELL].itertuples(index=False)]


OWN = {caption: row for caption, row in zip(CAPTIONS, TRAIN, strict=True) if caption is not None}


def test_each_row_takes_the_caption_of_a_training_image_of_its_cell():
    rows = plan(told(), "match", 24, seed=4)
    assert [OWN[prompt] for prompt in rows["prompt"]] == cells(rows)
    used = Counter(rows["prompt"])
    # 24 rows are each training image twice: the captions twice, and of the two healthy men's left eyes one alone
    assert used == Counter({caption: 4 if caption == "caption 4" else 2 for caption in OWN})


def test_the_draw_follows_the_seed_and_not_the_order_of_the_table():
    order = np.random.default_rng(0).permutation(len(TRAIN))
    mixed = told([CAPTIONS[place] for place in order], [TRAIN[place] for place in order])
    rows, again, other = (plan(cohort, "match", 9, seed=seed) for cohort, seed in
                          ((told(), 3), (told(), 3), (told(), 8)))  # fmt: skip
    pd.testing.assert_frame_equal(rows, again)
    assert list(rows["prompt"]) != list(other["prompt"])
    by_cell = [
        {cell: sorted(prompt for key, prompt in zip(cells(made), made["prompt"], strict=True) if key == cell)
         for cell in cells(made)}
        for made in (plan(told(), "match", 12, seed=3), plan(mixed, "match", 12, seed=3))
    ]  # fmt: skip
    assert by_cell[0] == by_cell[1]


def test_a_cell_without_a_caption_is_named():
    with pytest.raises(InputError) as caught:
        plan(told(), "balanced", 40)
    text = str(caught.value)
    assert "no training image with label.dx = ill, attr.sex = male, attr.eye = left has a caption" in text
    assert "label.dx = ill, attr.sex = female, attr.eye = left has a caption" in text
    assert "label.dx = healthy, attr.sex = female" not in text
    assert len(caught.value.problems) == 4  # no ill left eye of either sex, no man's right eye of either diagnosis
    lost = [None if row[1] is None else caption for caption, row in zip(CAPTIONS, TRAIN, strict=True)]
    with pytest.raises(InputError, match=r"label\.dx = healthy, attr\.sex unknown, attr\.eye = left has a caption"):
        plan(told(lost), "match", 24)


def test_generators_that_read_no_prompts_need_none():
    rows = plan(told(), "balanced", 40, captions=False)
    assert rows["prompt"].isna().all() and len(rows) == 40
    pd.testing.assert_frame_equal(rows[CELL], plan(cohort_of(TRAIN), "balanced", 40)[CELL])
    assert len(plan(told(), "counterfactual", 4, attribute="sex", captions=False)) == 4


def test_a_caption_cannot_be_changed_in_one_attribute():
    with pytest.raises(InputError, match=r"prompts are the column 'caption', in which no attribute can be changed"):
        plan(told(), "counterfactual", 4, attribute="sex")


def test_held_out_images_give_their_own_captions():
    rows = match_plan(told().split("test"), 4)
    assert list(rows["prompt"]) == ["of a test image"] * 4
    assert match_plan(told([None] * len(TRAIN)).split("train"), 4)["prompt"].isna().all()


def test_what_the_sampler_is_to_do_stands_in_every_row_that_asks_for_it():
    bare = plan(cohort_of(TRAIN), "match", 3)
    assert not {"solver", "negative", "guidance_low", "guidance_high"} & set(bare.columns)
    rows = plan(cohort_of(TRAIN), "match", 3, solver="ddim", negative="blurred", guidance_high=0.75)
    assert set(rows["solver"]) == {"ddim"} and set(rows["negative"]) == {"blurred"}
    assert set(rows["guidance_high"]) == {0.75} and "guidance_low" not in rows
    pd.testing.assert_frame_equal(rows[bare.columns], bare)
