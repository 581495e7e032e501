from __future__ import annotations

import numpy as np
import pytest

from equigen.errors import InputError
from equigen.quality import frechet_distance, frechet_infinity
from equigen.quality.estimates import influence_variance
from equigen.quality.metrics.frechet import frechet_influence, infinity_influence, intercept_weights, subsample_slices


def test_the_intercept_is_that_of_a_line_through_values_that_are_linear_in_one_over_n():
    weights = intercept_weights(120)
    assert weights.sum() == pytest.approx(1)
    assert weights @ (7.0 + 30.0 / np.array([120, 60, 40, 30])) == pytest.approx(7.0)
    slope, intercept = np.polyfit(1 / np.array([120, 60, 40, 30]), [1.0, 5.0, 2.0, 8.0], 1)
    assert weights @ [1.0, 5.0, 2.0, 8.0] == pytest.approx(intercept)
    assert slope != 0


def test_pieces_use_every_row_once_at_each_size():
    for k, cut in enumerate(subsample_slices(24), start=1):
        assert sorted(np.concatenate([np.arange(24)[part] for part in cut])) == list(range(24))
        assert {part.stop - part.start for part in cut} == {24 // k}


def test_gaussians_of_known_distance_without_the_bias_of_few_images():
    # |mu|² + sum (1 - 1.5)² = 16 * 0.04 + 16 * 0.25 = 4.64
    values, plain = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        a, b = rng.standard_normal((300, 16)), rng.standard_normal((300, 16)) * 1.5 + 0.2
        values.append(frechet_infinity(a, b, repeats=2))
        plain.append(frechet_distance(a, b))
    error = np.std(values) / np.sqrt(12)
    assert abs(np.mean(values) - 4.64) < 3 * error + 0.1
    assert np.mean(plain) > 4.64 + 0.5


def test_influence_is_the_combination_of_the_pieces():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((24, 3)), rng.standard_normal((24, 3)) + 1
    part = infinity_influence(a, b, frechet_influence(a, b))
    sizes = [np.mean([frechet_distance(a[c], b[c]) for c in cut]) for cut in subsample_slices(24)]
    assert part.value == pytest.approx(intercept_weights(24) @ sizes, rel=1e-9)
    own = sum(
        w * frechet_influence(a[c], b[c]).real[0]
        for w, c in zip(intercept_weights(24), (slice(0, 24 // k) for k in (1, 2, 3, 4)), strict=True)
    )
    assert part.real[0] == pytest.approx(own)
    assert part.real.sum() == pytest.approx(0, abs=1e-8)


def test_too_few_rows_or_other_features_are_refused():
    rows = np.random.default_rng(0).standard_normal((7, 3))
    with pytest.raises(InputError, match="eight rows"):
        frechet_infinity(rows, rows)
    with pytest.raises(InputError, match="eight rows"):
        frechet_infinity(np.ones((9, 3)), np.ones((9, 2)))


def test_spread_takes_the_variance_of_influences_apart():
    # psi = x_i + e, x and e of variance 4 and 2 V2 (1 - f) with V2 = 3, f = 0: linear 4, pairs 3
    rng = np.random.default_rng(0)
    rows, x = np.arange(20_000), 2 * rng.standard_normal(20_000)
    subsamples = [(rows, x + np.sqrt(6) * rng.standard_normal(20_000)) for _ in range(5)]
    spread = influence_variance(np.arange(20_000), subsamples, 0.0)
    assert spread.linear == pytest.approx(4, rel=0.05)
    assert spread.pairs == pytest.approx(3, rel=0.05)
    assert spread.scaled(0.2).var() == pytest.approx(4 + 0.2 * 3, rel=0.05)
    once = influence_variance(np.arange(20_000), [(rows, x)], 0.0)  # one subsample tells nothing apart
    assert once.scaled(1.0) == pytest.approx(x)
