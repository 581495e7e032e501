"""Settings: nested keys, errors that name file and key, overrides of single fields."""

from typing import Annotated

import pytest
from pydantic import AfterValidator, BaseModel, Field, model_validator

from equigen.config import (
    LevelLists,
    StrictModel,
    check_keys,
    parse_override,
    parse_scalars,
    set_key,
    settings_key,
    update_settings,
)
from equigen.errors import InputError, Problem


def even(value: int) -> int:
    if value % 2:
        raise ValueError(f"{value} is odd; give an even number")
    return value


class Plan(StrictModel):
    size: int = Field(10, ge=1)
    seed: Annotated[int, AfterValidator(even)] = 0


class Study(StrictModel):
    name: str
    plans: dict[str, Plan] = Field(default_factory=dict)
    only: LevelLists = Field(default_factory=dict)
    both: bool = False

    @model_validator(mode="after")
    def _check(self) -> "Study":
        if self.both and not self.plans:
            raise ValueError("both needs plans")
        return self


def problems(values, model: type[BaseModel] = Study, prefix="") -> list[str]:
    with pytest.raises(InputError) as caught:
        check_keys(model, values, "s.yaml", "Errors.", prefix)
    assert all(problem.file == "s.yaml" for problem in caught.value.problems)
    return [f"{problem.message} ({problem.mend})" for problem in caught.value.problems]


def test_levels_are_lists_of_text():
    for value in (("nv",), {"nv"}, ["nv"], "nv"):
        assert Study(name="a", only={"dx": value}).only == {"dx": ["nv"]}
    assert (
        Study(name="a", only={"grade": [1, "2"]}).only == {"grade": ["1", "2"]}
        and Study(name="a", only=None).only == {}
    )
    assert parse_scalars({"only": {"grade": "1", "x": "yes"}, "n": "1"}) == {"only": {"grade": "1", "x": "yes"}, "n": 1}
    assert parse_override("evaluate.only.grade", "yes") == "yes"


def test_settings_are_built_and_single_levels_become_lists():
    study = check_keys(Study, {"name": "a", "plans": {"p": {"size": "3"}}, "only": {"dx": "nv"}}, None, "Errors.")
    assert study.plans["p"].size == 3 and study.only == {"dx": ["nv"]}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, ["name: the key is missing (add 'name')"]),
        ({"name": "a", "plan": {}}, ["plan: unknown key (did you mean 'plans'?)"]),
        ({"name": "a", "plans": {"p": {"sise": 1}}}, ["plans.p.sise: unknown key (did you mean 'size'?)"]),
        ({"name": "a", "plans": {"p": {"seed": 3}}}, ["plans.p.seed: 3 is odd (give an even number)"]),
        ({"name": "a", "both": True}, ["both needs plans (mend this setting)"]),
        (
            {"name": "a", "plans": {"p": {"size": 0}}},
            ["plans.p.size: Input should be greater than or equal to 1, not 0 (mend 'plans.p.size')"],
        ),
    ],
)
def test_every_problem_names_its_key_and_a_hint(values, expected):
    assert problems(values) == expected


def test_all_problems_are_told_at_once_after_their_prefix():
    found = problems({"size": 0, "seed": 1, "x": 2}, Plan, "train")
    assert [text.partition(":")[0] for text in found] == ["train.size", "train.seed", "train.x"]


def test_single_fields_are_changed_and_others_stay():
    plan = Plan(size=4, seed=2)
    assert update_settings(plan, {"seed": 6}, "Errors.") == Plan(size=4, seed=6)
    assert update_settings(plan, {}, "Errors.") is plan
    with pytest.raises(InputError, match=r"sede: unknown key .did you mean 'seed'"):
        update_settings(plan, {"sede": 6}, "Errors.")


def test_nested_keys_are_set_and_a_value_has_no_keys():
    values = {"train": {"images": 5}, "seeds": [0]}
    set_key(values, ["train", "images"], 7, "s.yaml")
    set_key(values, ["plans", "p", "size"], 3, "s.yaml")
    assert values == {"train": {"images": 7}, "seeds": [0], "plans": {"p": {"size": 3}}}
    with pytest.raises(InputError, match=r"'seeds\.x' cannot be set: 'seeds' is \[0\], which has no keys"):
        set_key(values, ["seeds", "x"], 1, "s.yaml")


def test_a_block_adds_its_key_and_file_to_the_problems_within():
    with pytest.raises(InputError) as caught, settings_key("evaluate.encoder", "s.yaml"):
        raise InputError("No.", [Problem("there is none", "choose another", row=3)])
    assert caught.value.problems == [Problem("evaluate.encoder: there is none", "choose another", row=3, file="s.yaml")]
