"""Precision, recall, density and coverage: overlap of the manifolds of real and generated features.

The manifold of a set of images is estimated by balls around them, each reaching to the k-th nearest neighbour
within the set. The metrics depend on the encoder, and balls grow as n shrinks, so values compare only at equal n
and k.

Images of one patient are never compared: the radius of an image is the distance to its k-th nearest image of
*another* patient, and an image never counts as inside a ball of its own patient. Otherwise balls would be smaller
in groups with more images per patient (two eyes, several views of a lesion), and so would their scores.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from equigen.errors import InputError, Problem
from equigen.quality.cells import Cell, Rows
from equigen.quality.estimates import measure_with_influences
from equigen.quality.metric_inputs import MeasurementPlan, MetricResult
from equigen.quality.metrics.influence import Array, Influence, centred_values
from equigen.quality.metrics.neighbours import check_features, squared_distances

METRICS = [("precision", "share"), ("recall", "share"), ("density", "higher"), ("coverage", "share")]
NEIGHBOURS = 5
EDGE = 1 - 1e-9  # a row exactly on a ball's surface (the k-th neighbour itself) is outside despite rounding
CEILING = "in the floor's place stands what one half of the real images scores against the other: higher is better"
CAUTIOUS = "interval and null band to first order by the jackknife, which errs on the wide side; p is somewhat large"
Mask = NDArray[np.bool_]


class ManifoldScores(NamedTuple):
    """Precision, recall and coverage in [0, 1], and density, at least 0 (1 for equal sets)."""

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall_density_coverage(
    real: NDArray[Any],
    generated: NDArray[Any],
    k: int = NEIGHBOURS,
    *,
    real_patients: NDArray[Any] | None = None,
    generated_patients: NDArray[Any] | None = None,
) -> ManifoldScores:
    """Return precision, recall, density and coverage of generated features.

    With B_i the ball about real row i that reaches to its k-th nearest other real row, C_j likewise among the
    M generated rows:

        precision = 1/M sum_j [ g_j lies in some B_i ]            recall   = 1/N sum_i [ r_i lies in some C_j ]
        density   = 1/(kM) sum_j #{ i : g_j lies in B_i }         coverage = 1/N sum_i [ some g_j lies in B_i ]

    Source: Kynkäänniemi et al., NeurIPS 2019, equations 1 and 2; Naeem et al., ICML 2020, section 3.
    As in the code of the latter the ball is open (its k-th neighbour is outside, which makes density 1 when both
    sets are equal and no distances tie); a ball of radius zero, about an image with k exact copies, holds its
    exact copies.

    Args:
        real: [N, D] features, N above k.
        generated: [M, D] features, M above k.
        k: neighbours that set the radius.
        real_patients: [N] patient of each real row; None treats each row as its own patient.
        generated_patients: [M] likewise, on the same scale; an image never counts as inside a ball of its own
            patient (a reconstruction and its original).

    Raises:
        InputError: N or M not above k, k below 1, different D, NaN or infinity.

    >>> line = np.array([[0.0], [1.0], [3.0], [7.0], [15.0]])
    >>> precision_recall_density_coverage(line, line, k=2)
    ManifoldScores(precision=1.0, recall=1.0, density=1.0, coverage=1.0)

    """
    first, second = check_features(real, "Real features"), check_features(generated, "Generated features")
    problems = [
        Problem(f"{len(rows)} {name} rows for k {k}", "give more rows than k, and k of at least 1")
        for rows, name in ((first, "real"), (second, "generated"))
        if not 0 < k < len(rows)
    ]
    if first.shape[1] != second.shape[1]:
        problems.append(Problem(f"{first.shape[1]} and {second.shape[1]} columns", "use one encoder for both sides"))
    if problems:
        raise InputError("The two sets of features cannot be compared.", problems)
    codes = _patient_codes(real_patients, generated_patients, (len(first), len(second)))
    return ManifoldScores(*(float(value) for value in _scores(_membership(first, second, k, codes))))


def _patient_codes(
    real: NDArray[Any] | None, generated: NDArray[Any] | None, sizes: tuple[int, int]
) -> tuple[Rows, Rows]:
    """Return patient codes of both sets on one scale; rows without a patient get unique codes."""
    n, m = sizes
    if real is None and generated is None:
        return np.arange(n), n + np.arange(m)
    names = [np.asarray(patients) for patients in (real, generated) if patients is not None]
    codes = np.unique(np.concatenate(names), return_inverse=True)[1].astype(np.int64)
    unique = int(codes.max()) + 1 + np.arange(n + m)
    first = codes[:n] if real is not None else unique[:n]
    second = codes[len(codes) - m :] if generated is not None else unique[n:]
    return first, second


@dataclass(frozen=True)
class _Radii:
    """Balls of one set of images.

    ``radius`` [N]: squared radii; ``next_radius`` [N]: squared radii without one of the k nearest rows;
    ``neighbour`` [N, N]: mask of the k nearest rows of each row.
    """

    radius: Array
    next_radius: Array
    neighbour: Mask


@dataclass(frozen=True)
class _Membership:
    """Masks [N, M], real row by generated row, of membership in balls.

    ``real_balls``: the generated row lies in the real row's ball; ``generated_balls``: the real row lies in the
    generated row's ball; ``grown_real`` and ``grown_generated``: the same for balls of ``next_radius``.
    """

    k: int
    real: _Radii
    generated: _Radii
    real_balls: Mask
    generated_balls: Mask
    grown_real: Mask
    grown_generated: Mask


def _membership(real: NDArray[Any], generated: NDArray[Any], k: int, patients: tuple[Rows, Rows]) -> _Membership:
    """Return the membership of real and generated rows in each other's balls; patients are codes on one scale."""
    first, second = (_radii(rows, codes, k) for rows, codes in zip((real, generated), patients, strict=True))
    cross = squared_distances(real, generated)
    cross[patients[0][:, None] == patients[1]] = np.inf
    real_balls, grown_real = (_ball_mask(cross, radius[:, None]) for radius in (first.radius, first.next_radius))
    generated_balls, grown_generated = (_ball_mask(cross, radius) for radius in (second.radius, second.next_radius))
    return _Membership(k, first, second, real_balls, generated_balls, grown_real, grown_generated)


