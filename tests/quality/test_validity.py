"""P-values are uniform under the null and intervals cover: the fast part of benchmarks/validity.py.

Seeds are fixed, so a test either always passes or always fails. A threshold of 0.001 for a Kolmogorov-Smirnov or
binomial test means that one right implementation in a thousand would have met an unlucky seed; with 200 cohorts
the same test finds p-values whose distribution is off by 0.14 anywhere, and rejections of 0.11 in place of 0.05.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from equigen.quality import kernel_distance

sys.path.insert(0, str(Path(__file__).parents[2]))
validity = importlib.import_module("benchmarks.validity")

COHORTS, FEWER, UNLUCKY = 200, 100, 0.001
SETTINGS = replace(validity.SETTINGS, matched_n=12, replicates=99, repeats=2, min_patients=15)
SMALL = {"real": (26, 50), "generated": (26, 50)}
WORLDS = {name: replace(world, **SMALL) for name, world in validity.WORLDS.items()}
# 99 replicates put 3.45 % in place of 2.5 % beyond each end of a percentile interval: (0.025 · 98 + 1) / 100
NOMINAL = 0.93


def likely(hits, count: int, share: float) -> bool:
    return binomtest(int(hits), count, share).pvalue > UNLUCKY


def in_group(table: pd.DataFrame, group: str) -> pd.DataFrame:
    return table[table.group == group]


@pytest.fixture(scope="module")
def kernel_tables() -> dict[str, pd.DataFrame]:
    return {name: validity.cohorts(world, COHORTS, ["kd"], SETTINGS) for name, world in WORLDS.items()}


@pytest.fixture(scope="module")
def auc_table() -> pd.DataFrame:
    world = replace(validity.DIFFERENT, **SMALL)
    return pd.concat([validity.bare_table(world, seed, SETTINGS, "semantic_auc") for seed in range(FEWER)])


@pytest.mark.parametrize("name", WORLDS)
def test_p_values_of_the_kernel_distance_are_uniform_where_groups_do_not_differ(kernel_tables, name):
    found = validity.null_p_values(kernel_tables[name], "kd", SETTINGS.replicates)
    assert found["cohorts"] == COHORTS
    assert found["kolmogorov-smirnov p"] > UNLUCKY
    assert likely(round(found["rejected at 0.05"] * COHORTS), COHORTS, 0.05)


def test_permuting_images_in_place_of_patients_would_reject_too_often():
    """The counter-example: with patients torn apart the same test is anti-conservative, and the check sees it."""
    world = validity.World((20, 40), (150, 200), images=(6, 6), alike=0.95, shift=1.0, spread=0.2)
    pulled = []
    for seed in range(40):
        real = world.side("real", seed)
        torn = replace(real, patients=np.array([f"image {row}" for row in range(len(real.patients))]))
        made = world.side("generated", seed)
        inputs = validity.EvaluationInputs(torn, {"generated": made}, ["kd"])
        pulled.append(
            validity.measure_sets(
                inputs,
                {"group": ["a", "b"]},
                replace(SETTINGS, seed=seed),
                encoder="simulated",
                intersections=False,
                show=False,
            ).quality
        )
    assert validity.null_p_values(pd.concat(pulled), "kd", SETTINGS.replicates)["verdict"] == "anti-conservative"


def test_p_values_of_the_auc_are_uniform_where_groups_do_not_differ(auc_table):
    found = validity.null_p_values(auc_table, "semantic_auc", SETTINGS.replicates)
    assert found["cohorts"] > 0.95 * FEWER  # a cohort in which a group has too few of a class has no p-value
    assert found["kolmogorov-smirnov p"] > UNLUCKY
    assert likely(round(found["rejected at 0.05"] * FEWER), FEWER, 0.05)


def test_near_copies_are_never_found_unequal_too_often():
    world = replace(validity.DIFFERENT, **SMALL)
    table = pd.concat([validity.bare_table(world, seed, SETTINGS, "near_copies") for seed in range(40)])
    rejected = (in_group(table, "gap").p_value <= 0.05).sum()
    assert binomtest(int(rejected), 40, 0.05, "greater").pvalue > UNLUCKY


def test_to_first_order_too_a_gap_is_not_found_too_often():
    world = replace(validity.DIFFERENT, **SMALL)
    table = validity.cohorts(world, 60, ["fd", "precision"], SETTINGS)
    for metric in ("fd", "precision"):
        p = in_group(table[table.metric == metric], "gap").p_value.dropna()
        assert len(p) > 55
        assert binomtest(int((p <= 0.05).sum()), len(p), 0.05, "greater").pvalue > UNLUCKY, metric
        assert p.max() > 0.5


def test_the_true_kernel_distance_is_what_a_large_sample_gives():
    world, rng = validity.DIFFERENT, np.random.default_rng(0)
    samples = [
        (rng.standard_normal((1500, 4)), world.shift + world.spread * rng.standard_normal((1500, 4))) for _ in range(8)
    ]
    values = np.array([kernel_distance(*pair) for pair in samples])
    assert abs(values.mean() - validity.true_kernel_distance(world)) < 4 * values.std(ddof=1) / np.sqrt(8)
    assert validity.true_kernel_distance(validity.World()) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("group", ["*", "a", "b"])
def test_intervals_of_the_kernel_distance_hold_its_true_value(kernel_tables, group):
    world = WORLDS["the generator differs"]
    rows = in_group(kernel_tables["the generator differs"], group)
    truth = validity.true_kernel_distance(world)
    assert likely(((rows.ci_low <= truth) & (truth <= rows.ci_high)).sum(), COHORTS, NOMINAL)
    error = rows.estimate.std() / np.sqrt(COHORTS)
    assert abs(rows.estimate.mean() - truth) < 4 * error


@pytest.mark.parametrize("group", ["*", "b"])
def test_intervals_of_the_auc_hold_its_true_value(auc_table, group):
    rows = in_group(auc_table, group)
    held = (rows.ci_low <= validity.TRUE_AUC) & (rows.ci_high >= validity.TRUE_AUC)
    assert likely(held.sum(), FEWER, NOMINAL)


def test_intervals_of_the_difference_of_equal_generators_leave_out_zero_as_seldom_as_they_should():
    found = validity.paired(60, SETTINGS)["excludes zero"]
    assert set(found) == {"kd *", "kd a", "kd b"}
    assert all(likely(round(share * 60), 60, 1 - NOMINAL) for share in found.values())


@pytest.mark.parametrize("most", [1, 3])
def test_groups_of_unequal_size_from_one_distribution_differ_in_raw_fd_alone(most):
    found = validity.unequal_groups(30, replace(SETTINGS, matched_n=18), images=(1, most))
    assert found["raw fd"]["share of cohorts in which the small group looks worse"] == 1
    for figure in ("estimate of fd", "excess of fd", "estimate of kd", "excess of kd"):
        part = found[figure]
        assert abs(part["mean of small less large"]) < 3.5 * part["its standard error"], figure
    assert abs(found["excess of fd"]["mean of small less large"]) < 0.3 * found["raw fd"]["mean of small less large"]
    assert binomtest(round(30 * found["kd beyond its null band"]), 30, 0.05, "greater").pvalue > UNLUCKY


def test_extrapolation_takes_the_bias_out_of_the_frechet_distance():
    found = validity.gaussians()
    assert found["true value"] == pytest.approx(2.32)
    plain, extrapolated = found["fd"], found["fd infinity"]
    assert plain["bias"] > 4 * plain["its standard error"]
    assert abs(extrapolated["bias"]) < 3 * extrapolated["its standard error"]
    assert abs(extrapolated["bias"]) < plain["bias"] / 3
