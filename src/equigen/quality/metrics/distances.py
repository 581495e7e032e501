"""Fréchet and kernel distances between two sets of features, as functions of arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from equigen.errors import InputError, Problem

Array = NDArray[np.float64]


def feature_matrix(features: NDArray[Any], name: str = "features") -> Array:
    """Return the features as float64 [N, D].

    Raises:
        InputError: they are not two-dimensional, or not finite; the first such row is named.

    """
    array = np.asarray(features, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        problem = Problem(f"shape {array.shape}", "give [N, D] with one row per image")
        raise InputError(f"{name} must be a matrix.", [problem])
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        problem = Problem(f"{len(bad)} rows are not finite, the first is {bad[0]}", "look at these images")
        raise InputError(f"{name} hold NaN or infinity.", [problem])
    return array


def frechet_distance(real: NDArray[Any], generated: NDArray[Any]) -> float:
    """Return the Fréchet distance between Gaussians fitted to two sets of features.

        FD = |mu_r - mu_g|² + Tr(S_r + S_g - 2 (S_r S_g)^(1/2))

    Source: Heusel et al., NeurIPS 2017, section 2 (FID when the features are those of the FID Inception
    network). Covariances have the n - 1 denominator. Since Tr (S_r S_g)^(1/2) is the nuclear norm of
    A_r A_gᵀ / sqrt((n-1)(m-1)) for centred features A, no root of a singular matrix is taken, and n < d is
    exact. The cheaper of the n x m and the d x d form is chosen.

    Args:
        real: [N, D] features.
        generated: [M, D] features.

    Returns:
        The distance, at least 0. It is biased upwards by about 1/n: compare only at equal n.

    Raises:
        InputError: fewer than two rows, different D, NaN or infinity.

    >>> float(frechet_distance(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]])))
    9.0

    """
    r, g = _check_sets(real, generated, least=2)
    mean_r, mean_g = r.mean(axis=0), g.mean(axis=0)
    a, b = (r - mean_r) / np.sqrt(len(r) - 1), (g - mean_g) / np.sqrt(len(g) - 1)
    d = r.shape[1]
    large = len(r) * len(g) > d * d
    # R of a QR decomposition has the same Gram matrix RᵀR as the rows, so the same covariance, in [D, D]
    a_small, b_small = (
        np.asarray(np.linalg.qr(rows, mode="r")) if large and len(rows) > d else rows for rows in (a, b)
    )
    root = np.linalg.svd(a_small @ b_small.T, compute_uv=False).sum()
    value = np.sum((mean_r - mean_g) ** 2) + np.sum(a * a) + np.sum(b * b) - 2 * root
    return max(0.0, float(value))


def _check_sets(real: NDArray[Any], generated: NDArray[Any], least: int) -> tuple[Array, Array]:
    """Return both feature matrices as float64; InputError for fewer than ``least`` rows or different widths."""
    r, g = feature_matrix(real, "Real features"), feature_matrix(generated, "Generated features")
    problems = [
        Problem(f"{len(rows)} {name} rows", f"give at least {least}")
        for rows, name in ((r, "real"), (g, "generated"))
        if len(rows) < least
    ]
    if r.shape[1] != g.shape[1]:
        problems.append(Problem(f"{r.shape[1]} and {g.shape[1]} columns", "use one encoder for both sides"))
    if problems:
        raise InputError("The two sets of features cannot be compared.", problems)
    return r, g


@dataclass(frozen=True)
class Influence:
    """A value with the first-order influence psi_i of each row: weights w_i in place of 1/n add sum w_i psi_i.

    ``real`` [N] and ``generated`` [M] sum to zero; ``real`` is empty for a metric of generated images alone.
    """

    value: float
    real: Array
    generated: Array


def centred_values(values: Array) -> Array:
    """Return the values less their mean."""
    return np.asarray(values - values.mean(), dtype=np.float64)


def polynomial_kernel(a: NDArray[Any], b: NDArray[Any]) -> Array:
    """Return the kernel of KID, k(x, y) = (x·y / d + 1)³ (Bińkowski et al., ICLR 2018, section 4).

    Args:
        a: [N, D] features.
        b: [M, D] features.

    Returns:
        [N, M] float64.

    """
    inner = np.asarray(a, dtype=np.float64) @ np.asarray(b, dtype=np.float64).T
    return kernel_from_products(inner, np.asarray(a).shape[1])


def kernel_from_products(inner: Array, dimension: int) -> Array:
    """Return the polynomial kernel from inner products x·y of features of that dimension."""
    base = inner / dimension + 1
    return np.asarray(base * base * base, dtype=np.float64)


def kernel_distance(real: NDArray[Any], generated: NDArray[Any], clusters: NDArray[Any] | None = None) -> float:
    """Return the unbiased squared maximum mean discrepancy with the polynomial kernel (KD; KID on Inception features).

        KD = mean_{i≠j} k(r_i, r_j) + mean_{i≠j} k(g_i, g_j) - 2 mean_{i,j} k(r_i, g_j)

    Source: Gretton et al., JMLR 13, 2012, lemma 6; Bińkowski et al., ICLR 2018. Unbiased at any n, so it may
    be negative. With ``clusters``, pairs of real rows of one cluster (patient) are left out as well: they are
    more alike than two independent rows, and would bias the first mean upwards.

    Args:
        real: [N, D] features.
        generated: [M, D] features.
        clusters: [N] cluster of each real row; None takes each row for its own.

    Raises:
        InputError: fewer than two rows or clusters, different D, NaN or infinity.

    >>> kernel_distance(np.array([[0.0], [1.0]]), np.array([[1.0], [0.0]]))
    -3.5

    """
    r, g = _check_sets(real, generated, least=2)
    codes = np.arange(len(r)) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    if len(np.unique(codes)) < 2:
        problem = Problem("all real rows are of one cluster", "give images of at least two patients")
        raise InputError("The kernel distance needs pairs of different clusters.", [problem])
    ones_r, ones_g = np.ones((1, len(r))), np.ones((1, len(g)))
    within_r = pair_mean(zero_cluster_pairs(polynomial_kernel(r, r), codes), ones_r, codes)
    within_g = pair_mean(zero_cluster_pairs(polynomial_kernel(g, g), None), ones_g, None)
    return float((within_r + within_g - 2 * cross_mean(polynomial_kernel(r, g), ones_r, ones_g))[0])


def zero_cluster_pairs(kernel: Array, codes: NDArray[np.int64] | None) -> Array:
    """Return a copy of a square kernel matrix with zero where both rows are of one cluster (None: the diagonal)."""
    result = np.array(kernel, dtype=np.float64)
    np.fill_diagonal(result, 0.0)
    if codes is not None:
        order = np.argsort(codes, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
            if len(rows) > 1:
                result[np.ix_(rows, rows)] = 0.0
    return result


def pair_mean(kernel: Array, weights: Array, codes: NDArray[np.int64] | None) -> Array:
    """Return the mean of the kernel over pairs of rows of different clusters, for each replicate.

        sum_{ij, c_i≠c_j} w_i w_j k_ij / (W² - sum_c W_c²),   W_c = sum of w over cluster c

    A row that a bootstrap drew twice is not paired with its own copy: that pair's kernel is a diagonal entry,
    and counting it would shift every replicate upwards.

    Args:
        kernel: [N, N] from ``zero_cluster_pairs``.
        weights: [R, N] multiplicities, one row per replicate.
        codes: [N] cluster codes; None takes each row for its own cluster.

    Returns:
        [R]; NaN where a replicate holds fewer than two clusters.

    """
    total = np.einsum("rn,rn->r", weights @ kernel, weights)
    if codes is None:
        same_cluster = np.einsum("rn,rn->r", weights, weights)
    else:
        same_cluster = np.square(_cluster_sums(weights, codes, int(codes.max()) + 1)).sum(axis=1)
    pairs = weights.sum(axis=1) ** 2 - same_cluster
    return _ratio(total, pairs)


def cross_mean(
    kernel: Array,
    real: Array,
    generated: Array,
    codes_real: NDArray[np.int64] | None = None,
    codes_generated: NDArray[np.int64] | None = None,
) -> Array:
    """Return the mean kernel of real and generated rows under multiplicities [R, N] and [R, M] -> [R].

    With cluster codes on one scale, the kernel holds zero where both rows are of one cluster, and these pairs
    are not counted. NaN where no pair remains.
    """
    total = np.einsum("rm,rm->r", real @ kernel, generated)
    pairs = real.sum(axis=1) * generated.sum(axis=1)
    if codes_real is not None and codes_generated is not None:
        size = int(max(codes_real.max(), codes_generated.max())) + 1
        shared = _cluster_sums(real, codes_real, size) * _cluster_sums(generated, codes_generated, size)
        pairs = pairs - shared.sum(axis=1)
    return _ratio(total, pairs)


def _cluster_sums(weights: Array, codes: NDArray[np.int64], size: int) -> Array:
    """Return the sum of the weights [R, N] over the rows of each cluster -> [R, size]."""
    member = csr_array((np.ones(len(codes)), (codes, np.arange(len(codes)))), shape=(size, len(codes)))
    return np.asarray((member @ weights.T).T, dtype=np.float64)


def _ratio(total: Array, pairs: Array) -> Array:
    """Return total / pairs, NaN where there is no pair."""
    mean: Array = np.divide(total, pairs, out=np.full(len(total), np.nan), where=pairs > 0.5)
    return mean
