from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from equigen.errors import InputError
from equigen.quality import frechet_distance, inception_score, kernel_distance
from equigen.quality.metrics import frechet
from equigen.quality.metrics.frechet import frechet_influence
from equigen.quality.metrics.kernel import kernel_data, kernel_value
from equigen.quality.metrics.scores import inception_influence


class Identity(torch.nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.num_features = features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.reshape(len(images), -1)


def features(n: int, d: int, seed: int, scale: float = 1.0) -> np.ndarray:
    return np.abs(np.random.default_rng(seed).standard_normal((n, d))) * scale


def test_frechet_by_scipy():
    a, b = features(80, 12, 0), features(70, 12, 1, 1.3)
    sa, sb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(sa + sb - 2 * np.real(sqrtm(sa @ sb)))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_of_two_gaussians_of_known_distance():
    # diagonal covariances: |mu|² + sum (s_r - s_g)² = 9 + (1 - 2)² + (1 - 0.5)² = 10.25
    rng = np.random.default_rng(0)
    a = rng.standard_normal((60_000, 2))
    b = rng.standard_normal((60_000, 2)) * [2.0, 0.5] + [3.0, 0.0]
    assert frechet_distance(a, b) == pytest.approx(10.25, rel=0.01)


@pytest.mark.parametrize(("n", "m", "d"), [(60, 50, 8), (9, 7, 30), (9, 80, 20), (80, 9, 20), (2, 2, 5)])
def test_frechet_agrees_with_torchmetrics_with_few_rows_too(n, m, d):
    a, b = features(n, d, 2), features(m, d, 3, 1.2)
    metric = FrechetInceptionDistance(feature=Identity(d))
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(a).reshape(n, d, 1, 1), real=True)
    metric.update(torch.from_numpy(b).reshape(m, d, 1, 1), real=False)
    assert frechet_distance(a, b) == pytest.approx(float(metric.compute()), rel=1e-4)


@pytest.mark.parametrize(("n", "m", "d"), [(90, 80, 10), (20, 18, 60), (30, 12, 20)])
def test_both_routes_of_frechet_give_the_same_value_and_influences(n, m, d):
    a, b = features(n, d, 4), features(m, d, 5, 1.2)
    parts = [frechet_influence(a, b, route) for route in (frechet.svd_by_rows, frechet.svd_by_features)]
    assert parts[0].value == pytest.approx(parts[1].value, rel=1e-9)
    for side in ("real", "generated"):
        first, second = (getattr(part, side) for part in parts)
        assert first == pytest.approx(second, abs=1e-6 * np.abs(first).max())
    assert frechet_distance(a, b) == pytest.approx(parts[0].value, rel=1e-9)


def test_the_route_of_frechet_is_the_d_x_d_one_where_rows_far_outnumber_features():
    assert frechet.cheaper_svd(16, 20, 10) is frechet.svd_by_features
    assert frechet.cheaper_svd(40, 15, 10) is frechet.svd_by_rows
    assert frechet.cheaper_svd(8, 9, 100) is frechet.svd_by_rows


def test_frechet_of_a_set_with_itself_is_zero_and_order_does_not_matter():
    a, b = features(40, 6, 6), features(40, 6, 7)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-10)
    shuffled = a[np.random.default_rng(0).permutation(40)]
    assert frechet_distance(shuffled, b) == pytest.approx(frechet_distance(a, b), rel=1e-12)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)


def test_frechet_of_constant_features_is_the_distance_of_the_means():
    assert frechet_distance(np.ones((5, 3)), np.full((4, 3), 3.0)) == pytest.approx(12.0)


@pytest.mark.filterwarnings("ignore:Metric .* will save all extracted features")
def test_kernel_agrees_with_torchmetrics():
    a, b = features(30, 9, 8), features(30, 9, 9, 1.4)
    metric = KernelInceptionDistance(feature=Identity(9), subsets=1, subset_size=30)
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(a).reshape(30, 9, 1, 1), real=True)
    metric.update(torch.from_numpy(b).reshape(30, 9, 1, 1), real=False)
    assert kernel_distance(a, b) == pytest.approx(float(metric.compute()[0]), rel=1e-6)


