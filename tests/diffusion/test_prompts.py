"""Prompts of a cohort's rows: which texts there are, how often each is drawn, and which are too long."""

import warnings
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch

from equigen.cohort import Cohort
from equigen.diffusion.prompts import PromptConditions, warn_of_long_prompts
from equigen.errors import InputError

NEVER = torch.Generator()  # draws are made of (seed, images seen) alone
FRAME = {
    "row": [2, 3, 4, 5],
    "attr.sex": ["female", "male", None, "female"],
    "attr.race": ["black", "black", "white", "black"],
    "label.glaucoma": ["glaucoma", "no glaucoma", "glaucoma", "glaucoma"],
}


@pytest.fixture(scope="module")
def phantoms(phantom_folder):
    return Cohort.read(phantom_folder / "cohort.yaml", show_progress=False)


@pytest.fixture
def conditions(phantoms):
    """conditions(prompt, frame, **settings): of a small table written by hand."""

    def make(prompt, frame=FRAME, **settings):
        spec = phantoms.spec.model_validate({**phantoms.spec.model_dump(), "prompt": prompt})
        table = pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in frame.items()})
        return PromptConditions(replace(phantoms, spec=spec, frame=table.astype({"row": int})), **settings)

    return make


def drawn(made, rows, seed=0, seen=0):
    return [made.texts[number] for number in made.draw(torch.tensor(rows), seed, seen, NEVER)[:, 0].tolist()]


def plain(made, rows):
    return [made.texts[number] for number in made.complete(torch.tensor(rows))[:, 0].tolist()]


def test_plain_prompts_are_the_cohorts_own(phantoms):
    made = PromptConditions(phantoms)
    rows = phantoms.frame.to_dict("records")
    assert plain(made, list(range(len(made)))) == [phantoms.prompt(row) for row in rows]
    assert len(made) == len(phantoms) and made.texts[0] == "" and len(set(made.texts)) == len(made.texts)


def test_all_texts_that_dropping_can_give(conditions):
    made = conditions("{sex} [and {race}]")
    two = {("female", "black"), ("male", "black"), (None, "white")}
    subsets = {pair for sex, race in two for pair in product((sex, None), (race, None))}
    expected = {f"{sex or 'unknown'}{f' and {race}' if race else ''}" for sex, race in subsets}
    assert made.texts == ["", *sorted(expected)] and len(expected) == 7
    assert conditions("{sex} [and {race}]", drop_one=0).texts == [
        "", "female and black", "male and black", "unknown and white",
    ]  # fmt: skip


def test_texts_do_not_depend_on_the_order_of_rows(conditions):
    turned = {name: cells[::-1] for name, cells in FRAME.items()}
    doubled = {name: cells * 2 for name, cells in FRAME.items()}
    templates = ["{sex}, {glaucoma}", "{glaucoma} [in a {race} person]"]
    first = conditions(templates)
    assert first.texts == conditions(templates, turned).texts == conditions(templates, doubled).texts


def test_what_is_drawn_depends_on_seed_and_images_seen_alone(conditions):
    made, rows = conditions(["{sex}, {race}", "{race} [{sex}]"], drop_all=0.3, drop_one=0.3), [0, 1, 2, 3] * 8
    before = torch.get_rng_state()
    first = drawn(made, rows, seed=1, seen=64)
    drawn(made, rows, seed=1, seen=96)
    assert drawn(made, rows, seed=1, seen=64) == first != drawn(made, rows, seed=1, seen=96)
    assert first != drawn(made, rows, seed=2, seen=64) and torch.equal(torch.get_rng_state(), before)
    assert made.draw(torch.tensor(rows), 1, 64, NEVER).shape == (32, 1)


def test_how_often(conditions):
    """Chances are those asked for, and independent: of 40 000 draws a share lies within 4 deviations of its chance."""
    made = conditions(["{sex}, {race}", "{race} [and {sex}]", "just {glaucoma}"], drop_all=0.2, drop_one=0.3)
    texts = [text for seen in range(40) for text in drawn(made, [0] * 1000, seed=3, seen=1000 * seen)]
    expected = {"": 0.2}
    for sex, race in product(("female", None), ("black", None)):
        chance = 0.8 / 3 * (0.7 if sex else 0.3) * (0.7 if race else 0.3)
        for text in (f"{sex or 'unknown'}, {race or 'unknown'}", f"{race or 'unknown'}{f' and {sex}' if sex else ''}"):
            expected[text] = chance
    expected |= {"just glaucoma": 0.8 / 3 * 0.7, "just unknown": 0.8 / 3 * 0.3}
    assert set(texts) == set(expected) and sum(expected.values()) == pytest.approx(1)
    for text, chance in expected.items():
        assert abs(texts.count(text) / 40_000 - chance) < 4 * np.sqrt(chance * (1 - chance) / 40_000), text


