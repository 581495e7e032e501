"""Estimates in cells: weighted means, first-order replicates, the components of an influence's variance, floors."""

from __future__ import annotations

import numpy as np
import pytest

from equigen.progress import progress_bar
from equigen.quality.cells import GroupedImages, ResamplingSettings, make_cells, matched_n
from equigen.quality.estimates import (
    expected_overlap,
    first_order_replicates,
    images_per_patient,
    influence_variance,
    measure_mean,
    measure_weighted,
    measure_with_influences,
    pool_values,
    subsample_means,
    subsample_overlap,
    subsample_pairs,
)
from equigen.quality.metric_inputs import MeasurementPlan
from equigen.quality.metrics.influence import Influence
from equigen.quality.resamples import make_draws

LEVELS = {"sex": ["f", "m"]}


def make_plan(per_patient: int = 1, patients: int = 40, **options) -> MeasurementPlan:
    settings = ResamplingSettings(**{"repeats": 3, "replicates": 40, "min_patients": 6, "seed": 2, **options})
    sets = []
    for name in "rg":
        codes = np.arange(patients * per_patient) // per_patient
        sets.append(GroupedImages(np.array([f"{name}{code:03d}" for code in codes]), {"sex": codes % 2}))
    cells = make_cells(*sets, LEVELS, settings)
    with progress_bar("test", 1, show=False) as bar:
        return MeasurementPlan(cells, make_draws(*sets, cells, settings), matched_n(cells, settings), settings, bar)


def test_a_mean_is_exact_in_every_cell_replicate_and_permutation():
    plan = make_plan(per_patient=2)
    rng = np.random.default_rng(0)
    generated, real = rng.random(80), rng.random(80)
    result = measure_mean("score", "lower", generated, real, plan, "a note")
    for cell in plan.cells:
        estimate = result.estimates[cell.attribute, cell.group]
        assert estimate.value == pytest.approx(generated[cell.generated].mean())
        assert estimate.floor == pytest.approx(real[cell.real].mean())
        weights = plan.weights(cell)[1][7]
        drawn = np.repeat(generated[cell.generated], weights.astype(int))
        assert estimate.replicates[7] == pytest.approx(drawn.mean())
        assert 0 < estimate.p_floor <= 1
    pool = plan.draws.null["sex"]
    for group in range(2):
        members = pool.generated_groups[5] == group
        assert result.null["sex"][5, group] == pytest.approx(generated[pool.generated][members].mean())
    assert result.note == "a note" and (result.metric, result.kind) == ("score", "lower")


def test_scores_that_are_undefined_do_not_count_and_without_a_floor_nothing_is_tested():
    plan = make_plan()
    scores = np.where(np.arange(40) % 3 == 0, np.nan, np.arange(40.0))
    result = measure_mean("score", "higher", scores, None, plan)
    estimate = result.estimates["*", "*"]
    assert estimate.value == pytest.approx(np.nanmean(scores))
    assert estimate.floor is None and estimate.p_floor is None


def test_the_direction_of_a_metric_decides_what_is_worse_than_the_floor():
    plan, high, low = make_plan(), np.arange(40) + 100.0, np.arange(40.0)
    p = {kind: measure_mean("s", kind, high, low, plan).estimates["*", "*"].p_floor for kind in ("lower", "higher")}
    assert p["lower"] < 0.01 and p["higher"] > 0.99


def test_null_values_of_several_groups_at_once_are_those_of_each_alone(monkeypatch):
    plan = make_plan()
    scores, pool = np.random.default_rng(3).random(40), plan.draws.null["sex"]

    def value(real, generated, weights_real, weights_generated):
        return weights_generated @ scores[generated] / weights_generated.sum(axis=1)

    together = pool_values(value, pool)
    monkeypatch.setattr("equigen.quality.estimates.WEIGHTS_IN_MEMORY", 1)  # one permutation at a time
    np.testing.assert_allclose(pool_values(value, pool), together, rtol=1e-14)
    assert together.shape == (40, 2)
    np.testing.assert_allclose(together.sum(axis=1), 2 * scores.mean())  # two groups of equal size


def test_floors_of_halves_are_averaged_with_their_monte_carlo_error():
    plan, halves = make_plan(), np.array([1.0, 2.0, 6.0])
    result = measure_weighted("x", "lower", lambda r, g, a, b: np.ones(len(b)), lambda cell: halves, plan)
    estimate = result.estimates["*", "*"]
    assert estimate.floor == 3.0 and estimate.mc_floor == pytest.approx(halves.std(ddof=1) / np.sqrt(3))
    single = measure_weighted("x", "lower", lambda r, g, a, b: np.ones(len(b)), lambda cell: 4.0, plan)
    assert single.estimates["*", "*"].floor == 4.0 and single.estimates["*", "*"].mc_floor == 0.0


def test_first_order_replicates_by_hand():
    influence = Influence(10.0, np.array([1.0, -1.0, 0.0]), np.array([2.0, -2.0]))
    weights = np.array([[1.0, 1, 1], [3, 0, 0], [0, 0, 0]]), np.array([[1.0, 1], [1, 0], [1, 1]])
    np.testing.assert_array_equal(first_order_replicates(influence, *weights), [10.0, 10 + 1 + 2, np.nan])
    one_side = Influence(10.0, np.zeros(0), np.array([2.0, -2.0]))
    np.testing.assert_array_equal(first_order_replicates(one_side, np.zeros((3, 0)), weights[1]), [10.0, 12.0, 10.0])


