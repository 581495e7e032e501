"""Prompt templates: names, parts that may be left out, paraphrases, and prompts from a column."""

import pytest

from equigen.cohort import Cohort
from equigen.cohort.prompts import Template, prompt_templates

WORDS = {"sex": "female", "age": "old", "dx": "melanoma"}


def without(*names):
    return {**WORDS, **dict.fromkeys(names)}


@pytest.mark.parametrize(
    ("text", "whole", "no_age"),
    [
        ("A {sex} patient aged {age}", "A female patient aged old", "A female patient aged unknown"),
        ("A {sex} patient [aged {age}] with {dx}", "A female patient aged old with melanoma",
         "A female patient with melanoma"),
        ("A patient [aged {age}], {dx}", "A patient aged old, melanoma", "A patient, melanoma"),
        ("A patient[, aged {age}], {dx}", "A patient, aged old, melanoma", "A patient, melanoma"),
        ("[{age},] {sex}", "old, female", "female"),
        ("{dx} [in the {age}]", "melanoma in the old", "melanoma"),
        ("{sex}[ ({age}[, {dx}])]", "female (old, melanoma)", "female"),
        ("[left eye] of {sex}", "[left eye] of female", "[left eye] of female"),
        ("{{x}} a  b [{age}] [c]", "{x} a  b old [c]", "{x} a b [c]"),
        ("] {sex} [", "] female [", "] female ["),
        ("[aged {age} of {sex}]", "aged old of female", ""),
    ],
)  # fmt: skip
def test_filling_in(text, whole, no_age):
    assert Template(text).fill(WORDS) == whole and Template(text).fill(without("age")) == no_age


def test_an_inner_part_goes_alone():
    template = Template("{sex}[, aged {age}[ and with {dx}]].")
    assert template.names == ("sex", "age", "dx")
    assert template.fill(without("dx")) == "female, aged old."
    assert template.fill(without("age")) == "female." and template.fill(without("sex", "age")) == "unknown."


def test_words_are_not_templates():
    assert Template("A {sex} [with {dx}]").fill({"sex": "{dx}", "dx": "[x]"}) == "A {dx} with [x]"


def test_a_bracket_that_is_not_closed(tree):
    with pytest.raises(ValueError, match=r"before '\{age\}' is not closed"):
        Template("A {sex} [aged {age}")
    tree.spec["prompt"] = "A {sex} [aged {age}"
    problem = tree.fill().refused().problems[0]
    assert "the bracket before '{age}' is not closed" in problem.message and problem.mend == "add a ']'"


def test_paraphrases(tree):
    tree.spec["prompt"] = ["A {sex} patient", "{dx} of somebody [{age}]"]
    cohort = tree.fill().read()
    assert cohort.prompt({"sex": "male"}) == "A male patient"
    assert [wording.text for wording in prompt_templates(cohort.spec.prompt)] == tree.spec["prompt"]


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        (["A {sex}", "{sexx}"], "prompt uses the unknown name {sexx}"),
        ([], "holds no text"),
        ({"colum": "caption"}, "write prompt: {column: caption}"),
        ([["A"]], "holds no text"),
        ([None], "is no text"),
        ({"column": None}, "is no text"),
    ],
)
def test_prompts_that_are_none(tree, prompt, told):
    tree.spec["prompt"] = prompt
    assert told in str(tree.fill().refused())


def captions(tree):
    tree.spec["prompt"] = {"column": "caption"}
    tree.header.append("caption")
    for index, caption in enumerate([" a dark spot ", "unknown", "", "3.0 mm | flat"]):
        tree.add(f"p{index}", caption=caption)
    return tree


def test_prompts_from_a_column(tree, tmp_path):
    cohort = captions(tree).read()
    expected = ["a dark spot", None, None, "3.0 mm | flat"]
    assert cohort.frame["prompt"].tolist() == expected
    assert [cohort.prompt(row) for row in cohort.frame.to_dict("records")] == expected
    again = Cohort.load(cohort.save(tmp_path / "saved"))
    assert again.frame["prompt"].tolist() == expected and again.hash == cohort.hash
    assert cohort.prompt({"sex": "male"}) is None


def test_the_column_must_be_there(tree):
    tree.spec["prompt"] = {"column": "captoin"}
    assert "captoin" in str(tree.fill().refused())


def test_cohorts_without_captions_have_no_such_column(tree):
    assert "prompt" not in tree.fill().read().frame.columns