def test_certain_chances(conditions):
    rows = [0, 1, 2, 3] * 5
    assert set(drawn(conditions("{sex}", drop_all=1), rows)) == {""}
    assert set(drawn(conditions("{sex}", drop_all=0, drop_one=1), rows)) == {"unknown"}
    made = conditions("{sex}, {race}", drop_all=0, drop_one=0)
    assert drawn(made, rows) == plain(made, rows)


def test_unknown_values(conditions):
    made = conditions(["{sex} person [of {race} skin]"])
    assert plain(made, [2]) == ["unknown person of white skin"]


def test_a_part_of_the_rows(conditions):
    made = conditions("{sex}, {race}", drop_all=0.5)
    part = made.take(np.array([False, True, False, True]))
    assert len(part) == 2 and part.texts is made.texts and part.rows.tolist() == [3, 5]
    assert plain(part, [0, 1]) == plain(made, [1, 3]) and len(made) == 4
    assert drawn(part, [1] * 64, 5, 6) == drawn(made, [3] * 64, 5, 6)


def test_findings(conditions):
    made = conditions("{glaucoma}", {**FRAME, "label.glaucoma": ["a|b", "", None, "a"]}, drop_one=0)
    assert plain(made, [0, 1, 2, 3]) == ["a, b", "no finding", "unknown", "a"]


def test_a_template_without_names(conditions):
    made = conditions("an image")
    assert made.texts == ["", "an image"] and plain(made, [0, 3]) == ["an image"] * 2
    assert set(drawn(made, [0] * 200)) == {"", "an image"}


def test_captions(conditions):
    frame = {**FRAME, "prompt": ["a spot", None, "a|b", "a spot"]}
    made = conditions({"column": "caption"}, frame, drop_all=0.5, drop_one=0.5)
    assert made.texts == ["", "a spot", "a|b"] and plain(made, [0, 1, 2, 3]) == ["a spot", "", "a|b", "a spot"]
    assert set(drawn(made, [0] * 100)) == {"", "a spot"} and set(drawn(made, [1] * 20)) == {""}


def test_a_cohort_without_prompts(conditions):
    with pytest.raises(InputError, match="no 'prompt'"):
        conditions(None)


@pytest.mark.parametrize("chances", [{"drop_all": 1.1}, {"drop_one": -0.1}, {"drop_all": float("nan")}])
def test_chances_beyond_0_to_1(conditions, chances):
    with pytest.raises(InputError, match=f"{next(iter(chances))} is"):
        conditions("{sex}", **chances)


def test_too_many_prompts_are_refused_before_they_are_made(conditions):
    """Rows that share no word leave seven prompts each when any of three names may be dropped, and one for all."""
    many = {"row": list(range(2, 2002)), **{
        f"{kind}": [f"{kind} {index * step % 2000}" for index in range(2000)]
        for kind, step in (("attr.sex", 1), ("attr.race", 7), ("label.glaucoma", 11))
    }}  # fmt: skip
    assert len(conditions("{sex} {race} {glaucoma}", many, drop_one=0).texts) == 2001
    with pytest.raises(InputError, match="more than 5,000") as caught:
        conditions("{sex} {race} {glaucoma}", many, limit=5_000)
    assert "drop_one" in caught.value.problems[0].mend
    assert len(conditions("{sex} {race} {glaucoma}", many).texts) == 1 + 7 * 2000 + 1


def excess(texts):
    """Stands in for a text encoder that reads twelve letters."""
    return [max(0, len(text) - 12) for text in texts]


def test_long_prompts_are_told_once_with_the_row(conditions):
    made = conditions("{race}, {glaucoma}")
    with pytest.warns(UserWarning) as caught:
        long = warn_of_long_prompts(made, excess)
    assert len(caught) == 1
    assert [made.texts[number] for number in long] == [text for text in made.texts if len(text) > 12]
    told = str(caught[0].message)
    assert told.startswith(f"{len(long)} of {len(made.texts)} prompts are longer")
    first = "row 2, 3 tokens over: 'black, glaucoma'; row 3, 6 tokens over: 'black, no glaucoma'; row 4, 3 tokens"
    assert first in told and f", and {len(long) - 3} more" in told and "Shorten 'prompt'" in told


def test_a_prompt_that_is_long_only_when_dropped(conditions):
    made = conditions("{sex} {race}", {**FRAME, "attr.sex": ["f"] * 4, "attr.race": ["b"] * 4})
    with pytest.warns(UserWarning, match="with a name left out, 3 tokens over: 'unknown unknown'"):
        assert [made.texts[number] for number in warn_of_long_prompts(made, excess)] == ["unknown unknown"]


def test_short_prompts_are_not_warned_of(conditions):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert warn_of_long_prompts(conditions("{sex}"), excess) == []
