"""Means of groups with resamples and null values, of single images and of images of patients."""

from __future__ import annotations

import numpy as np
import pytest

from equigen.quality.cells import ResamplingSettings
from equigen.quality.group_means import (
    CellMean,
    clustered_group_means,
    independent_group_means,
    patient_share_interval,
)
from equigen.statistics import wilson_interval

SETTINGS = ResamplingSettings(replicates=600, min_patients=10, seed=3)
LEVELS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(90), rng.integers(1, 4, 90))
    codes = (np.arange(90) % 2)[patients]
    codes[patients >= 84] = 2  # a small group
    values = (rng.random(90) < 0.6)[patients].astype(float)
    values[::11] = np.nan
    return values, codes, patients


def test_means_are_those_of_the_defined_values(data):
    values, codes, patients = data
    independent = independent_group_means(values, codes, LEVELS, SETTINGS, "x")
    clustered = clustered_group_means(values, codes, LEVELS, patients, SETTINGS, "x")
    for index, level in enumerate(LEVELS):
        members = values[codes == index]
        for means in (independent, clustered):
            assert means.cells[level].value == pytest.approx(np.nanmean(members))
            assert means.cells[level].n == np.isfinite(members).sum()
            assert means.cells[level].total == np.nansum(members)
    defined = np.isfinite(values)
    assert clustered.cells["a"].patients == len(set(patients[defined & (codes == 0)]))
    assert independent.cells["a"].patients == independent.cells["a"].n


def test_a_small_group_has_no_resamples_and_no_null(data):
    values, codes, patients = data
    means = clustered_group_means(values, codes, LEVELS, patients, SETTINGS, "x")
    assert [means.cells[level].is_large for level in LEVELS] == [True, True, False]
    assert set(means.null) == {"a", "b"}
    assert len(means.cells["c"].replicates) == 0 and np.isfinite(means.cells["c"].value)


def test_an_empty_group_is_undefined():
    means = independent_group_means(np.ones(20), np.zeros(20, dtype=int), ["a", "b"], SETTINGS, "x")
    assert np.isnan(means.cells["b"].value) and means.cells["b"].n == 0 and not means.null
    assert (means.cells["a"].replicates == 1).all()


def test_resamples_have_the_spread_of_independent_images():
    values = (np.arange(200) < 60).astype(float)
    means = independent_group_means(values, np.zeros(200, dtype=int), ["a"], SETTINGS, "x")
    replicates = means.cells["a"].replicates
    assert replicates.mean() == pytest.approx(0.3, abs=0.006)
    assert replicates.std() == pytest.approx(np.sqrt(0.3 * 0.7 / 200), rel=0.1)


def test_copies_of_an_image_make_no_estimate_surer(data):
    values, codes, patients = data
    once = clustered_group_means(values, codes, LEVELS, patients, SETTINGS, "x")
    twice = clustered_group_means(np.tile(values, 2), np.tile(codes, 2), LEVELS, np.tile(patients, 2), SETTINGS, "x")
    np.testing.assert_allclose(twice.cells["a"].replicates, once.cells["a"].replicates)
    np.testing.assert_allclose(twice.null["b"], once.null["b"])
    assert twice.cells["a"].n == 2 * once.cells["a"].n


def test_the_order_of_images_and_the_names_of_patients_do_not_matter(data):
    values, codes, patients = data
    plain = clustered_group_means(values, codes, LEVELS, patients, SETTINGS, "x")
    order = np.random.default_rng(1).permutation(len(values))
    names = np.array([f"patient {code:03d}" for code in patients])
    shuffled = clustered_group_means(values[order], codes[order], LEVELS, names[order], SETTINGS, "x")
    np.testing.assert_allclose(shuffled.cells["a"].replicates, plain.cells["a"].replicates)


def test_null_means_of_two_groups_have_the_common_total(data):
    values, codes, _ = data
    means = independent_group_means(values, codes, ["a", "b"], SETTINGS, "x")
    cells = means.cells
    totals = means.null["a"] * cells["a"].n + means.null["b"] * cells["b"].n
    np.testing.assert_allclose(totals, cells["a"].total + cells["b"].total)
    assert means.null["a"].std() > 0


def test_an_excess_of_rejection_is_taken_in_every_resample():
    accepted = independent_group_means(np.repeat([1.0, 0.0], [30, 10]), np.arange(40) % 2, ["a", "b"], SETTINGS, "x")
    rejected = independent_group_means(np.repeat([0.0, 1.0], [36, 4]), np.arange(40) % 2, ["a", "b"], SETTINGS, "y")
    excess = accepted.rejection_excess(rejected)
    assert excess.cells["a"].value == pytest.approx((1 - 0.75) - 0.1)
    expected = 1 - accepted.cells["a"].replicates - rejected.cells["a"].replicates
    np.testing.assert_array_equal(excess.cells["a"].replicates, expected)
    np.testing.assert_array_equal(excess.null["b"], 1 - accepted.null["b"] - rejected.null["b"])
    small = independent_group_means(np.ones(5), np.zeros(5, dtype=int), ["a", "b"], SETTINGS, "z")
    assert not accepted.rejection_excess(small).cells["a"].is_large


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_share_without_exception_has_wilsons_interval_over_patients(value):
    cell = CellMean(value, np.full(50, value), 60, 20, 60 * value)
    low, high, note = patient_share_interval(cell)
    assert (low, high) == wilson_interval(int(20 * value), 20) and "Wilson's over patients" in note


def test_any_other_share_has_the_interval_of_its_resamples():
    cell = CellMean(0.5, np.linspace(0.4, 0.6, 201), 60, 20, 30.0)
    low, high, note = patient_share_interval(cell)
    assert (low, high) == pytest.approx((0.405, 0.595)) and note == ""
    low, high, _ = patient_share_interval(CellMean(0.5, np.zeros(0), 60, 20, 30.0))
    assert np.isnan(low) and np.isnan(high)
