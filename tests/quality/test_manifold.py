from __future__ import annotations

import numpy as np
import pytest
from prdc import compute_prdc
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from equigen.errors import InputError
from equigen.progress import progress_bar
from equigen.quality.cells import GroupedImages, ResamplingSettings, make_cells, matched_n
from equigen.quality.metric_inputs import MeasurementPlan
from equigen.quality.metrics import neighbours
from equigen.quality.metrics.manifold import (
    manifold_influence,
    measure_manifold,
    neighbour_count,
    precision_recall_density_coverage,
)
from equigen.quality.metrics.neighbours import nearest_angle, nearest_neighbours, squared_distances
from equigen.quality.resamples import make_draws


def normal(n, d, seed=0, shift=0.0):
    return shift + np.random.default_rng(seed).standard_normal((n, d))


def make_plan(real, generated, levels, **settings):
    chosen = ResamplingSettings(**{"replicates": 200, "repeats": 2, "min_patients": 20, **settings})
    cells = make_cells(real, generated, levels, chosen)
    n = matched_n(cells, chosen)
    with progress_bar("test", 1, show=False) as bar:
        return MeasurementPlan(cells, make_draws(real, generated, cells, chosen), n, chosen, bar)


def one_cell(n, m, **settings):
    sides = (GroupedImages(np.array([f"{side}{i}" for i in range(count)]), {}) for side, count in (("r", n), ("g", m)))
    return make_plan(*sides, {}, **settings)


# nearest neighbours


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nearest_agrees_with_scikit_learn_over_many_blocks(monkeypatch, dtype):
    monkeypatch.setattr(neighbours, "QUERIES", 7)
    monkeypatch.setattr(neighbours, "REFERENCES", 11)
    query, reference = normal(40, 5, 1).astype(dtype), normal(60, 5, 2, shift=100).astype(dtype)
    found = NearestNeighbors(n_neighbors=4, algorithm="brute").fit(reference.astype(np.float64))
    distances, rows = found.kneighbors(query.astype(np.float64))
    ours = nearest_neighbours(query, reference, 4)
    assert ours[0] == pytest.approx(distances, rel=1e-9)
    assert ours[1].tolist() == rows.tolist()


def test_copies_are_at_zero_and_near_copies_keep_their_digits():
    reference = 1e4 + normal(50, 8, 3)
    query = reference[[4, 30]].copy()
    query[1, 0] += 1e-7
    distances, rows = nearest_neighbours(query, reference, 1)
    assert rows[:, 0].tolist() == [4, 30]
    assert distances[0, 0] == 0
    assert distances[1, 0] == pytest.approx(abs(query[1, 0] - reference[30, 0]), rel=1e-12)
    whole = squared_distances(query, reference)
    assert whole[0, 4] == 0
    assert np.sqrt(whole[1, 30]) == pytest.approx(abs(query[1, 0] - reference[30, 0]), rel=1e-12)
    assert np.sqrt(whole) == pytest.approx(cdist(query, reference), rel=1e-7)


def test_rows_of_the_same_group_are_passed_over_and_what_is_missing_is_infinite():
    query, reference = np.array([[0.0], [10.0]]), np.array([[0.0], [1.0], [3.0]])
    distances, rows = nearest_neighbours(
        query, reference, 2, query_groups=np.array([5, 6]), reference_groups=np.array([5, 6, 5])
    )
    assert rows.tolist() == [[1, -1], [2, 0]]
    assert distances.tolist() == [[1, np.inf], [7, 10]]
    assert nearest_neighbours(query, reference[:1], 3)[1].tolist() == [[0, -1, -1]] * 2
    assert nearest_neighbours(query[:0], reference, 2)[0].shape == (0, 2)


def test_ties_come_in_the_order_of_rows_and_constant_features_are_all_at_zero():
    distances, rows = nearest_neighbours(np.zeros((2, 3)), np.zeros((5, 3)), 3)
    assert distances.tolist() == [[0, 0, 0]] * 2
    assert rows.tolist() == [[0, 1, 2]] * 2
    assert nearest_neighbours(np.array([[2.0]]), np.array([[3.0], [1.0]]), 2)[1].tolist() == [[0, 1]]


def test_bad_input_is_named():
    good = normal(4, 3)
    with pytest.raises(InputError, match="the first is 2"):
        nearest_neighbours(good, np.array([[0.0], [1.0], [np.nan]]), 1)
    with pytest.raises(InputError, match="3 and 2 columns"):
        nearest_neighbours(good, good[:, :2], 1)
    with pytest.raises(InputError, match="one side only"):
        nearest_neighbours(good, good, 1, query_groups=np.arange(4))
    with pytest.raises(InputError, match="shape"):
        nearest_neighbours(good[0], good, 1)


