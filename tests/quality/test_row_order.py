"""The order of the rows of a table is no property of the images: no figure may depend on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from quality_images import ColourEncoder, make_images

from equigen.quality import ImageSet, evaluate

FAST = {"replicates": 20, "repeats": 2, "show": False, "min_patients": 8, "matched_n": 9, "seed": 3}


def shuffled(images: ImageSet, seed: int) -> ImageSet:
    return images.take(np.random.default_rng(seed).permutation(len(images)))


def unnamed(images: ImageSet) -> ImageSet:
    return replace(images, frame=images.frame.drop(columns="patient"))


def tables(real: ImageSet, first: ImageSet, second: ImageSet, train: ImageSet):
    return evaluate(real, {"first": first, "second": second}, train=train, encoder=ColourEncoder(), **FAST)


@pytest.mark.parametrize("named", ["patients named", "images stand for themselves"])
def test_every_metric_is_the_same_to_the_bit_whatever_the_order_of_the_rows(named):
    sides = [make_images(48, seed, per_patient=1) for seed in range(4)]
    sides[1:3] = [unnamed(side) for side in sides[1:3]]
    if named != "patients named":
        sides[0] = unnamed(sides[0])
    before = tables(*sides)
    assert before.quality.p_value.notna().any()
    after = tables(*(shuffled(side, 1 + place) for place, side in enumerate(sides)))
    pd.testing.assert_frame_equal(before.quality, after.quality, check_exact=True)
    pd.testing.assert_frame_equal(before.differences, after.differences, check_exact=True)


def test_the_closest_pairs_are_named_by_the_row_that_the_user_gave():
    real, made, train = (make_images(40, seed) for seed in range(3))
    made = unnamed(made)
    made.pixels[7] = train.pixels[21]
    copies = tables(real, made, unnamed(make_images(40, 9)), train).copies
    closest = copies[copies.run == "first"].iloc[0]
    assert (closest["generated"], closest["training"], closest["distance"]) == ("row 8", "row 22", 0)
