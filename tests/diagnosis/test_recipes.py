"""Names of recipes, and the exact share of each source at any time."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from equigen.diagnosis.recipes import Stream, parse_recipe, recipe_names
from equigen.errors import InputError


def test_names():
    assert parse_recipe("real", []).shares == {"real": 1}
    assert parse_recipe("real+fair@0.5", ["fair"]).shares == {"real": Fraction(2, 3), "fair": Fraction(1, 3)}
    assert parse_recipe("synthetic", ["synthetic"]).shares == {"synthetic": 1}
    assert parse_recipe("synthetic:fair", ["fair"]).shares == {"fair": 1}
    assert recipe_names([0, 1, 0.5], ["a", "b"]) == [
        "real",
        "real+a@1",
        "real+a@0.5",
        "real+b@1",
        "real+b@0.5",
    ]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("real+synthetic", "is not known"),
        ("reel", "recipes are: real;"),
        ("real+fair@0", "for ratio 0 write 'real'"),
        ("real+other@1", "synthetic sets are: fair"),
        ("real+fair@-1", "is not known"),
    ],
)
def test_names_that_mean_nothing(name, says):
    with pytest.raises(InputError, match=says):
        parse_recipe(name, ["fair"])


@pytest.mark.parametrize("ratio", ["0.25", "0.5", "1", "2", "5"])
def test_share_is_exact_at_any_time(ratio):
    recipe = parse_recipe(f"real+fair@{ratio}", ["fair"])
    stream, shown = Stream(recipe, {"real": 50, "fair": 7}, 10, 0), 0
    for step in range(60):
        rows = stream.step(step)
        assert len(rows["real"]) + len(rows["fair"]) == 10
        shown += len(rows["fair"])
        assert shown == int(Fraction(ratio) / (1 + Fraction(ratio)) * 10 * (step + 1))
    assert shown == pytest.approx(600 * float(ratio) / (1 + float(ratio)), abs=1)


def test_every_image_once_an_epoch_in_a_new_order():
    stream = Stream(parse_recipe("real", []), {"real": 30}, 10, 0)
    epochs = [np.concatenate([stream.step(step)["real"] for step in range(3 * e, 3 * e + 3)]) for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(30)) and not np.array_equal(*epochs)


def test_a_step_does_not_depend_on_those_before():
    recipe = parse_recipe("real+fair@2", ["fair"])
    walked, fresh = (Stream(recipe, {"real": 9, "fair": 5}, 8, 3) for _ in range(2))
    for step in range(20):
        walked.step(step)
    for source, rows in fresh.step(19).items():
        assert np.array_equal(rows, walked.step(19)[source])
    assert not np.array_equal(Stream(recipe, {"real": 9, "fair": 5}, 8, 4).step(19)["real"], fresh.step(19)["real"])


def test_real_images_come_in_the_same_order_in_every_arm():
    alone = Stream(parse_recipe("real", []), {"real": 40}, 10, 0)
    mixed = Stream(parse_recipe("real+fair@1", ["fair"]), {"real": 40, "fair": 40}, 10, 0)
    assert np.array_equal(np.concatenate([mixed.step(0)["real"], mixed.step(1)["real"]]), alone.step(0)["real"])
