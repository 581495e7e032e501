"""Cells of a quality table: which rows they hold, how they are halved, limited and drawn from."""

from __future__ import annotations

import numpy as np
import pytest

from equigen.errors import InputError
from equigen.quality.cells import (
    GroupedImages,
    ResamplingSettings,
    covering_subsamples,
    cross_groups,
    make_cells,
    matched_n,
    subsample_patients,
)

LEVELS = {"sex": ["f", "m"], "age": ["old", "young"]}
SETTINGS = ResamplingSettings(repeats=3, replicates=20, min_patients=6, seed=1)


def images(name: str, patients: int, per_patient: int = 2, seed: int = 0) -> GroupedImages:
    rng, codes = np.random.default_rng(seed), np.arange(patients * per_patient) // per_patient
    groups = {attribute: rng.permutation(np.arange(patients) % 2)[codes] for attribute in LEVELS}
    groups["age"] = np.where(codes % 5 == 0, -1, groups["age"])
    return GroupedImages(np.array([f"{name}{code:03d}" for code in codes]), groups)


@pytest.fixture(scope="module")
def sets() -> tuple[GroupedImages, GroupedImages]:
    return images("r", 60), images("g", 50, 1, 1)


def test_cells_are_all_images_then_each_group_in_the_order_of_its_levels(sets):
    cells = make_cells(*sets, LEVELS, SETTINGS)
    names = [(cell.attribute, cell.group, cell.code) for cell in cells]
    expected = [("*", "*", -1), ("sex", "f", 0), ("sex", "m", 1), ("age", "old", 0), ("age", "young", 1)]
    assert names == expected
    for cell in cells[1:]:
        for rows, grouped in zip((cell.real, cell.generated), sets, strict=True):
            assert (grouped.groups[cell.attribute][rows] == cell.code).all()
            assert len(rows) == (grouped.groups[cell.attribute] == cell.code).sum()
        assert cell.patients == len(set(sets[0].patients[cell.real]))
    assert len(cells[0].real) == 120 and len(cells[0].generated) == 50
    assert len(cells[3].real) + len(cells[4].real) == (sets[0].groups["age"] >= 0).sum()


def test_halves_of_a_cell_share_no_patient_and_hold_all_of_its_rows(sets):
    for cell in make_cells(*sets, LEVELS, SETTINGS):
        assert len(cell.halves) == 3
        for halves in cell.halves:
            assert sorted(np.concatenate(halves)) == list(range(len(cell.real)))
            patients = [set(sets[0].patients[cell.real[half]]) for half in halves]
            assert not patients[0] & patients[1]
        assert cell.largest_n == min(
            len(set(sets[1].patients[cell.generated])),
            *(len(set(sets[0].patients[cell.real[half]])) for pair in cell.halves for half in pair),
        )


def test_the_halves_of_a_cell_depend_on_its_real_rows_and_the_seed_alone(sets):
    first = make_cells(*sets, LEVELS, SETTINGS)
    second = make_cells(sets[0], images("h", 40, 1, 7), {"age": LEVELS["age"]}, SETTINGS)
    by_name = {(cell.attribute, cell.group): cell for cell in first}
    for cell in second:
        pairs = zip(cell.halves, by_name[cell.attribute, cell.group].halves, strict=True)
        assert all((a == b).all() for own, other in pairs for a, b in zip(own, other, strict=True))
    seeded = make_cells(*sets, LEVELS, ResamplingSettings(repeats=3, replicates=20, min_patients=6, seed=2))
    assert (first[0].halves[0][0] != seeded[0].halves[0][0]).any()


@pytest.mark.parametrize(
    ("real", "generated", "reason"),
    [(5, 50, "too small: 5 patients"), (60, 5, "too small: 5 generated images"), (6, 6, None)],
)
def test_a_cell_needs_patients_and_generated_images(real, generated, reason):
    cell = make_cells(images("r", real), images("g", generated, 1), {}, SETTINGS)[0]
    assert cell.reason == reason and bool(cell.halves) == (reason is None)


def test_a_cell_too_small_for_the_n_of_the_user_says_what_it_allows(sets):
    settings = ResamplingSettings(matched_n=20, repeats=2, min_patients=6)
    cells = make_cells(*sets, LEVELS, settings)
    assert cells[0].reason is None and cells[0].largest_n == 30
    assert all(cell.reason and "too small for matched n: at most" in cell.reason for cell in cells[1:])
    assert matched_n(cells, settings) == 20


