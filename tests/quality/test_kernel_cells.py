from __future__ import annotations

import numpy as np
import pytest

from equigen.quality import kernel_distance
from equigen.quality.cells import Cell
from equigen.quality.metrics import kernel
from equigen.quality.metrics.kernel import kernel_data, kernel_halves, kernel_null, kernel_value
from equigen.quality.resamples import Pool


def sides(n: int, m: int, d: int = 5):
    rng = np.random.default_rng(n)
    return (
        np.abs(rng.standard_normal((n, d))).astype(np.float32),
        np.abs(rng.standard_normal((m, d))).astype(np.float32) * 1.3,
    )


@pytest.mark.parametrize("tile", [4, 7, 2048])
def test_weighted_kd_is_that_of_physically_repeated_rows(tile, monkeypatch):
    monkeypatch.setattr(kernel, "TILE", tile)
    r, g = sides(14, 11)
    patients = np.array([0, 0, 1, 1, 1, *range(2, 11)])
    data = kernel_data(r, g, patients.astype(str), np.array([f"g{i}" for i in range(11)]))
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 3, (6, 14))[:, :], rng.integers(0, 3, (6, 11))
    weights = weights[0][:, patients], weights[1]  # patients whole
    values = kernel_value(data, np.arange(14), np.arange(11), *(w.astype(float) for w in weights))
    for index in range(6):
        a, b = (np.repeat(np.arange(len(w[index])), w[index]) for w in weights)
        k = [
            [((x.astype(float) @ y) / 5 + 1) ** 3 for y in np.concatenate([r[a], g[b]]).astype(float)]
            for x in np.concatenate([r[a], g[b]])
        ]
        k, codes = np.array(k), np.concatenate([patients[a], 100 + b])
        apart = codes[:, None] != codes[None]
        n = len(a)
        within = [k[s, s][apart[s, s]].mean() for s in (slice(0, n), slice(n, None))]
        assert values[index] == pytest.approx(sum(within) - 2 * k[:n, n:].mean(), abs=1e-6)


def test_ones_give_the_plain_distance_to_double_precision(monkeypatch):
    monkeypatch.setattr(kernel, "TILE", 16)
    r, g = sides(50, 40)
    data = kernel_data(r, g, np.array([f"r{i // 2}" for i in range(50)]), np.array([f"g{i}" for i in range(40)]))
    value = kernel_value(data, np.arange(50), np.arange(40), np.ones((1, 50)), np.ones((1, 40)))[0]
    assert value == pytest.approx(kernel_distance(r, g, np.arange(50) // 2), rel=1e-10)


def test_halves_are_the_distances_between_them():
    r, g = sides(30, 20)
    rng = np.random.default_rng(1)
    orders = [rng.permutation(30) for _ in range(3)]
    halves = [(np.sort(o[:16]), np.sort(o[16:])) for o in orders]
    data = kernel_data(r, g, np.array([f"r{i}" for i in range(30)]), np.array([f"g{i}" for i in range(20)]))
    values = kernel_halves(data, Cell("*", "*", -1, np.arange(30), np.arange(20), 30, [], None), halves)
    assert values == pytest.approx([kernel_distance(r[a], r[b]) for a, b in halves], rel=1e-9)


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_null_of_all_groups_in_one_pass_is_that_of_each_alone(groups, monkeypatch):
    monkeypatch.setattr(kernel, "TILE", 8)
    r, g = sides(30, 24)
    data = kernel_data(r, g, np.array([f"r{i // 2}" for i in range(30)]), np.array([f"g{i}" for i in range(24)]))
    rng = np.random.default_rng(2)
    codes = rng.integers(0, groups, (5, 20)).astype(np.int16), rng.integers(0, groups, (5, 18)).astype(np.int16)
    pool = Pool(np.arange(4, 24), np.arange(18), *codes, groups)
    table = kernel_null(data, pool)
    for group in range(groups):
        alone = kernel_value(data, pool.real, pool.generated, *((side == group).astype(float) for side in codes))
        assert table[:, group] == pytest.approx(alone, abs=1e-5)


def test_large_pools_get_fewer_permutations(monkeypatch):
    monkeypatch.setattr(kernel, "WORK", 1.0)
    r, g = sides(12, 12)
    data = kernel_data(r, g, np.arange(12), 100 + np.arange(12))
    codes = np.random.default_rng(0).integers(0, 2, (300, 12)).astype(np.int16)
    assert kernel_null(data, Pool(np.arange(12), np.arange(12), codes, codes, 2)).shape == (99, 2)


def test_constant_features_are_exactly_zero():
    same = np.full((40, 7), 0.3, dtype=np.float32)
    data = kernel_data(same, same, np.arange(40), 100 + np.arange(40))
    weights = np.random.default_rng(0).integers(0, 3, (9, 40)).astype(float)
    assert (kernel_value(data, np.arange(40), np.arange(40), weights, weights) == 0).all()
