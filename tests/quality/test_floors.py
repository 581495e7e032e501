"""A floor errs too: held-out patients are shuffled with generated ones before one side is called closer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, permutation_test

from equigen.quality.floors import exceedance_p_value
from equigen.report.study.differences import add_holm, difference_sentences
from equigen.report.study.memorisation import memorisation_sentences


def p_of(side, reference, seed=0):
    sides = [(np.asarray(scores, float), np.asarray(codes)) for scores, codes in (side, reference)]
    return exceedance_p_value(*sides, np.random.default_rng(seed))


def test_single_images_give_the_permutation_p_of_scipy():
    rng = np.random.default_rng(1)
    first, second = rng.normal(0.6, 1, 30), rng.normal(0, 1, 40)

    def welch(a, b, axis):
        spread = a.var(axis=axis, ddof=1) / a.shape[axis] + b.var(axis=axis, ddof=1) / b.shape[axis]
        return (a.mean(axis=axis) - b.mean(axis=axis)) / np.sqrt(spread)

    other = permutation_test((first, second), welch, alternative="greater", n_resamples=4000, vectorized=True, rng=2)
    assert p_of((first, range(30)), (second, range(40))) == pytest.approx(other.pvalue, abs=0.006)


def test_equal_scores_are_no_difference_and_patients_are_needed():
    assert p_of((np.zeros(10), range(10)), (np.zeros(10), range(10))) == 1
    assert p_of(([0.0, 1.0], [0, 0]), (np.zeros(10), range(10))) is None
    assert p_of(([1.0, np.nan, 1.0], [0, 1, 0]), (np.zeros(10), range(10))) is None


@pytest.mark.parametrize("images", [(1, 1), (1, 5), (5, 1)])
def test_the_level_holds_whatever_the_images_per_patient(images):
    rng, hits = np.random.default_rng(3), 0
    for seed in range(100):
        sides = []
        for each in images:
            codes = np.repeat(np.arange(25), each)
            sides.append((rng.normal(size=25)[codes] + 0.5 * rng.normal(size=len(codes)), codes))
        hits += p_of(*sides, seed) <= 0.05
    assert binomtest(hits, 100, 0.05, "greater").pvalue > 0.001


def test_a_side_that_is_beyond_is_found():
    rng = np.random.default_rng(4)
    assert p_of((rng.normal(1.5, 1, 40), range(40)), (rng.normal(0, 1, 40), range(40))) <= 0.001


def memorised(p_values) -> pd.DataFrame:
    """Rows of near copies whose intervals all lie above a floor, with these p-values of the floor."""
    rows = [
        {
            "run": "g",
            "encoder": "e",
            "metric": "near_copies",
            "attribute": "*" if place == 0 else "sex",
            "group": "*" if place == 0 else f"g{place}",
            "estimate": 0.05,
            "ci_low": 0.03,
            "ci_high": 0.07,
            "floor": 0.01,
            "excess": 0.04,
            "null_low": np.nan,
            "null_high": np.nan,
            "p_value": np.nan,
            "note": "",
            "p_floor": p,
        }
        for place, p in enumerate(p_values)
    ]
    return pd.DataFrame(rows)


def said(quality) -> str:
    return " ".join(" ".join([own.text, *own.parts]) for own in memorisation_sentences(quality))


def test_closer_is_said_after_holm_over_the_list_alone():
    assert "closer to the training images than new real ones" not in said(memorised([0.02, 0.02, 0.3]))
    assert "no group is shown to be closer" in said(memorised([0.02, 0.02, 0.3]))
    assert "closer to the training images than new real ones" in said(memorised([0.001, 0.2, 0.3]))
    assert "sex g1" in said(memorised([0.3, 0.001, 0.4]))
    old = memorised([0, 0, 0]).drop(columns="p_floor")
    assert "taken as known" in said(old)
    assert "closer to the training images than new real ones" in said(old)


def compared(scores) -> pd.DataFrame:
    """Rows of KD whose differences are so many standard errors from 0."""
    rows = [
        {
            "run": "b",
            "difference_to": "a",
            "encoder": "e",
            "metric": "kd",
            "attribute": "*" if place == 0 else "sex",
            "group": "*" if place == 0 else f"g{place}",
            "estimate": 2.0,
            "reference": 1.0,
            "difference": score,
            "ci_low": score - 1.96,
            "ci_high": score + 1.96,
            "p_value": 0.004,
            "note": "",
        }
        for place, score in enumerate(scores)
    ]
    return pd.DataFrame(rows)


def test_better_and_worse_are_said_after_holm_over_the_groups_alone():
    adjusted = add_holm(compared([2.2, -2.2, 0.1, 4.0]))["p_holm"].to_numpy()
    assert adjusted == pytest.approx([3 * 0.0278, 3 * 0.0278, 0.920, 4 * 6.33e-5], rel=0.01)
    words = " ".join(" ".join(own.parts) for own in difference_sentences(compared([2.2, -2.2, 0.1, 4.0])))
    assert "worse for sex g3" in words
    assert "better for" not in words
    assert "no difference established for 2 of 3" in words
    assert "better for sex g1" in " ".join(difference_sentences(compared([0.0, -2.9]))[1].parts)
