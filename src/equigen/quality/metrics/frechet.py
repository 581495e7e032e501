"""Fréchet distance with influences, its extrapolation to infinitely many images, and both in every cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equigen.errors import InputError, Problem
from equigen.quality.cells import Cell, Rows
from equigen.quality.estimates import measure_plugs
from equigen.quality.metric_inputs import Measured, Plan
from equigen.quality.metrics.distances import Array, Influence, centred_values, feature_matrix
from equigen.seeds import numpy_generator

RANK = 1e-10  # of the largest singular value: below it one is zero
STEP = 0.5  # of the trapezoidal rule in ``_lost``
TALL = 1.5  # more rows than this many times the features: the d x d route is the cheaper one (benchmarks/quality.py)
Route = Callable[[Array, Array], tuple[Array, Array, Array]]
PARTS = 4  # FD-infinity looks at samples of n, n/2, n/3 and n/4


def frechet_influence(real: Array, generated: Array, route: Route | None = None) -> Influence:
    """Fréchet distance and the influence of each row by the exact jackknife, psi_i = (n - 1) (FD - FD without i).

    The plain derivative at the sample misses that each row was among those it is judged by, and makes intervals
    far too wide where n is not large beside d; leaving rows out does not (Efron and Stein, Ann. Stat. 9, 1981).
    Leaving row i out changes the centred A = A_r A_gᵀ = U s Vᵀ by rank one, AᵀA - n/(n-1) a_i a_iᵀ, so that all
    n nuclear norms without a row follow from one decomposition (``_lost``).

    Where both sides have more rows than 1.5 times the features, U and V come from the d x d product of their R
    factors, which is cheaper there; else from the n x m matrix.

    Args:
        real: [n, D] features, n at least 2.
        generated: [m, D].
        route: ``by_rows`` or ``by_features``; None takes the cheaper one.

    Returns:
        The distance, the same as ``frechet_distance``, with its influences.

    """
    n, m, d = len(real), len(generated), real.shape[1]
    shift = real.mean(axis=0) - generated.mean(axis=0)
    a, b = real - real.mean(axis=0), generated - generated.mean(axis=0)
    square_a, square_b = np.einsum("ij,ij->i", a, a), np.einsum("ij,ij->i", b, b)
    u, s, v = (route or cheaper_route(n, m, d))(a, b)
    root = s.sum()
    value = shift @ shift + square_a.sum() / (n - 1) + square_b.sum() / (m - 1) - 2 * root / np.sqrt((n - 1) * (m - 1))
    psi = []
    for size, other, own, square, way, sign in ((n, m, a, square_a, u, -1), (m, n, b, square_b, v, 1)):
        left = max(1, size - 2)
        moved = sign * 2 * (own @ shift) / (size - 1) + square / (size - 1) ** 2
        trace = (square.sum() - square * size / (size - 1)) / left
        without = moved + trace - 2 * (root - _lost(way, s)) / np.sqrt(left * (other - 1))
        psi.append(centred_values(-(size - 1) * without))
    return Influence(max(0.0, float(value)), psi[0], psi[1])


def _lost(u: Array, s: Array) -> Array:
    """[n] by how much the nuclear norm of a centred matrix U s Vᵀ shrinks when each row is left out.

    With sqrt(x) = 1/pi ∫ log(1 + x/t²) dt over t > 0 and the determinant of a rank-one change,

        |A|_* - |A without i|_* = -1/pi ∫ log(1 - c sum_j u_ij² s_j²/(s_j² + t²)) dt,   c = n/(n-1)

    by the trapezoidal rule in log t, whose error at this step is below 1e-8 relative.
    """
    n = len(u)
    if s.max(initial=0.0) == 0:
        return np.zeros(n)
    kept = s > RANK * s.max()  # vectors of a zero are any of many
    s, squares = s[kept], np.square(u[:, kept])
    c, logs = n / (n - 1), np.arange(-24.0, 7.25, STEP)
    nodes = s.max() * np.exp(logs)
    shares = nodes**2 / (np.square(s)[:, None] + nodes**2)
    rest = np.maximum(0.0, 1 - c * squares.sum(axis=1))
    heights = -np.log(rest[:, None] + c * (squares @ shares)) * nodes
    tail = heights[:, -1] / np.expm1(STEP)  # beyond the last node heights fall as 1/t: a geometric series
    return np.asarray((heights.sum(axis=1) + tail) * STEP / np.pi)


def cheaper_route(n: int, m: int, d: int) -> Route:
    """Which way to singular vectors is the cheaper one for n and m rows of d features."""
    return by_features if min(n, m) > TALL * d else by_rows


def by_rows(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """Singular vectors and values of a bᵀ from the n x m matrix: u [n, k], s [k], v [m, k]; a [n, D], b [m, D]."""
    u, s, vt = np.linalg.svd(a @ b.T, full_matrices=False)
    return u, s, vt.T


def by_features(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """The same from a d x d matrix: a = Q_a R_a, b = Q_b R_b, and R_a R_bᵀ is decomposed."""
    (qa, ra), (qb, rb) = np.linalg.qr(a), np.linalg.qr(b)
    u, s, vt = np.linalg.svd(ra @ rb.T, full_matrices=False)
    return qa @ u, s, qb @ vt.T


def frechet_value(real: Array, generated: Array) -> float:
    """Fréchet distance without influences, its root by eigenvalues: the cheapest way, to about 1e-8 relative."""
    n, m, d = len(real), len(generated), real.shape[1]
    shift = real.mean(axis=0) - generated.mean(axis=0)
    a, b = real - real.mean(axis=0), generated - generated.mean(axis=0)
    tall = cheaper_route(n, m, d) is by_features
    small = [np.asarray(np.linalg.qr(side, mode="r")) for side in (a, b)] if tall else [a, b]
    product = small[0] @ small[1].T
    gram = product @ product.T if len(product) <= product.shape[1] else product.T @ product
    root = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0)).sum() / np.sqrt((n - 1) * (m - 1))
    return max(0.0, float(shift @ shift + np.sum(a * a) / (n - 1) + np.sum(b * b) / (m - 1) - 2 * root))


def pieces(n: int) -> list[list[slice]]:
    """Cuts of n rows for FD-infinity: one piece of n, two of n // 2, three of n // 3, four of n // 4."""
    return [[slice(part * (n // k), (part + 1) * (n // k)) for part in range(k)] for k in range(1, PARTS + 1)]


def intercept_weights(n: int) -> Array:
    """[4] weights that turn FD at the sizes of ``pieces`` into the intercept of its least-squares line in 1/n."""
    inverse = 1.0 / np.array([n // k for k in range(1, PARTS + 1)])
    centred = inverse - inverse.mean()
    return np.asarray(1 / PARTS - inverse.mean() * centred / (centred @ centred))


def frechet_infinity(real: NDArray[Any], generated: NDArray[Any], *, repeats: int = 5, seed: int = 0) -> float:
    """FD extrapolated to infinitely many images on both sides.

        FD(n) = FD_inf + b/n,    fitted by least squares to FD at n, n/2, n/3 and n/4

    Source: Chong and Forsyth, CVPR 2020, section 3, who extrapolate in the generated side alone; here both sides
    shrink together, so the real side's bias goes as well. Each fit uses all of n rows at every size (four pieces
    at n/4); fits of ``repeats`` random orders are averaged. Where n/4 is below the number of features, FD is far
    from linear in 1/n and bias remains.

    Args:
        real: [N, D] features.
        generated: [M, D]; n is the smaller of N and M.
        repeats: how many random orders.
        seed: of the orders.

    Returns:
        The intercept; unlike FD it may be negative.

    Raises:
        InputError: fewer than eight rows on a side, different D, NaN or infinity.

    """
    r, g = feature_matrix(real, "Real features"), feature_matrix(generated, "Generated features")
    n = min(len(r), len(g))
    if n < 2 * PARTS or r.shape[1] != g.shape[1]:
        problem = Problem(f"shapes {r.shape} and {g.shape}", "give eight rows or more of one encoder's features")
        raise InputError("FD-infinity cannot be extrapolated.", [problem])
    values = []
    for index in range(repeats):
        rng = numpy_generator(seed, "quality/fd_inf", index)
        orders = [rng.permutation(len(side))[:n] for side in (r, g)]
        values.append(_infinity_value(r[orders[0]], g[orders[1]]))
    return float(np.mean(values))


def _infinity_value(real: Array, generated: Array) -> float:
    sizes = [np.mean([frechet_value(real[part], generated[part]) for part in cut]) for cut in pieces(len(real))]
    return float(intercept_weights(len(real)) @ sizes)


def infinity_influence(real: Array, generated: Array, whole: Influence) -> Influence:
    """FD-infinity of n rows of both sides and its influences: the same combination of those of every piece.

    ``whole`` is ``frechet_influence`` of all n rows.
    """
    n, weights = len(real), intercept_weights(len(real))
    value, psi = weights[0] * whole.value, [weights[0] * whole.real, weights[0] * whole.generated]
    for weight, cut in zip(weights[1:], pieces(n)[1:], strict=True):
        for part in cut:
            own = frechet_influence(real[part], generated[part])
            value += weight * own.value / len(cut)
            psi[0][part] += weight * own.real
            psi[1][part] += weight * own.generated
    return Influence(float(value), psi[0], psi[1])


def frechet_halves(real: NDArray[Any], cell: Cell, plan: Plan) -> Array:
    """FD between the two halves of each of ``plan.half_samples``."""
    return plan.from_halves("fd of halves", cell, lambda: _of_halves(frechet_value, real, cell, plan))


def _of_halves(value: Callable[[Array, Array], float], real: NDArray[Any], cell: Cell, plan: Plan) -> Array:
    pairs = plan.half_samples(cell)
    return np.array([value(real[a].astype(np.float64), real[b].astype(np.float64)) for a, b in pairs])


def measure_frechet(
    real: NDArray[np.float32], generated: NDArray[np.float32], plan: Plan, wanted: list[str], notes: dict[str, str]
) -> list[Measured]:
    """``fd`` and ``fd_inf`` at n in every eligible cell; the floor is that of two halves of its real images.

    Args:
        real: [N, D] features.
        generated: [M, D].
        plan: cells and draws; n of 8 or more for ``fd_inf``.
        wanted: "fd", "fd_inf" or both; both share their work.
        notes: words for each of them.

    """
    def plug(rows: Rows, made: Rows) -> list[Influence]:
        a, b = real[rows].astype(np.float64), generated[made].astype(np.float64)
        whole = frechet_influence(a, b)
        return [whole if name == "fd" else infinity_influence(a, b, whole) for name in wanted]

    def floor(cell: Cell) -> list[Array]:
        return [frechet_halves(real, cell, plan) if name == "fd" else _of_halves(_infinity_value, real, cell, plan)
                for name in wanted]

    return measure_plugs([(name, "lower") for name in wanted], plug, floor, plan, [notes[name] for name in wanted])
