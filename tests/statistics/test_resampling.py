from __future__ import annotations

import numpy as np
import pytest

from equigen.errors import InputError
from equigen.statistics import (
    draw_multiplicities,
    group_permutations,
    patient_bootstrap,
    patient_codes,
    split_halves,
    subsample,
)

PATIENTS = np.array(["a", "a", "b", "c", "c", "c", "d"], dtype=object)


def test_bootstrap_keeps_every_row_of_a_drawn_patient():
    rows_of = {"a": 2, "b": 1, "c": 3, "d": 1}
    sizes = set()
    for rows in patient_bootstrap(PATIENTS, 200, np.random.default_rng(0)):
        counts = np.bincount(rows, minlength=7)
        for name in rows_of:
            assert len(set(counts[name == PATIENTS])) == 1
        assert sum(counts[name == PATIENTS][0] for name in rows_of) == 4
        sizes.add(len(rows))
    assert len(sizes) > 3


def test_bootstrap_draws_each_patient_once_on_average():
    draws = patient_bootstrap(PATIENTS, 4000, np.random.default_rng(1))
    mean = np.mean([np.bincount(rows, minlength=7) for rows in draws], axis=0)
    assert np.abs(mean - 1).max() < 0.06  # standard error sqrt(0.75 / 4000) = 0.014


def test_bootstrap_of_single_rows_is_the_ordinary_one():
    rng, same = np.random.default_rng(2), np.random.default_rng(2)
    rows = next(patient_bootstrap(np.arange(50), 1, rng))
    assert rows.tolist() == same.integers(0, 50, 50).tolist()


@pytest.mark.parametrize("bad", [np.array(["a", None], dtype=object), np.array([1.0, np.nan])])
def test_a_missing_patient_is_refused(bad):
    with pytest.raises(InputError, match="no patient, the first at index 1"):
        next(patient_bootstrap(bad, 1, np.random.default_rng(0)))


def test_no_rows_are_refused():
    with pytest.raises(InputError, match="no row to resample"):
        next(patient_bootstrap(np.array([], dtype=str), 1, np.random.default_rng(0)))


def test_codes_follow_sorted_names_of_any_type():
    assert patient_codes(np.array(["b", "a", "b"])).tolist() == [1, 0, 1]
    assert patient_codes(np.array([30, 4, 30])).tolist() == [1, 0, 1]


def test_permutation_moves_patients_whole_and_keeps_unknown_rows():
    patients = np.repeat([f"p{i}" for i in range(30)], 3)
    groups = np.repeat(np.arange(30) % 3, 3)
    groups[::7] = -1
    for seed in range(20):
        permuted = next(group_permutations(groups, patients, 1, np.random.default_rng(seed)))
        assert ((permuted == -1) == (groups == -1)).all()
        for patient in np.unique(patients):
            assert len(set(permuted[(patients == patient) & (permuted >= 0)])) == 1
        per_patient = [permuted[(patients == p) & (permuted >= 0)][0] for p in np.unique(patients)]
        assert np.bincount(per_patient).tolist() == [10, 10, 10]
    assert (permuted != groups).any()


def test_permutation_of_patients_in_several_groups_stays_within_the_patient():
    patients = np.array([0, 0, 0, 1, 1, 2, 3])
    groups = np.array([0, 0, 1, 1, 0, 0, 1])
    seen = set()
    for seed in range(60):
        permuted = next(group_permutations(groups, patients, 1, np.random.default_rng(seed)))
        assert sorted(permuted[:3]) == [0, 0, 1]
        assert sorted(permuted[3:5]) == [0, 1]
        assert sorted(permuted[5:]) == [0, 1]
        seen.add(tuple(permuted))
    assert len(seen) == 3 * 2 * 2  # every arrangement comes up


def test_permutation_of_unknown_groups_alone_changes_nothing():
    groups = np.array([-1, -1])
    assert next(group_permutations(groups, np.array(["a", "b"]), 1, np.random.default_rng(0))).tolist() == [-1, -1]


def test_permutations_of_one_generator_are_those_one_after_the_other():
    rng = np.random.default_rng(3)
    patients, groups = rng.integers(0, 9, 30), rng.integers(-1, 3, 30)
    together = list(group_permutations(groups, patients, 4, np.random.default_rng(5)))
    rng = np.random.default_rng(5)
    for permuted in together:
        np.testing.assert_array_equal(permuted, next(group_permutations(groups, patients, 1, rng)))
    assert len({tuple(permuted) for permuted in together}) > 1


def test_renamed_groups_and_patients_are_permuted_alike():
    groups, patients = np.array([0, 0, 1, 2, 2, 1]), np.array([0, 0, 1, 2, 3, 4])
    plain = next(group_permutations(groups, patients, 1, np.random.default_rng(8)))
    renamed = next(group_permutations(groups + 5, np.array(list("aabcde")), 1, np.random.default_rng(8)))
    np.testing.assert_array_equal(renamed, plain + 5)


def test_multiplicities_count_the_rows_of_the_bootstrap():
    codes = patient_codes(PATIENTS)
    draws = draw_multiplicities(codes, 50, np.random.default_rng(6))
    weights = draws.row_weights(np.arange(7))
    for index, rows in enumerate(patient_bootstrap(PATIENTS, 50, np.random.default_rng(6))):
        np.testing.assert_array_equal(np.bincount(rows, minlength=7), weights[index])
    assert (draws.counts.sum(axis=1) == 4).all()
    assert draws.row_weights(np.array([5, 0])).tolist() == weights[:, [5, 0]].tolist()


def test_no_rows_have_no_multiplicities():
    assert draw_multiplicities(np.zeros(0, dtype=np.int64), 3, np.random.default_rng(0)).counts.shape == (3, 0)


def test_subsample_has_no_row_twice_and_refuses_too_many():
    rows = subsample(10, 7, np.random.default_rng(0))
    assert len(set(rows.tolist())) == 7
    assert set(rows.tolist()) <= set(range(10))
    with pytest.raises(InputError, match="11 rows asked for, 10 are there"):
        subsample(10, 11, np.random.default_rng(0))


def test_halves_share_no_patient_and_use_every_row():
    for seed in range(30):
        first, second = split_halves(PATIENTS, np.random.default_rng(seed))
        assert sorted([*first, *second]) == list(range(7))
        assert not set(PATIENTS[first]) & set(PATIENTS[second])
        assert len(set(PATIENTS[first])) - len(set(PATIENTS[second])) in {0, 1}


def test_halves_of_single_rows_are_equal():
    first, second = split_halves(np.arange(101), np.random.default_rng(0))
    assert {len(first), len(second)} == {50, 51}