def test_kernel_is_unbiased_at_any_n():
    values = {
        n: [kernel_distance(features(n, 4, 2 * s), features(n, 4, 2 * s + 1)) for s in range(300)] for n in (4, 16)
    }
    for draws in values.values():
        assert abs(np.mean(draws)) < 3 * np.std(draws) / np.sqrt(300)


def test_kernel_leaves_out_pairs_of_one_patient():
    rng = np.random.default_rng(0)
    patient = rng.standard_normal((40, 5))
    real = np.repeat(patient, 3, axis=0)
    clusters = np.repeat(np.arange(40), 3)
    other = rng.standard_normal((60, 5))
    single = kernel_distance(patient, other)  # each patient three times is each patient once
    assert kernel_distance(real, other, clusters) == pytest.approx(single, rel=1e-10)
    assert kernel_distance(real, other) > single + 0.01  # their own copies would bias it upwards


def kernel_of(x: np.ndarray, y: np.ndarray) -> float:
    return float((x.astype(float) @ y.astype(float) / len(x) + 1) ** 3)


def distance_by_pairs(rows: np.ndarray, codes: np.ndarray, first: int) -> float:
    """KD of rows before and from ``first`` as means over all pairs of different patients, pair by pair."""
    parts = range(first), range(first, len(rows))
    means = [
        np.mean([kernel_of(rows[i], rows[j]) for i in a for j in b if codes[i] != codes[j]])
        for a, b in ((parts[0], parts[0]), (parts[1], parts[1]), (parts[0], parts[1]))
    ]
    return float(means[0] + means[1] - 2 * means[2])


def test_kernel_distance_by_pairs_written_out():
    a, b = features(7, 4, 10), features(6, 4, 11)
    codes = np.concatenate([[0, 0, 1, 2, 2, 2, 3], 10 + np.arange(6)])
    assert kernel_distance(a, b, codes[:7]) == pytest.approx(distance_by_pairs(np.concatenate([a, b]), codes, 7))
    single = np.arange(13)
    assert kernel_distance(a, b) == pytest.approx(distance_by_pairs(np.concatenate([a, b]), single, 7))


def test_the_kernel_distance_of_the_tables_is_the_public_one_to_the_last_digit():
    a, b = (features(n, 6, n).astype(np.float32) for n in (40, 30))
    patients = np.arange(40) // 3
    data = kernel_data(a, b, patients, 100 + np.arange(30))
    value = kernel_value(data, np.arange(40), np.arange(30), np.ones((1, 40)), np.ones((1, 30)))[0]
    assert kernel_distance(a, b, patients) == value


def test_relabelled_clusters_and_permuted_rows_give_one_kernel_distance():
    a, b, clusters = features(12, 4, 10), features(9, 4, 11), np.repeat(["x", "y", "z", "w"], 3)
    value, order = kernel_distance(a, b, clusters), np.random.default_rng(0).permutation(12)
    assert kernel_distance(a[order], b, clusters[order]) == pytest.approx(value, rel=1e-9)
    assert kernel_distance(a, b, np.repeat([7, 3, 9, 1], 3)) == pytest.approx(value, rel=1e-12)
    assert kernel_distance(a, b) != pytest.approx(value, rel=1e-3)


def test_kernel_distance_counts_no_pair_of_one_patient_in_both_sets():
    a, b = features(4, 3, 12), features(3, 3, 13)
    codes = np.array([0, 0, 1, 2, 0, 3, 2])
    data = kernel_data(a, b, codes[:4], codes[4:])
    value = kernel_value(data, np.arange(4), np.arange(3), np.ones((1, 4)), np.ones((1, 3)))[0]
    assert value == pytest.approx(distance_by_pairs(np.concatenate([a, b]), codes, 4))


