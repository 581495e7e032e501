"""Means over training seeds: intervals by hand, and their coverage where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from equigen.errors import InputError
from equigen.statistics import mean_over_seeds
from equigen.statistics.seeds import satterthwaite

VALUES = np.array([1.0, 2.0, 6.0])
DRAWS = np.array([[0.0, 1.0, 2.0, 1.0], [2.0, 3.0, 4.0, 3.0], [4.0, 5.0, 6.0, 5.0]])  # mean over seeds: 2, 3, 4, 3


def test_intervals_by_hand():
    found = mean_over_seeds(VALUES, DRAWS, patients=11)
    a, v = 7.0 / 3, 2.0 / 3  # s² is 7; the means' variance is (1 + 0 + 1 + 0) / 3
    assert (found.estimate, found.seeds, found.lost) == (3.0, 3, 0)
    assert found.seed == pytest.approx([3 - 4.302653 * a**0.5, 3 + 4.302653 * a**0.5], abs=1e-5)
    assert found.patient == pytest.approx([3 - 2.228139 * v**0.5, 3 + 2.228139 * v**0.5], abs=1e-5)
    df = (a + v) ** 2 / (a**2 / 2 + v**2 / 10)
    assert found.df == pytest.approx(df)
    half = stats.t.ppf(0.975, df) * np.sqrt(3.0)
    assert found.joint == pytest.approx([3 - half, 3 + half])
    assert found.p_value == pytest.approx(2 * stats.t.sf(3 / np.sqrt(3.0), df))


def test_satterthwaite_is_the_df_of_welchs_test():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(5), 3 * rng.standard_normal(9)
    mine = satterthwaite([x.var(ddof=1) / 5, y.var(ddof=1) / 9], [4.0, 8.0])
    assert mine == pytest.approx(stats.ttest_ind(x, y, equal_var=False).df)


def test_without_a_number_of_patients_their_variance_counts_as_known():
    found = mean_over_seeds(VALUES, DRAWS)
    half = 1.959964 * np.sqrt(2 / 3)
    assert found.patient == pytest.approx([3 - half, 3 + half], abs=1e-5)


def test_one_seed_says_nothing_about_another_training():
    found = mean_over_seeds(VALUES[:1], DRAWS[:1], patients=11)
    assert (found.seed, found.joint, found.p_value, found.df) == (None, None, None, None)
    assert found.patient == pytest.approx([1 - 2.228139 * (2 / 3) ** 0.5, 1 + 2.228139 * (2 / 3) ** 0.5], abs=1e-5)


def test_without_resamples_only_seeds_are_known():
    found = mean_over_seeds(VALUES, None)
    assert found.seed == mean_over_seeds(VALUES, DRAWS).seed
    assert (found.patient, found.joint, found.p_value) == (None, None, None)


def test_undefined_resamples_are_counted_and_too_many_give_no_interval():
    holed = np.concatenate([DRAWS, np.full((3, 2), np.nan)], axis=1)
    holed[1, 4] = 9.0
    found = mean_over_seeds(VALUES, holed, patients=11)
    assert found.lost == 2
    assert found.patient == mean_over_seeds(VALUES, DRAWS, patients=11).patient
    most = np.concatenate([DRAWS, np.full((3, 5), np.nan)], axis=1)
    assert mean_over_seeds(VALUES, most).patient is None
    assert mean_over_seeds(VALUES, most).lost == 5


def test_no_difference_at_all_has_no_width_and_p_one():
    found = mean_over_seeds(np.zeros(3), np.zeros((3, 30)), patients=40)
    assert found.joint == (0.0, 0.0)
    assert found.p_value == 1.0


def test_bad_input():
    for values, draws, patients in (
        (np.array([]), None, None),
        (np.array([np.nan]), None, None),
        (VALUES, DRAWS[:2], None),
        (VALUES, DRAWS[0], None),
        (VALUES, DRAWS, 1),
    ):
        with pytest.raises(InputError):
            mean_over_seeds(values, draws, patients=patients)


def trials(seeds: int, between: float, patients: int = 50, runs: int = 800, apart: float = 0.0):
    """Figures of S trainings on P patients whose truth is 0, with bootstrap replicates that share their patients.

    A patient adds a standard normal to all seeds and ``apart`` times another to each; ``between`` is the standard
    deviation of trainings.
    """
    rng = np.random.default_rng(seeds)
    weights = rng.multinomial(patients, np.full(patients, 1 / patients), size=100) / patients
    for _ in range(runs):
        scores = rng.standard_normal(patients) + apart * rng.standard_normal((seeds, patients))
        offsets = between * rng.standard_normal((seeds, 1))
        yield (scores.mean(axis=1) + offsets[:, 0]), scores @ weights.T + offsets


def covered(found) -> np.ndarray:
    return np.mean([[low <= 0 <= high for low, high in ends] for ends in found], axis=0)


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_joint_interval_covers_other_trainings_and_other_patients(seeds):
    between = np.sqrt(seeds / 50)  # as much variance of the mean from seeds as from patients
    found = [mean_over_seeds(*trial, patients=50) for trial in trials(seeds, between)]
    joint, seed, patient = covered([(own.joint, own.seed, own.patient) for own in found])
    assert joint == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / 800))
    assert seed < 0.92  # the same patients for all seeds
    assert patient < 0.88
    small = np.mean([own.p_value <= 0.05 for own in found])
    assert small == pytest.approx(1 - joint, abs=1e-9)


def test_coverage_with_mostly_seeds_or_mostly_patients():
    for between, low, high in ((0.45, 0.90, 0.975), (0.02, 0.925, 0.98)):
        found = [mean_over_seeds(*trial, patients=50) for trial in trials(3, between, runs=500)]
        assert low < covered([(own.joint,) for own in found])[0] < high


def test_patients_on_whom_seeds_differ_make_the_interval_wider_than_needed_not_narrower():
    found = [mean_over_seeds(*trial, patients=50) for trial in trials(3, 0.05, runs=500, apart=2.0)]
    assert covered([(own.joint,) for own in found])[0] > 0.94