def test_nearest_angle_by_hand():
    reference = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, -2.0]])
    query = np.array([[3.0, 0.0], [0.0, 5.0], [1.0, 1.0], [0.0, 0.0]])
    found = nearest_angle(query, reference)
    assert found[:3] == pytest.approx([0, 0, 1 - np.sqrt(0.5)], abs=1e-15)
    assert np.isnan(found[3])
    assert np.isnan(nearest_angle(query, np.zeros((2, 2)))).all()  # zeros have no direction to be near
    apart = nearest_angle(query, reference, query_groups=np.array([1, 2, 1, 1]), reference_groups=np.array([1, 1, 2]))
    assert apart[:3] == pytest.approx([1, 1, 1 - np.sqrt(0.5)], abs=1e-15)


# precision, recall, density, coverage


@pytest.mark.parametrize(
    ("n", "m", "d", "shift", "k"),
    [
        (60, 60, 4, 0.0, 5),
        (50, 80, 6, 0.5, 3),
        (90, 40, 1, 0.3, 1),
        (30, 30, 64, 0.1, 5),
        (40, 40, 3, 100.0, 4),
    ],
)
def test_the_four_values_agree_with_prdc(capsys, n, m, d, shift, k):
    real, generated = normal(n, d, n), normal(m, d, m + 1, shift)
    expected = compute_prdc(real, generated, nearest_k=k)
    ours = precision_recall_density_coverage(real, generated, k)
    assert ours._asdict() == pytest.approx(expected, abs=1e-12)


def test_the_four_values_by_hand():
    # radii of 0, 1, 3, 7 at k 1: 1, 1, 2, 4; of 0.5, 4, 20: 3.5, 3.5, 16
    real, generated = np.array([[0.0], [1.0], [3.0], [7.0]]), np.array([[0.5], [4.0], [20.0]])
    ours = precision_recall_density_coverage(real, generated, 1)
    # 0.5 is in the balls of 0 and 1; 4 in those of 3 and 7 (at 3 < 4); 20 in none
    assert ours.precision == pytest.approx(2 / 3)
    assert ours.density == pytest.approx(4 / 3)
    assert ours.coverage == 1
    # 0, 1, 3 lie within 3.5 of 0.5; 7 within 3.5 of 4
    assert ours.recall == 1


def test_equal_sides_score_one_and_constant_features_too():
    values = normal(50, 3)
    assert precision_recall_density_coverage(values, values, 5) == pytest.approx((1, 1, 1, 1))
    constant = np.full((9, 4), 0.1)
    scores = precision_recall_density_coverage(constant, constant[:7], 3)
    assert (scores.precision, scores.recall, scores.coverage) == (1, 1, 1)
    assert scores.density == pytest.approx(9 / 3)  # every one of 9 balls holds every row
    away = precision_recall_density_coverage(constant, constant + 1, 3)
    assert away == (0, 0, 0, 0)


def test_the_radius_is_not_decided_by_images_of_the_same_patient():
    # each patient twice, a hair apart: with own images the balls would be so small that nothing falls in
    real = np.repeat(np.arange(6.0), 2)[:, None] + np.tile([0.0, 1e-3], 6)[:, None]
    generated, patients = np.arange(5.0)[:, None] + 0.5, np.repeat(np.arange(6), 2)
    assert precision_recall_density_coverage(real, generated, 1).precision == 0
    assert precision_recall_density_coverage(real, generated, 1, real_patients=patients).precision == 1


def test_a_reconstruction_is_not_looked_for_in_its_own_patients_ball():
    real = np.array([[0.0], [1.0], [2.5], [50.0]])  # radii at k 2: 2.5, 1.5, 2.5, 49
    names = np.array(["a", "b", "c", "d"])
    plain = precision_recall_density_coverage(real, real, 2)
    apart = precision_recall_density_coverage(real, real, 2, real_patients=names, generated_patients=names)
    assert plain.precision == 1
    assert apart.precision == pytest.approx(0.75)  # 50 lies in no ball but its own


def test_order_does_not_matter_and_too_few_rows_are_refused():
    real, generated = normal(30, 3), normal(25, 3, 1)
    order = np.random.default_rng(0).permutation(30)
    first = precision_recall_density_coverage(real, generated, 3)
    assert precision_recall_density_coverage(real[order], generated[::-1], 3) == pytest.approx(first)
    with pytest.raises(InputError, match="5 generated rows for k 5"):
        precision_recall_density_coverage(real, generated[:5], 5)
    with pytest.raises(InputError, match="2 columns"):
        precision_recall_density_coverage(real, generated[:, :2], 5)


# influences


