"""Fréchet distance with jackknife influences, and its extrapolation to infinitely many images (FD-infinity)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equigen.errors import InputError, Problem
from equigen.quality.cells import Cell, Rows
from equigen.quality.estimates import measure_with_influences
from equigen.quality.metric_inputs import MeasurementPlan, MetricResult
from equigen.quality.metrics.influence import Array, Influence, centred_values, check_sets, feature_matrix
from equigen.seeds import numpy_generator

RANK = 1e-10  # singular values below this share of the largest count as zero
STEP = 0.5  # of the trapezoidal rule in ``_nuclear_norm_losses``, in log t
TALL = 1.5  # with more rows than this many times the features, d x d is cheaper (benchmarks/quality.py)
Decomposition = Callable[[Array, Array], tuple[Array, Array, Array]]
PARTS = 4  # FD-infinity is fitted to samples of n, n/2, n/3 and n/4


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
    r, g = check_sets(real, generated, least=2)
    sets = _centre(r, g)
    a, b = sets.a, sets.b
    if cheaper_svd(len(a), len(b), a.shape[1]) is svd_by_features:
        a, b = (np.asarray(np.linalg.qr(rows, mode="r")) for rows in (a, b))
    return sets.distance(float(np.linalg.svd(a @ b.T, compute_uv=False).sum()))


@dataclass(frozen=True)
class _CentredSets:
    """Difference of the means [D], rows less their means [n, D] and [m, D], and their squared norms [n] and [m]."""

    shift: Array
    a: Array
    b: Array
    square_a: Array
    square_b: Array

    def distance(self, root: float) -> float:
        """Return the Fréchet distance, at least 0, from the nuclear norm of a bᵀ."""
        n, m = len(self.a) - 1, len(self.b) - 1
        moments = self.shift @ self.shift + self.square_a.sum() / n + self.square_b.sum() / m
        return max(0.0, float(moments - 2 * root / np.sqrt(n * m)))


def _centre(real: Array, generated: Array) -> _CentredSets:
    """Return both sets less their means."""
    means = real.mean(axis=0), generated.mean(axis=0)
    a, b = real - means[0], generated - means[1]
    squares = (np.einsum("ij,ij->i", rows, rows) for rows in (a, b))
    return _CentredSets(means[0] - means[1], a, b, *squares)


def frechet_influence(real: Array, generated: Array, decompose: Decomposition | None = None) -> Influence:
    """Return the Fréchet distance with the exact jackknife influence of each row, psi_i = (n - 1) (FD - FD without i).

    The derivative at the sample ignores that each row enters the moments it is compared with, and makes intervals
    far too wide where n is not large beside d; the jackknife does not (Efron and Stein, Ann. Stat. 9, 1981).
    Leaving row i out changes the centred A = A_r A_gᵀ = U s Vᵀ by rank one, AᵀA - n/(n-1) a_i a_iᵀ, so that all
    n nuclear norms without a row follow from one decomposition (``_nuclear_norm_losses``).

    Where both sets have more rows than 1.5 times the features, U and V come from the d x d product of their R
    factors, which is cheaper there; else from the n x m matrix.

    Args:
        real: [n, D] features, n at least 2.
        generated: [m, D].
        decompose: ``svd_by_rows`` or ``svd_by_features``; None takes the cheaper one.

    Returns:
        The distance, equal to ``frechet_distance``, with its influences.

    """
    n, m, d = len(real), len(generated), real.shape[1]
    sets = _centre(real, generated)
    u, s, v = (decompose or cheaper_svd(n, m, d))(sets.a, sets.b)
    root = s.sum()
    psi = []
    for size, opposite, centred, square, vectors, sign in (
        (n, m, sets.a, sets.square_a, u, -1),
        (m, n, sets.b, sets.square_b, v, 1),
    ):
        degrees = max(1, size - 2)
        mean_term = sign * 2 * (centred @ sets.shift) / (size - 1) + square / (size - 1) ** 2
        trace = (square.sum() - square * size / (size - 1)) / degrees
        losses = _nuclear_norm_losses(vectors, s)
        distances = mean_term + trace - 2 * (root - losses) / np.sqrt(degrees * (opposite - 1))
        psi.append(centred_values(-(size - 1) * distances))
    return Influence(sets.distance(float(root)), psi[0], psi[1])


def _nuclear_norm_losses(u: Array, s: Array) -> Array:
    """Return by how much the nuclear norm of a centred matrix U s Vᵀ shrinks without each of its rows -> [n].

    With sqrt(x) = 1/pi ∫ log(1 + x/t²) dt over t > 0 and the determinant of a rank-one change,

        |A|_* - |A without i|_* = -1/pi ∫ log(1 - c sum_j u_ij² s_j²/(s_j² + t²)) dt,   c = n/(n-1)

    by the trapezoidal rule in log t, whose error at this step is below 1e-8 relative.
    """
    n = len(u)
    if s.max(initial=0.0) == 0:
        return np.zeros(n)
    positive = s > RANK * s.max()  # the vectors of a zero singular value are not unique
    s, squares = s[positive], np.square(u[:, positive])
    c, logs = n / (n - 1), np.arange(-24.0, 7.25, STEP)
    nodes = s.max() * np.exp(logs)
    shares = nodes**2 / (np.square(s)[:, None] + nodes**2)
    rest = np.maximum(0.0, 1 - c * squares.sum(axis=1))
    heights = -np.log(rest[:, None] + c * (squares @ shares)) * nodes
    tail = heights[:, -1] / np.expm1(STEP)  # beyond the last node heights fall as 1/t: a geometric series
    return np.asarray((heights.sum(axis=1) + tail) * STEP / np.pi)


def cheaper_svd(n: int, m: int, d: int) -> Decomposition:
    """Return the cheaper way to singular vectors for n and m rows of d features."""
    return svd_by_features if min(n, m) > TALL * d else svd_by_rows


def svd_by_rows(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """Return the SVD of a bᵀ, from the n x m matrix: a [n, D], b [m, D] -> u [n, k], s [k], v [m, k]."""
    u, s, vt = np.linalg.svd(a @ b.T, full_matrices=False)
    return u, s, vt.T


def svd_by_features(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """Return the SVD of a bᵀ from a d x d matrix: a = Q_a R_a, b = Q_b R_b, and R_a R_bᵀ is decomposed."""
    (qa, ra), (qb, rb) = np.linalg.qr(a), np.linalg.qr(b)
    u, s, vt = np.linalg.svd(ra @ rb.T, full_matrices=False)
    return qa @ u, s, qb @ vt.T


def subsample_slices(n: int) -> list[list[slice]]:
    """Return the cuts of n rows for FD-infinity: one piece of n, two of n // 2, three of n // 3, four of n // 4."""
    return [[slice(index * (n // k), (index + 1) * (n // k)) for index in range(k)] for k in range(1, PARTS + 1)]


def intercept_weights(n: int) -> Array:
    """Return the weights [4] that give the intercept of the least-squares line in 1/n from FD at n, n/2, n/3, n/4."""
    inverse = 1.0 / np.array([n // k for k in range(1, PARTS + 1)])
    centred = inverse - inverse.mean()
    return np.asarray(1 / PARTS - inverse.mean() * centred / (centred @ centred))


def frechet_infinity(real: NDArray[Any], generated: NDArray[Any], *, repeats: int = 5, seed: int = 0) -> float:
    """Return FD extrapolated to infinitely many real and generated images.

        FD(n) = FD_inf + b/n,    fitted by least squares to FD at n, n/2, n/3 and n/4

    Source: Chong and Forsyth, CVPR 2020, section 3, who vary the number of generated images alone; here both sets
    shrink together, which also removes the bias of the real set. Each fit uses all of n rows at every size (four
    pieces at n/4); fits of ``repeats`` random orders are averaged. Where n/4 is below the number of features, FD is
    far from linear in 1/n and bias remains.

    Args:
        real: [N, D] features.
        generated: [M, D]; n is the smaller of N and M.
        repeats: how many random orders.
        seed: of the orders.

    Returns:
        The intercept; unlike FD it may be negative.

    Raises:
        InputError: fewer than eight rows in a set, different D, NaN or infinity.

    """
    r, g = feature_matrix(real, "Real features"), feature_matrix(generated, "Generated features")
    n = min(len(r), len(g))
    if n < 2 * PARTS or r.shape[1] != g.shape[1]:
        problem = Problem(f"shapes {r.shape} and {g.shape}", "give eight rows or more of one encoder's features")
        raise InputError("FD-infinity cannot be extrapolated.", [problem])
    values = []
    for index in range(repeats):
        rng = numpy_generator(seed, "quality/fd_inf", index)
        orders = [rng.permutation(len(rows))[:n] for rows in (r, g)]
        values.append(_extrapolated_distance(r[orders[0]], g[orders[1]]))
    return float(np.mean(values))


def _extrapolated_distance(real: Array, generated: Array) -> float:
    """Return FD-infinity of equally many rows of both sets in their present order."""
    means = [
        np.mean([frechet_distance(real[piece], generated[piece]) for piece in slices])
        for slices in subsample_slices(len(real))
    ]
    return float(intercept_weights(len(real)) @ means)


def infinity_influence(real: Array, generated: Array, full: Influence) -> Influence:
    """Return FD-infinity of n rows of both sets with its influences, combined from those of every piece.

    ``full`` is ``frechet_influence`` of all n rows.
    """
    n, weights = len(real), intercept_weights(len(real))
    value, psi = weights[0] * full.value, [weights[0] * full.real, weights[0] * full.generated]
    for weight, slices in zip(weights[1:], subsample_slices(n)[1:], strict=True):
        for piece in slices:
            influence = frechet_influence(real[piece], generated[piece])
            value += weight * influence.value / len(slices)
            psi[0][piece] += weight * influence.real
            psi[1][piece] += weight * influence.generated
    return Influence(float(value), psi[0], psi[1])


def frechet_halves(real: NDArray[Any], cell: Cell, plan: MeasurementPlan) -> Array:
    """Return FD between the two halves of each of ``plan.half_samples`` of the cell's real rows."""
    return plan.compute_for_halves("fd of halves", cell, lambda: _half_distances(frechet_distance, real, cell, plan))


def _half_distances(
    distance: Callable[[Array, Array], float], real: NDArray[Any], cell: Cell, plan: MeasurementPlan
) -> Array:
    """Return the distance between the two halves of each of ``plan.half_samples``."""
    halves = plan.half_samples(cell)
    return np.array([distance(real[a].astype(np.float64), real[b].astype(np.float64)) for a, b in halves])


def measure_frechet(
    real: NDArray[np.float32],
    generated: NDArray[np.float32],
    plan: MeasurementPlan,
    metrics: list[str],
    notes: dict[str, str],
) -> list[MetricResult]:
    """Measure ``fd`` and ``fd_inf`` at n in every eligible cell; the floor is FD of two halves of its real images.

    Args:
        real: [N, D] features.
        generated: [M, D].
        plan: cells and draws; n of 8 or more for ``fd_inf``.
        metrics: "fd", "fd_inf" or both; together they share their work.
        notes: note of each metric's rows.

    """

    def influences(real_rows: Rows, generated_rows: Rows) -> list[Influence]:
        a, b = real[real_rows].astype(np.float64), generated[generated_rows].astype(np.float64)
        full = frechet_influence(a, b)
        return [full if name == "fd" else infinity_influence(a, b, full) for name in metrics]

    def floor(cell: Cell) -> list[Array]:
        return [
            frechet_halves(real, cell, plan)
            if name == "fd"
            else _half_distances(_extrapolated_distance, real, cell, plan)
            for name in metrics
        ]

    return measure_with_influences(
        [(name, "lower") for name in metrics], influences, floor, plan, [notes[name] for name in metrics]
    )
