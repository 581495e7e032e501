"""What changes within counterfactual pairs: numbers by hand, on pairs whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from equigen.quality.cells import ResamplingSettings
from equigen.quality.counterfactual_pairs import (
    COLUMNS,
    NEIGHBOURS,
    FieldPrediction,
    PairMetrics,
    ReferenceShare,
    feature_distance,
    flip_rates,
    neighbour_pairs,
    pair_distances,
    pixel_difference,
)
from equigen.quality.judge.questions import Target

DX = Target("label.dx", ["healthy", "ill"])
SETTINGS = ResamplingSettings(replicates=200, seed=0, min_patients=30)


def rng(seed=0):
    return np.random.default_rng(seed)


def row(table, metric, group="*", field=""):
    (found,) = table[(table.metric == metric) & (table.group == group) & (table.field == field)].to_dict("records")
    return found


# Other pairs


@pytest.mark.parametrize("count", [6, 40])
def test_each_pair_is_compared_as_often_as_it_compares(count):
    found = neighbour_pairs(np.zeros(count, np.int64), rng())
    assert found.shape == (count, NEIGHBOURS)
    assert (np.sort(np.bincount(found.ravel(), minlength=count)) == NEIGHBOURS).all()
    for pair, others in enumerate(found):
        assert pair not in others and len(set(others)) == NEIGHBOURS


def test_only_pairs_of_one_kind_are_compared():
    kinds = np.array([0, 1, 0, 1, 0, -1, 2, 1])
    found = neighbour_pairs(kinds, rng())
    for pair, others in enumerate(found):
        own = others[others >= 0]
        assert (kinds[own] == kinds[pair]).all() and len(own) == (2 if kinds[pair] in {0, 1} else 0)


# Distances


def test_distances_by_hand():
    """Three pairs of two levels on a line: within is the step of the attribute, between adds that of the noise."""
    places = np.array([[[0.0], [1.0]], [[10.0], [11.0]], [[20.0], [23.0]]])
    others = np.array([[1], [2], [0]])
    within, between = pair_distances(lambda pair: places[pair], others, feature_distance)
    np.testing.assert_array_equal(within, [[1], [1], [3]])
    # pair 0 and 1: |0 - 11| and |1 - 10|; 1 and 2: |10 - 23| and |11 - 20|; 2 and 0: |20 - 1| and |23 - 0|
    np.testing.assert_array_equal(between, [[10], [11], [21]])


def test_pixel_differences_are_in_grey_levels_and_do_not_wrap():
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert pixel_difference(black, white) == pixel_difference(white, black) == 255
    half = black.copy()
    half[0] = 100
    assert pixel_difference(half, black) == 50


def test_three_levels_have_three_distances_and_the_noise_is_loaded_few_times():
    images, loaded = rng().integers(0, 256, (50, 3, 4, 4, 3)).astype(np.uint8), []

    def load(pair):
        loaded.append(pair)
        return images[pair]

    others = neighbour_pairs(np.zeros(50, np.int64), rng())
    within, between = pair_distances(load, others, pixel_difference)
    assert within.shape == between.shape == (50, 3)
    assert within[7, 1] == pixel_difference(images[7, 0], images[7, 2])
    expected = np.mean([pixel_difference(images[7, a], images[other, b])
                        for other in others[7] for a, b in ((0, 2), (2, 0))])  # fmt: skip
    assert between[7, 1] == pytest.approx(expected)
    assert len(loaded) < 50 * 1.3


def test_without_another_pair_there_is_no_reference():
    alone = neighbour_pairs(np.zeros(1, np.int64), rng())
    within, between = pair_distances(lambda pair: np.zeros((2, 1)), alone, feature_distance)
    assert within.tolist() == [[0]] and np.isnan(between).all()


@pytest.mark.parametrize(("noise", "step", "ratio"), [(10.0, 0.0, 0.0), (0.0, 3.0, 1.0), (1.0, 1.0, None)])
def test_the_ratio_is_0_where_nothing_changes_and_1_where_only_the_attribute_differs(noise, step, ratio):
    places = noise * rng().normal(size=(60, 1, 8)) + step * np.array([0.0, 1.0])[None, :, None]
    others = neighbour_pairs(np.zeros(60, np.int64), rng())
    measures = PairMetrics("sex", ["female", "male"], 60, SETTINGS)
    measures.distance("feature_distance", *pair_distances(lambda pair: places[pair], others, feature_distance))
    found = row(measures.table, "feature_distance")
    assert list(measures.table) == COLUMNS and len(measures.table) == 1
    assert found["estimate"] == pytest.approx(step * np.sqrt(8)) and found["n"] == 60
    assert found["reference_to"] == "other seeds"
    if ratio is None:
        # E |N(0, 2 I) + 1| over 8 dimensions, by simulation
        expected = np.sqrt(8) / np.linalg.norm(np.sqrt(2) * rng(1).normal(size=(20000, 8)) + 1, axis=1).mean()
        assert found["ratio"] == pytest.approx(expected, rel=0.06)
        assert found["ratio_low"] < expected < found["ratio_high"]
    else:
        assert found["ratio"] == pytest.approx(ratio)


# Readings


def reading(shown, asked):
    return FieldPrediction(DX, np.array(shown, np.int64), np.array(asked, np.int64))


def test_flips_by_hand():
    shown = [[0, 0, 1], [1, 1, 1], [0, 1, 1]]
    within, between = flip_rates(reading(shown, [[0] * 3, [1] * 3, [-1] * 3]), rng())
    np.testing.assert_array_equal(within, [[0.5, 0.5, 1], [0, 0, 0], [np.nan] * 3])
    assert np.isnan(between).all()  # no two pairs ask for the same
    _, between = flip_rates(reading(shown[:2], [[0] * 3] * 2), rng())
    np.testing.assert_array_equal(between, [[1, 1, 0], [1, 1, 0]])


def test_shares_and_flips_have_wilsons_intervals():
    """Of 100 pairs the second image is read wrongly in 20."""
    shown = np.zeros((100, 2), np.int64)
    shown[:20, 1] = 1
    measures = PairMetrics("sex", ["female", "male"], 100, SETTINGS)
    measures.accuracy(reading(shown, np.zeros((100, 2))), {"male": ReferenceShare(0.9, 0.8, 0.95)})
    measures.flip(reading(shown, np.zeros((100, 2))))
    table = measures.table
    wilson = {k: binomtest(k, 100).proportion_ci(method="wilson") for k in (20, 80, 100)}
    for metric, group, k in (("read_as_asked", "female", 100), ("read_as_asked", "male", 80), ("flip", "*", 20)):
        found = row(table, metric, group, "label.dx")
        assert found["estimate"] == pytest.approx(k / 100) and found["n"] == 100
        assert (found["ci_low"], found["ci_high"]) == pytest.approx((wilson[k].low, wilson[k].high))
    assert row(table, "read_as_asked", "*", "label.dx")["estimate"] == pytest.approx(0.9)
    real = row(table, "read_as_asked", "male", "label.dx")
    assert (real["reference_to"], real["reference"], real["reference_high"]) == ("real images", 0.9, 0.95)


def flip_of(shown):
    measures = PairMetrics("sex", ["female", "male"], len(shown), SETTINGS)
    measures.flip(reading(shown, np.zeros((len(shown), 2))))
    return row(measures.table, "flip", "*", "label.dx")


def test_flips_that_the_attribute_causes_stand_out_from_errors():
    errors = rng().random((600, 2)) < 0.2
    chance = flip_of(errors)  # both images of a pair are misread by chance: 2 e (1 - e) both within and between
    assert chance["estimate"] == pytest.approx(0.32, abs=0.05) and chance["reference"] == pytest.approx(0.32, abs=0.03)
    assert chance["ratio_low"] < 1 < chance["ratio_high"]
    caused = flip_of(errors ^ [False, True])  # men are read as ill, but for the same errors
    assert caused["estimate"] == pytest.approx(0.68, abs=0.05) and caused["reference"] == chance["reference"]
    assert caused["ci_low"] > caused["reference_high"]
    steady = flip_of(np.repeat(errors[:, :1], 2, axis=1))  # wrong now and then, never by the attribute
    assert steady["estimate"] == 0 and steady["ratio"] == 0 and steady["ci_high"] < steady["reference_low"]


def test_levels_have_flips_of_their_own_where_there_are_three():
    shown = np.zeros((40, 3), np.int64)
    shown[:10, 2] = 1
    measures = PairMetrics("race", ["a", "b", "c"], 40, SETTINGS)
    measures.flip(reading(shown, np.zeros((40, 3))))
    estimates = {group: row(measures.table, "flip", group, "label.dx")["estimate"] for group in ("*", "a", "b", "c")}
    assert estimates == pytest.approx({"a": 0.125, "b": 0.125, "c": 0.25, "*": 1 / 6})


def test_few_pairs_have_no_number():
    measures = PairMetrics("sex", ["female", "male"], 29, SETTINGS)
    measures.distance("pixel_difference", np.ones((29, 1)), np.ones((29, 1)))
    found = row(measures.table, "pixel_difference")
    assert np.isnan(found["estimate"]) and found["note"] == "too small: 29 pairs"


def test_relabelling_the_levels_changes_no_distance():
    places = rng().normal(size=(40, 3, 5))
    others = neighbour_pairs(np.zeros(40, np.int64), rng())
    tables = []
    for order in ([0, 1, 2], [2, 0, 1]):
        measures = PairMetrics("race", [str(level) for level in order], 40, SETTINGS)
        measures.distance("d", *pair_distances(lambda pair, order=order: places[pair][order], others, feature_distance))
        tables.append(measures.table[measures.table.group == "*"].drop(columns="group"))
    for name in ("estimate", "reference", "ratio", "ratio_low"):
        assert float(tables[0][name].iloc[0]) == pytest.approx(float(tables[1][name].iloc[0]))
