"""Precision, recall, density and coverage: how far generated and real images fill the same region of features.

Balls around the images of one side, each as large as the distance to its k-th nearest neighbour on that side,
stand for the region that the side fills. What they cannot show: anything the encoder does not see; and balls
grow as n shrinks, so values compare only at equal n and k.

Patients stay whole: images of one patient are never compared. The radius of an image is the distance to its
k-th nearest image of *another* patient, and no image is found in a ball of its own patient. With the patient's
own images (two eyes, several views of a lesion) balls would shrink in groups with more images per patient, and
a group would look worse for how often it was photographed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from equigen.errors import InputError, Problem
from equigen.quality.cells import Cell, Rows
from equigen.quality.estimates import measure_plugs
from equigen.quality.metric_inputs import Measured, Plan
from equigen.quality.metrics.distances import Array, Influence, centred_values
from equigen.quality.metrics.neighbours import feature_rows, squared_distances

METRICS = [("precision", "share"), ("recall", "share"), ("density", "higher"), ("coverage", "share")]
NEIGHBOURS = 5
EDGE = 1 - 1e-9  # a row at a ball's very edge (the k-th neighbour itself) is outside whatever rounding does
CEILING = "in the floor's place stands what one half of the real images scores against the other: higher is better"
CAUTIOUS = "interval and null band to first order by the jackknife, which errs on the wide side; p is somewhat large"
Mask = NDArray[np.bool_]


class ManifoldScores(NamedTuple):
    """The four values; precision, recall and coverage in [0, 1], density at least 0 (1 for equal sets)."""

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
    """Precision, recall, density and coverage of generated features.

    With B_i the ball about real row i that reaches to its k-th nearest other real row, C_j likewise among the
    M generated rows:

        precision = 1/M sum_j [ g_j lies in some B_i ]            recall   = 1/N sum_i [ r_i lies in some C_j ]
        density   = 1/(kM) sum_j #{ i : g_j lies in B_i }         coverage = 1/N sum_i [ some g_j lies in B_i ]

    Source: Kynkäänniemi et al., NeurIPS 2019, equations 1 and 2; Naeem et al., ICML 2020, section 3.
    As in the latter's code the ball is open (its k-th neighbour is outside, which makes density 1 when both
    sides are equal and no distances tie); a ball of radius zero, about an image with k exact copies, holds its
    exact copies.

    Args:
        real: [N, D] features, N above k.
        generated: [M, D] features, M above k.
        k: neighbours that set the radius.
        real_patients: [N] patient of each real row; None takes each row for its own.
        generated_patients: [M] likewise, on the same scale; an image is not looked for in its own patient's
            balls (a reconstruction beside its original).

    Raises:
        InputError: N or M not above k, k below 1, different D, NaN or infinity.

    >>> line = np.array([[0.0], [1.0], [3.0], [7.0], [15.0]])
    >>> precision_recall_density_coverage(line, line, k=2)
    ManifoldScores(precision=1.0, recall=1.0, density=1.0, coverage=1.0)

    """
    first, second = feature_rows(real, "Real features"), feature_rows(generated, "Generated features")
    problems = [Problem(f"{len(side)} {name} rows for k {k}", "give more rows than k, and k of at least 1")
                for side, name in ((first, "real"), (second, "generated")) if not 0 < k < len(side)]
    if first.shape[1] != second.shape[1]:
        problems.append(Problem(f"{first.shape[1]} and {second.shape[1]} columns", "use one encoder for both sides"))
    if problems:
        raise InputError("The two sets of features cannot be compared.", problems)
    balls = _balls(first, second, k, _codes(real_patients, generated_patients, (len(first), len(second))))
    return ManifoldScores(*(float(value) for value in _values(balls)))


def _codes(real: NDArray[Any] | None, generated: NDArray[Any] | None, sizes: tuple[int, int]) -> tuple[Rows, Rows]:
    """Patient codes of both sides on one scale; rows without a patient get codes of their own."""
    n, m = sizes
    if real is None and generated is None:
        return np.arange(n), n + np.arange(m)
    names = [np.asarray(side) for side in (real, generated) if side is not None]
    known = np.unique(np.concatenate(names), return_inverse=True)[1].astype(np.int64)
    spare = int(known.max()) + 1 + np.arange(n + m)
    first = known[:n] if real is not None else spare[:n]
    second = known[len(known) - m :] if generated is not None else spare[n:]
    return first, second


@dataclass(frozen=True)
class _Side:
    """Balls of one side.

    ``radius``: squared radii [N]; ``next_radius``: those once one of the k nearest is lost [N]; ``neighbour``:
    which rows are among the k nearest of each row [N, N].
    """

    radius: Array
    next_radius: Array
    neighbour: Mask


@dataclass(frozen=True)
class _Balls:
    """Which ball holds what, real row by generated row [N, M]; ``grown`` after losing one near neighbour.

    ``of_real``: the generated row lies in the real row's ball; ``of_generated``: the other way round.
    """

    k: int
    real: _Side
    generated: _Side
    of_real: Mask
    of_generated: Mask
    grown_real: Mask
    grown_generated: Mask


def _balls(real: NDArray[Any], generated: NDArray[Any], k: int, patients: tuple[Rows, Rows]) -> _Balls:
    sides = [_side(rows, codes, k) for rows, codes in zip((real, generated), patients, strict=True)]
    cross = squared_distances(real, generated)
    cross[patients[0][:, None] == patients[1]] = np.inf
    of_real, grown_real = (_inside(cross, radius[:, None]) for radius in (sides[0].radius, sides[0].next_radius))
    held, grown = (_inside(cross, radius[None, :]) for radius in (sides[1].radius, sides[1].next_radius))
    return _Balls(k, sides[0], sides[1], of_real, held, grown_real, grown)


def _inside(squares: Array, radius: Array) -> Mask:
    """Open ball; one of radius zero holds exact copies. A missing radius (-1) holds nothing."""
    return np.asarray((squares < radius * EDGE) | ((squares == 0) & (radius == 0)), dtype=np.bool_)


def _side(rows: NDArray[Any], codes: Rows, k: int) -> _Side:
    """Radii among rows of other patients; with fewer than k such rows the farthest of them sets the radius."""
    squares = squared_distances(rows, rows)
    squares[codes[:, None] == codes] = np.inf
    order = np.argsort(squares, axis=1, kind="stable")[:, : k + 1]
    near = np.take_along_axis(squares, order, axis=1)
    neighbour = np.zeros(squares.shape, dtype=np.bool_)
    np.put_along_axis(neighbour, order[:, :k], np.isfinite(near[:, :k]), axis=1)
    radius = np.where(np.isfinite(near[:, :k]), near[:, :k], -1.0).max(axis=1)
    beyond = near[:, k] if near.shape[1] > k else np.full(len(rows), np.inf)
    return _Side(radius, np.where(np.isfinite(beyond), beyond, radius), neighbour)


def _values(balls: _Balls) -> Array:
    """Precision, recall, density, coverage."""
    counts = balls.of_real.sum(axis=0)
    return np.array([
        (counts > 0).mean(), balls.of_generated.any(axis=1).mean(), counts.mean() / balls.k,
        balls.of_real.any(axis=1).mean(),
    ])


def manifold_influence(
    real: NDArray[Any], generated: NDArray[Any], k: int, patients: tuple[Rows, Rows] | None = None
) -> list[Influence]:
    """The four values with the influence of each row by the exact jackknife, psi_j = (n - 1)(value - value without j).

    Without a row its ball is gone, and the balls that had it among their k nearest reach to their (k+1)-th;
    all other balls stay, so each value without a row follows from counts without a new search (jackknife:
    Efron and Stein, Ann. Stat. 9, 1981).

    Args:
        real: [N, D] finite features, N at least 2.
        generated: [M, D] finite features.
        k: neighbours that set the radius, best below N - 1 and M - 1.
        patients: codes [N] and [M] on one scale; None takes each row for its own.

    Returns:
        Precision, recall, density, coverage; influences sum to zero on each side.

    """
    codes = patients or _codes(None, None, (len(real), len(generated)))
    balls = _balls(real, generated, k, codes)
    values = _values(balls)
    without = _without_real(balls), _without_generated(balls)
    result = []
    for index, value in enumerate(values):
        psi = [centred_values((len(side[index]) - 1) * (value - side[index])) for side in without]
        result.append(Influence(float(value), *psi))
    return result


def _without_real(balls: _Balls) -> Array:
    """The four values without each real row in turn -> [4, N]."""
    n, m = balls.of_real.shape
    # [i, j]: in how many real balls generated row j lies when real row i is gone
    gained_rows = _grown(balls.real, balls.grown_real ^ balls.of_real)
    counts = balls.of_real.sum(axis=0) - balls.of_real.astype(np.float64) + gained_rows
    recalled, covered = balls.of_generated.any(axis=1), balls.of_real.any(axis=1)
    gained = (balls.grown_real.any(axis=1) & ~covered).astype(np.float64)
    coverage = (covered.sum() - covered + gained @ balls.real.neighbour) / (n - 1)
    recall = (recalled.sum() - recalled) / (n - 1)
    return np.stack([(counts > 0.5).mean(axis=1), recall, counts.sum(axis=1) / (balls.k * m), coverage])


def _without_generated(balls: _Balls) -> Array:
    """The four values without each generated row in turn -> [4, M]."""
    m = balls.of_real.shape[1]
    counts = balls.of_real.sum(axis=0)
    held, gained = balls.of_generated, balls.grown_generated ^ balls.of_generated
    # [j, i]: in how many generated balls real row i lies when generated row j is gone
    others = held.sum(axis=1) - held.T.astype(np.float64) + _grown(balls.generated, gained.T)
    lonely = balls.of_real & (balls.of_real.sum(axis=1) == 1)[:, None]
    coverage = balls.of_real.any(axis=1).mean() - lonely.mean(axis=0)
    precise = counts > 0
    return np.stack([
        (precise.sum() - precise) / (m - 1), (others > 0.5).mean(axis=1),
        (counts.sum() - counts) / (balls.k * (m - 1)), coverage,
    ])


def _grown(side: _Side, gained: Mask) -> Array:
    """What balls gain when one row is lost: [rows lost, what is held], summed over the balls that had it near."""
    return np.asarray(side.neighbour.T.astype(np.float64) @ gained.astype(np.float64))


def neighbours_for(n: int) -> int:
    """Neighbours at n rows a side: 5, or as many as leave-one-out of n rows can have, at least 1."""
    return max(1, min(NEIGHBOURS, n - 2))


def measure_manifold(
    real_values: NDArray[Any],
    generated_values: NDArray[Any],
    plan: Plan,
    *,
    patients: tuple[Rows, Rows] | None = None,
) -> list[Measured]:
    """Precision, recall, density and coverage at matched n in every eligible cell.

    In the floor's place stands what one half of the cell's real images scores against the other half (halves
    that share no patient, n images each): what perfect images would score, a ceiling rather than a floor.
    Intervals and null bands are to first order, by the exact jackknife within each subsample, cut at the
    metric's range. The jackknife's variance is too large on average (Efron and Stein, Ann. Stat. 9, 1981), here
    by a factor of 1.2 to 1.5 in the standard error: intervals cover more often than they say.

    Args:
        real_values: [N, D] features.
        generated_values: [M, D] features.
        plan: cells, draws and n.
        patients: codes [N] and [M] on one scale; None takes each row for its own.

    Raises:
        InputError: features are not finite.

    """
    real, generated = feature_rows(real_values, "Real features"), feature_rows(generated_values, "Generated features")
    codes = patients or _codes(None, None, (len(real), len(generated)))
    k = neighbours_for(plan.n)

    def plug(first: Rows, second: Rows) -> list[Influence]:
        return manifold_influence(real[first], generated[second], k, (codes[0][first], codes[1][second]))

    def floor(cell: Cell) -> list[Array]:
        halves = [_values(_balls(real[a], real[b], k, (codes[0][a], codes[0][b]))) for a, b in plan.half_samples(cell)]
        return list(np.array(halves).T)

    few = f"k is {k}, since n is {plan.n}" if k < NEIGHBOURS else f"k {k}"
    notes = [f"{few}; {CEILING}; {CAUTIOUS}"] * len(METRICS)
    return [_bounded(item) for item in measure_plugs(METRICS, plug, floor, plan, notes)]


def _bounded(item: Measured) -> Measured:
    """Replicates and null values cut at the metric's range, which an expansion to first order does not know."""
    high = 1.0 if item.kind == "share" else np.inf
    estimates = {key: replace(own, replicates=np.clip(own.replicates, 0.0, high))
                 for key, own in item.estimates.items()}
    return replace(item, estimates=estimates, null={name: np.clip(own, 0.0, high) for name, own in item.null.items()})