def _ball_mask(squares: Array, radius: Array) -> Mask:
    """Return the mask of squared distances inside open balls; radius 0 holds exact copies, a missing one (-1) none."""
    return np.asarray((squares < radius * EDGE) | ((squares == 0) & (radius == 0)), dtype=np.bool_)


def _radii(rows: NDArray[Any], codes: Rows, k: int) -> _Radii:
    """Return the balls of some rows; with fewer than k rows of other patients the farthest of them sets the radius."""
    squares = squared_distances(rows, rows)
    squares[codes[:, None] == codes] = np.inf
    order = np.argsort(squares, axis=1, kind="stable")[:, : k + 1]
    near = np.take_along_axis(squares, order, axis=1)
    neighbour = np.zeros(squares.shape, dtype=np.bool_)
    np.put_along_axis(neighbour, order[:, :k], np.isfinite(near[:, :k]), axis=1)
    radius = np.where(np.isfinite(near[:, :k]), near[:, :k], -1.0).max(axis=1)
    beyond = near[:, k] if near.shape[1] > k else np.full(len(rows), np.inf)
    return _Radii(radius, np.where(np.isfinite(beyond), beyond, radius), neighbour)


def _scores(balls: _Membership) -> Array:
    """Return precision, recall, density and coverage [4]."""
    counts = balls.real_balls.sum(axis=0)
    return np.array(
        [
            (counts > 0).mean(),
            balls.generated_balls.any(axis=1).mean(),
            counts.mean() / balls.k,
            balls.real_balls.any(axis=1).mean(),
        ]
    )


def manifold_influence(
    real: NDArray[Any], generated: NDArray[Any], k: int, patients: tuple[Rows, Rows] | None = None
) -> list[Influence]:
    """Return the four metrics with exact jackknife influences, psi_j = (n - 1)(value - value without row j).

    Without a row its ball vanishes, and the balls that had it among their k nearest reach to their (k+1)-th;
    all other balls stay, so each value without a row follows from counts without a new search (jackknife:
    Efron and Stein, Ann. Stat. 9, 1981).

    Args:
        real: [N, D] finite features, N at least 2.
        generated: [M, D] finite features.
        k: neighbours that set the radius, best below N - 1 and M - 1.
        patients: codes [N] and [M] on one scale; None treats each row as its own patient.

    Returns:
        Precision, recall, density, coverage; influences sum to zero over each set.

    """
    codes = patients or _patient_codes(None, None, (len(real), len(generated)))
    balls = _membership(real, generated, k, codes)
    values = _scores(balls)
    jackknife = _jackknife_real(balls), _jackknife_generated(balls)
    result = []
    for index, value in enumerate(values):
        psi = [centred_values((len(scores[index]) - 1) * (value - scores[index])) for scores in jackknife]
        result.append(Influence(float(value), *psi))
    return result