def test_a_replicate_with_one_patient_is_undefined():
    data = kernel_data(features(3, 2, 0), features(3, 2, 1), np.arange(3), 3 + np.arange(3))
    weights = np.array([[1.0, 1.0, 1.0], [3.0, 0.0, 0.0]])
    values = kernel_value(data, np.arange(3), np.arange(3), weights, np.ones((2, 3)))
    assert np.isfinite(values[0]) and np.isnan(values[1])


def test_frechet_without_rows_to_spare_and_of_a_shift():
    a = np.array([[0.0, 0.0], [2.0, 0.0]])  # variance 2 along the first axis alone
    assert frechet_distance(a, a + np.array([3.0, 4.0])) == pytest.approx(25.0)
    assert frechet_distance(a, a[:, ::-1]) == pytest.approx(2 + 2 + 1 + 1)  # orthogonal spreads share no root
    assert frechet_distance(a, 2 * a) == pytest.approx(1 + 2 + 8 - 2 * 4)


@pytest.mark.filterwarnings("ignore:Metric .* will save all extracted features", "ignore:std")
def test_inception_score_agrees_with_torchmetrics():
    logits = np.random.default_rng(0).standard_normal((50, 7)) * 2
    metric = InceptionScore(feature=Identity(7), splits=1)
    metric.update(torch.from_numpy(logits).reshape(50, 7, 1, 1))
    probabilities = torch.from_numpy(logits).softmax(1).numpy()
    assert inception_score(probabilities) == pytest.approx(float(metric.compute()[0]), rel=1e-6)


def test_inception_score_by_hand():
    assert inception_score(np.eye(3)) == pytest.approx(3.0)
    assert inception_score(np.full((5, 4), 0.25)) == pytest.approx(1.0)


def test_influence_of_the_inception_score_is_the_jackknife():
    p = np.random.default_rng(0).dirichlet(np.ones(5), 12)
    part = inception_influence(p)
    brute = np.array([11 * (inception_score(p) - inception_score(np.delete(p, i, axis=0))) for i in range(12)])
    assert part.value == pytest.approx(inception_score(p))
    assert part.generated == pytest.approx(brute - brute.mean())


@pytest.mark.parametrize(("n", "m", "d"), [(15, 12, 6), (15, 12, 60), (7, 9, 30), (20, 20, 20), (12, 9, 4)])
def test_influence_of_frechet_is_the_jackknife(n, m, d):
    a, b = features(n, d, 20), features(m, d, 21, 1.2)
    part = frechet_influence(a, b)
    whole = frechet_distance(a, b)
    assert part.value == pytest.approx(whole, rel=1e-9)
    real = [(n - 1) * (whole - frechet_distance(np.delete(a, i, axis=0), b)) for i in range(n)]
    made = [(m - 1) * (whole - frechet_distance(a, np.delete(b, i, axis=0))) for i in range(m)]
    for own, brute in ((part.real, np.array(real)), (part.generated, np.array(made))):
        assert own == pytest.approx(brute - brute.mean(), abs=1e-6 * np.abs(brute).max())


@pytest.mark.parametrize("metric", [frechet_distance, kernel_distance])
def test_bad_features_are_refused(metric):
    good = features(5, 3, 0)
    bad = good.copy()
    bad[2, 1] = np.nan
    with pytest.raises(InputError, match="the first is 2"):
        metric(good, bad)
    with pytest.raises(InputError, match="3 and 2 columns"):
        metric(good, features(5, 2, 0))
    with pytest.raises(InputError, match="1 real rows"):
        metric(good[:1], good)
    with pytest.raises(InputError, match="must be a matrix"):
        metric(good[0], good)


def test_bad_probabilities_and_one_cluster_are_refused():
    with pytest.raises(InputError, match="sum to one"):
        inception_score(np.full((4, 3), 0.5))
    with pytest.raises(InputError, match="one cluster"):
        kernel_distance(features(4, 3, 0), features(4, 3, 1), np.zeros(4))