def test_matched_n_is_that_of_the_smallest_eligible_cell_and_at_most_400(sets):
    cells = make_cells(*sets, LEVELS, SETTINGS)
    assert matched_n(cells, SETTINGS) == min(cell.largest_n for cell in cells)
    large = make_cells(images("r", 1000, 1), images("g", 900, 1), {}, SETTINGS)
    assert large[0].largest_n == 500 and matched_n(large, SETTINGS) == 400
    assert matched_n(make_cells(images("r", 5), images("g", 9, 1), {}, SETTINGS), SETTINGS) is None


def test_a_limit_keeps_patients_with_all_of_their_images_and_is_noted():
    settings = ResamplingSettings(repeats=2, min_patients=6, limit=40)
    real = images("r", 60, 3)
    cell = make_cells(real, images("g", 30, 1), {}, settings)[0]
    assert len(cell.real) == 39 and cell.note == "39 of 180 real images, drawn by patient"
    assert set(np.bincount(np.unique(real.patients[cell.real], return_inverse=True)[1])) == {3}
    assert cell.patients == 13 and (np.diff(cell.real) > 0).all()


def test_a_subsample_of_patients_is_as_large_as_the_limit_allows():
    patients = np.repeat(np.arange(30), np.arange(30) % 3 + 1)
    for seed in range(20):
        rows = subsample_patients(patients, 25, np.random.default_rng(seed), "real")
        names, counts = np.unique(patients[rows], return_counts=True)
        assert (counts == names % 3 + 1).all()
        assert 23 <= len(rows) <= 25
    assert subsample_patients(patients, 100, np.random.default_rng(0), "real").tolist() == list(range(len(patients)))
    with pytest.raises(InputError, match="The real images cannot be limited"):
        subsample_patients(np.zeros(9), 5, np.random.default_rng(0), "real")


def test_a_patient_beyond_the_limit_is_passed_over():
    patients = np.array([0] * 10 + [1, 2, 3])
    rows = subsample_patients(patients, 3, np.random.default_rng(0), "real")
    assert rows.tolist() == [10, 11, 12]


def test_intersections_have_the_groups_of_both_attributes(sets):
    crossed, levels = cross_groups(list(sets), LEVELS)
    assert levels == {"sex & age": ["f & old", "f & young", "m & old", "m & young"]}
    codes, (sex, age) = crossed[0].groups["sex & age"], sets[0].groups.values()
    for row in range(len(codes)):
        assert codes[row] == (-1 if age[row] < 0 else 2 * sex[row] + age[row])


def test_three_attributes_have_three_intersections():
    groups = {name: np.array([0, 1, -1]) for name in "abc"}
    crossed, levels = cross_groups([GroupedImages(np.arange(3), groups)], {name: ["x", "y"] for name in "abc"})
    assert list(levels) == ["a & b", "a & c", "b & c"]
    assert crossed[0].groups["b & c"].tolist() == [0, 3, -1]


@pytest.mark.parametrize("n", [1, 3, 4, 7])
def test_subsamples_hold_one_image_of_each_of_n_patients_and_use_every_patient(n):
    patients = np.repeat(np.arange(7), [1, 2, 3, 1, 2, 1, 4])
    samples = covering_subsamples(patients, n, 5, np.random.default_rng(n))
    assert len(samples) >= 5
    assert all(len(set(patients[rows])) == len(rows) == n for rows in samples)
    rounds = -(-7 // n)
    assert set(np.concatenate([patients[rows] for rows in samples[:rounds]])) == set(range(7))


def test_every_image_of_a_patient_is_drawn_as_often():
    patients = np.repeat(np.arange(5), 3)
    samples = covering_subsamples(patients, 5, 3000, np.random.default_rng(0))
    counts = np.bincount(np.concatenate(samples), minlength=15)
    assert np.abs(counts / 3000 - 1 / 3).max() < 0.035  # four standard errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": 0}, "repeats is 0"),
        ({"replicates": 19}, "replicates is 19"),
        ({"min_patients": 1}, "min_patients is 1"),
        ({"limit": 0}, "limit is 0"),
        ({"matched_n": 1}, "matched_n is 1"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        ResamplingSettings(**options).check()
    ResamplingSettings().check()