@pytest.mark.parametrize(("n", "m", "d", "k"), [(14, 11, 2, 3), (9, 13, 1, 2), (20, 20, 5, 5), (12, 12, 1, 1)])
def test_leave_one_out_is_what_brute_force_gives(n, m, d, k):
    real, generated = normal(n, d, n), normal(m, d, m + 50, 0.4)
    real[3], generated[2] = real[1], real[0]  # copies within a side and across
    parts = manifold_influence(real, generated, k)
    full = np.array(precision_recall_density_coverage(real, generated, k))
    brute_real = np.array([precision_recall_density_coverage(np.delete(real, i, 0), generated, k) for i in range(n)])
    brute_made = np.array([precision_recall_density_coverage(real, np.delete(generated, j, 0), k) for j in range(m)])
    for index, part in enumerate(parts):
        assert part.value == pytest.approx(full[index])
        for psi, brute in ((part.real, brute_real[:, index]), (part.generated, brute_made[:, index])):
            expected = (len(brute) - 1) * (full[index] - brute)
            assert psi == pytest.approx(expected - expected.mean(), abs=1e-9)


def test_leave_one_out_with_patients_is_what_brute_force_gives():
    real, generated, patients = normal(16, 2), normal(10, 2, 1), np.repeat(np.arange(8), 2)
    parts = manifold_influence(real, generated, 3, (patients, 100 + np.arange(10)))
    full = np.array(precision_recall_density_coverage(real, generated, 3, real_patients=patients))
    brute = np.array(
        [
            precision_recall_density_coverage(np.delete(real, i, 0), generated, 3, real_patients=np.delete(patients, i))
            for i in range(16)
        ]
    )
    for index, part in enumerate(parts):
        expected = 15 * (full[index] - brute[:, index])
        assert part.real == pytest.approx(expected - expected.mean(), abs=1e-9)


def test_influences_give_about_the_spread_of_fresh_samples():
    values, spreads = [], []
    for seed in range(60):
        real, generated = normal(80, 3, 1000 + seed), normal(80, 3, 5000 + seed, 0.5)
        parts = manifold_influence(real, generated, 5)
        values.append([part.value for part in parts])
        spreads.append([np.sqrt((part.real**2).mean() / 80 + (part.generated**2).mean() / 80) for part in parts])
    ratio = np.sqrt(np.square(spreads).mean(axis=0)) / np.std(values, axis=0)
    assert (ratio > 0.7).all(), ratio
    assert (ratio < 2.2).all(), ratio


# in the quality table


def test_measured_values_are_the_plain_ones_when_n_is_everything():
    real, generated = normal(100, 3), normal(50, 3, 1, 0.5)
    plan = one_cell(100, 50, matched_n=50, repeats=10)
    measured = {item.metric: item for item in measure_manifold(real, generated, plan)}
    assert {name: item.kind for name, item in measured.items()} == {
        "precision": "share",
        "recall": "share",
        "density": "higher",
        "coverage": "share",
    }
    rng = np.random.default_rng(0)
    draws = [precision_recall_density_coverage(real[rng.permutation(100)[:50]], generated) for _ in range(60)]
    for index, item in enumerate(measured.values()):
        estimate = item.estimates["*", "*"]
        assert estimate.value == pytest.approx(np.mean(draws, axis=0)[index], abs=0.06)
        assert estimate.replicates.shape == (200,)
        assert abs(estimate.replicates.mean() - estimate.value) < estimate.replicates.std()
        assert 0 < estimate.replicates.std() < 0.3
        assert estimate.replicates.min() >= 0
        assert item.kind != "share" or estimate.replicates.max() <= 1
        assert "in the floor's place" in item.note
    halves = measured["precision"].estimates["*", "*"].floor
    splits = [precision_recall_density_coverage(*np.split(real[rng.permutation(100)], 2)).precision for _ in range(40)]
    assert halves == pytest.approx(np.mean(splits), abs=0.08)


def test_the_group_that_collapsed_is_found_and_the_floor_stays_a_ceiling():
    group = np.arange(240) % 2
    real, generated = normal(240, 4), normal(240, 4, 1)
    generated[group == 1] *= 0.15  # all of group b look alike
    sides = [GroupedImages(np.array([f"{side}{i}" for i in range(240)]), {"sex": group}) for side in "rg"]
    plan = make_plan(*sides, {"sex": ["a", "b"]})
    measured = {item.metric: item for item in measure_manifold(real, generated, plan)}
    recall = measured["recall"]
    a, b = recall.estimates["sex", "a"], recall.estimates["sex", "b"]
    assert b.value < 0.3 < a.value
    assert abs(a.value - a.floor) < 0.2
    assert b.floor > 0.5
    gaps = np.ptp(recall.null["sex"], axis=1)
    assert abs(a.value - b.value) > np.quantile(gaps, 0.95)


def test_small_n_takes_a_smaller_k_and_says_so():
    assert [neighbour_count(n) for n in (2, 3, 5, 7, 400)] == [1, 1, 3, 5, 5]
    values = normal(30, 2)
    for item in measure_manifold(values, normal(30, 2, 1), one_cell(30, 30, matched_n=4)):
        assert np.isfinite(item.estimates["*", "*"].value)
        assert "k is 2, since n is 4" in item.note
    pair = manifold_influence(values[:2], values[2:4], 1)
    assert all(np.isfinite(part.value) and np.isfinite(part.real).all() for part in pair)