def _jackknife_real(balls: _Membership) -> Array:
    """Return the four metrics without each real row in turn -> [4, N]."""
    n, m = balls.real_balls.shape
    # [i, j]: number of real balls around generated row j without real row i
    gained_rows = _gained_counts(balls.real, balls.grown_real ^ balls.real_balls)
    counts = balls.real_balls.sum(axis=0) - balls.real_balls.astype(np.float64) + gained_rows
    recalled, covered = balls.generated_balls.any(axis=1), balls.real_balls.any(axis=1)
    gained = (balls.grown_real.any(axis=1) & ~covered).astype(np.float64)
    coverage = (covered.sum() - covered + gained @ balls.real.neighbour) / (n - 1)
    recall = (recalled.sum() - recalled) / (n - 1)
    return np.stack([(counts > 0.5).mean(axis=1), recall, counts.sum(axis=1) / (balls.k * m), coverage])


def _jackknife_generated(balls: _Membership) -> Array:
    """Return the four metrics without each generated row in turn -> [4, M]."""
    m = balls.real_balls.shape[1]
    counts = balls.real_balls.sum(axis=0)
    inside, gained = balls.generated_balls, balls.grown_generated ^ balls.generated_balls
    # [j, i]: number of generated balls around real row i without generated row j
    real_counts = inside.sum(axis=1) - inside.T.astype(np.float64) + _gained_counts(balls.generated, gained.T)
    single = balls.real_balls & (balls.real_balls.sum(axis=1) == 1)[:, None]
    coverage = balls.real_balls.any(axis=1).mean() - single.mean(axis=0)
    precise = counts > 0
    return np.stack(
        [
            (precise.sum() - precise) / (m - 1),
            (real_counts > 0.5).mean(axis=1),
            (counts.sum() - counts) / (balls.k * (m - 1)),
            coverage,
        ]
    )


def _gained_counts(radii: _Radii, gained: Mask) -> Array:
    """Return how many grown balls reach each row of the second axis of ``gained`` without each row of the set."""
    return np.asarray(radii.neighbour.T.astype(np.float64) @ gained.astype(np.float64))


def neighbour_count(n: int) -> int:
    """Return k for sets of n rows: 5, or as many neighbours as leave-one-out of n rows allows, at least 1."""
    return max(1, min(NEIGHBOURS, n - 2))


def measure_manifold(
    real_values: NDArray[Any],
    generated_values: NDArray[Any],
    plan: MeasurementPlan,
    *,
    patients: tuple[Rows, Rows] | None = None,
) -> list[MetricResult]:
    """Measure precision, recall, density and coverage at matched n in every eligible cell.

    The floor is the score of one half of the cell's real images against the other half (halves that share no
    patient, n images each): the score of perfect images, so it is a ceiling. Intervals and null bands are to first
    order, by the exact jackknife within each subsample, clipped to the metric's range. The jackknife's variance is
    too large on average (Efron and Stein, Ann. Stat. 9, 1981), here by a factor of 1.2 to 1.5 in the standard
    error: intervals cover more often than their nominal level.

    Args:
        real_values: [N, D] features.
        generated_values: [M, D] features.
        plan: cells, draws and n.
        patients: codes [N] and [M] on one scale; None treats each row as its own patient.

    Raises:
        InputError: features are not finite.

    """
    real = check_features(real_values, "Real features")
    generated = check_features(generated_values, "Generated features")
    codes = patients or _patient_codes(None, None, (len(real), len(generated)))
    k = neighbour_count(plan.n)

    def influences(first: Rows, second: Rows) -> list[Influence]:
        return manifold_influence(real[first], generated[second], k, (codes[0][first], codes[1][second]))

    def floor(cell: Cell) -> list[Array]:
        halves = (_membership(real[a], real[b], k, (codes[0][a], codes[0][b])) for a, b in plan.half_samples(cell))
        return list(np.array([_scores(balls) for balls in halves]).T)

    k_note = f"k is {k}, since n is {plan.n}" if k < NEIGHBOURS else f"k {k}"
    notes = [f"{k_note}; {CEILING}; {CAUTIOUS}"] * len(METRICS)
    result = []
    for metric in measure_with_influences(METRICS, influences, floor, plan, notes):
        high = 1.0 if metric.kind == "share" else np.inf  # a first-order expansion does not respect the range
        estimates = {
            key: replace(estimate, replicates=np.clip(estimate.replicates, 0.0, high))
            for key, estimate in metric.estimates.items()
        }
        null = {attribute: np.clip(replicates, 0.0, high) for attribute, replicates in metric.null.items()}
        result.append(replace(metric, estimates=estimates, null=null))
    return result