def test_images_per_patient_make_multiplicities_count_patients():
    plan = make_plan(per_patient=3)
    cell = plan.cells[0]
    real, generated = images_per_patient(cell, plan)
    assert (real == 3).all() and (generated == 3).all()
    weights = plan.weights(cell)[0] / real
    np.testing.assert_allclose(weights.sum(axis=1), 40)  # as many patients as there are


def test_the_overlap_of_subsamples_is_that_of_their_draws():
    plan = make_plan(per_patient=2, matched_n=8)
    cell = plan.cells[0]
    assert subsample_overlap(cell, plan) == pytest.approx(7 / 39 / 2)  # another patient in common, and the same image
    share = subsample_overlap(cell, plan)
    assert expected_overlap(cell, plan) == pytest.approx(share + (1 - share) / 3)
    full = make_plan(matched_n=20)
    assert subsample_overlap(full.cells[0], full) == pytest.approx(19 / 39)


def test_every_patient_is_in_as_many_subsamples_as_there_are_repeats():
    plan = make_plan(per_patient=2, matched_n=7)
    patients = plan.patients(plan.cells[0])
    pairs = subsample_pairs(patients, plan, np.random.default_rng(0))
    assert len(pairs) == 3 * 6  # 40 patients in pieces of 7
    for side in range(2):
        drawn = [patients[side][pair[side]] for pair in pairs]
        assert all(len(set(codes)) == 7 for codes in drawn)
        assert np.bincount(np.concatenate(drawn)).min() >= 3


def test_the_variance_of_a_linear_statistic_is_that_of_its_patients():
    patients = np.arange(12)
    scores = np.random.default_rng(0).standard_normal(12)
    scores -= scores.mean()
    rows = [np.arange(0, 6), np.arange(6, 12), np.arange(0, 12, 2), np.arange(1, 12, 2)]
    variance = influence_variance(patients, [(piece, scores[piece]) for piece in rows], 0.3)
    np.testing.assert_allclose(variance.psi, scores)
    assert variance.pairs == 0 and variance.linear == pytest.approx(np.mean(scores**2))
    np.testing.assert_allclose(variance.scaled(0.5), scores)


def test_noise_of_pairs_is_scaled_down_by_the_overlap():
    rng = np.random.default_rng(1)
    patients, scores = np.arange(200), rng.standard_normal(200)
    pieces = [rng.permutation(200)[:50] for _ in range(80)]
    overlap, pairs = 0.25, 0.8
    noise = np.sqrt(2 * pairs)  # an influence has the variance V1 + 2 V2, of which 2 (1 - f) V2 within an image
    common = np.sqrt(overlap) * noise * rng.standard_normal(200)
    samples = [
        (piece, scores[piece] + common[piece] + np.sqrt(1 - overlap) * noise * rng.standard_normal(50))
        for piece in pieces
    ]
    variance = influence_variance(patients, samples, overlap)
    assert variance.pairs == pytest.approx(pairs, rel=0.1)
    assert variance.linear == pytest.approx(np.mean(scores**2), rel=0.35)
    expected = variance.linear + 0.5 * variance.pairs
    assert np.mean(variance.scaled(0.5) ** 2) == pytest.approx(expected)


def test_images_in_one_subsample_each_count_as_linear():
    patients, psi = np.arange(6), np.array([1.0, -1.0, 2.0, -2.0, 0.5, -0.5])
    variance = influence_variance(patients, [(np.arange(3), psi[:3]), (np.arange(3, 6), psi[3:])], 0.4)
    assert variance.pairs == 0 and variance.linear == pytest.approx(np.mean(psi**2))
    empty = influence_variance(patients, [(np.arange(3), np.zeros(0))], 0.4)
    assert (empty.psi == 0).all() and empty.scaled(0.5).tolist() == [0.0] * 6


def test_a_mean_over_subsamples_of_everything_has_no_monte_carlo_error():
    plan = make_plan(matched_n=20)
    scores = np.random.default_rng(5).random(40)

    def mean(real, generated):
        values = scores[generated]
        return [Influence(float(values.mean()), np.zeros(0), values - values.mean())]

    cell = plan.cells[1]  # twenty patients of one group: every subsample is all of them
    result = subsample_means(mean, cell, plan, "x")[0]
    assert result.value == pytest.approx(scores[cell.generated].mean()) and result.error == pytest.approx(0, abs=1e-15)
    partial = subsample_means(mean, plan.cells[0], plan, "x")[0]
    assert partial.error >= 0 and partial.value == pytest.approx(scores.mean())  # each image equally often


def test_replicates_of_a_mean_by_influences_are_those_of_the_mean():
    plan = make_plan(matched_n=10, replicates=400)
    scores = np.random.default_rng(6).random(40)

    def mean(real, generated):
        values = scores[generated]
        return [Influence(float(values.mean()), np.zeros(0), values - values.mean())]

    result = measure_with_influences([("x", "lower")], mean, None, plan, ["note"])[0]
    exact = measure_mean("x", "lower", scores, None, plan)
    for key, estimate in result.estimates.items():
        assert estimate.value == pytest.approx(exact.estimates[key].value, abs=0.06)
        spread = exact.estimates[key].replicates.std()
        assert estimate.replicates.std() == pytest.approx(spread, rel=0.35)
        assert estimate.floor is None
    assert result.null["sex"].shape == (400, 2)
    assert result.null["sex"].mean() == pytest.approx(scores.mean(), abs=0.02)
