"""A probe: calibrated logistic regression on an encoder's features, fitted with patients kept whole."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from equigen.errors import InputError, Problem

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
STRENGTHS = (10.0, 1.0, 0.1, 0.01, 0.001)  # L2 penalty per image, strongest first
FOLDS = 5  # of the cross-validation that chooses the strength and calibrates
LIMIT = 4000  # images that a probe is fitted on at most: whole patients drawn at random beyond it
ROUNDS = 500  # iterations of L-BFGS
BLOCK = 4096  # images scored at a time
BINS = 10  # equal-width bins of the expected calibration error
FLOOR = -30.0  # logit of a class that the fit never saw


@dataclass(frozen=True)
class Probe:
    """A linear judge of L classes: p = softmax((x W + b) / T) for raw features x.

    ``weights`` [D, L] and ``intercept`` [L] hold the standardisation; ``temperature`` is T; ``strength`` the
    L2 penalty per image that cross-validation chose; ``converged`` whether the last fit reached its
    tolerance; ``images`` how many it was fitted on.
    """

    weights: Array
    intercept: Array
    temperature: float
    strength: float
    converged: bool
    images: int

    def logits(self, features: NDArray[Any]) -> Array:
        """[N, L] logits before calibration of [N, D] features, in blocks of float64.

        Raises InputError where features do not have D columns or are not finite.
        """
        if features.ndim != 2 or features.shape[1] != len(self.weights):
            problem = Problem(f"shape {features.shape}", f"give [N, {len(self.weights)}] of the judge's own encoder")
            raise InputError("The judge cannot read these features.", [problem])
        starts = range(0, len(features), BLOCK)
        parts = [features[start : start + BLOCK].astype(np.float64) @ self.weights for start in starts]
        logits: Array = np.concatenate([np.zeros((0, len(self.intercept))), *parts]) + self.intercept
        bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if len(bad):
            problem = Problem(f"{len(bad)} rows are not finite, the first is {bad[0]}", "look at these images")
            raise InputError("The judge cannot read these features.", [problem])
        return logits

    def probabilities(self, features: NDArray[Any]) -> Array:
        """[N, L] calibrated probabilities of [N, D] features."""
        return np.asarray(softmax(self.logits(features) / self.temperature, axis=1), dtype=np.float64)


def patient_folds(truth: Codes, patients: Codes, folds: int, rng: np.random.Generator) -> Codes:
    """[N] fold of each row: patients whole, and the patients of each class spread evenly over the folds.

    Classes are dealt rarest first, each patient to the fold that has fewest patients of that class so far.

    Args:
        truth: [N] class, -1 unknown.
        patients: [N] patient codes 0 .. P-1.
        folds: their number.
        rng: of the order in which patients are dealt.

    """
    place = np.full(int(patients.max(initial=-1)) + 1, -1, dtype=np.int64)
    owners = [np.unique(patients[truth == code]) for code in np.unique(truth[truth >= 0])]
    for members in [*sorted(owners, key=len), np.unique(patients)]:
        dealt = place[members]
        held = np.bincount(dealt[dealt >= 0], minlength=folds)
        for patient in rng.permutation(members[dealt < 0]):
            fold = int(rng.choice(np.flatnonzero(held == held.min())))
            place[patient] = fold
            held[fold] += 1
    return place[patients]


def fit_probe(
    features: NDArray[Any], truth: Codes, patients: NDArray[Any], levels: int, rng: np.random.Generator,
    folds: int = FOLDS,
) -> Probe:
    """Fit a probe of ``levels`` classes and calibrate it, with patients kept whole throughout.

    Multinomial logistic regression on standardised features,

        min_W  mean_i -log p(y_i | x_i) + strength/2 |W|²

    Cross-validation over patients inside the given images chooses the strength by log-loss, from strong to
    weak until the loss rises; its held-out logits also give the temperature, so neither was chosen on an
    image that the logits' model had seen (Guo et al., ICML 2017, section 4.2; held-out logits in place of a
    validation set as in Platt, 1999, section 2.1).

    Args:
        features: [N, D].
        truth: [N] class 0 .. levels-1, none unknown; at least two classes occur.
        patients: [N] patient of each row.
        levels: number of classes.
        rng: of the folds, and of the patients drawn where there are more than ``LIMIT`` images.
        folds: of the cross-validation.

    """
    codes = np.unique(patients, return_inverse=True)[1].reshape(-1).astype(np.int64)
    rows = _within(codes, rng)
    x, y, codes = features[rows].astype(np.float64), truth[rows], codes[rows]
    strength, held_out = _choose_strength(x, y, patient_folds(y, codes, folds, rng), levels)
    fit = _Fit(x, y, levels)
    weights, intercept = fit(strength)
    return Probe(weights, intercept, fit_temperature(held_out, y), strength, fit.converged, len(y))


def _within(patients: Codes, rng: np.random.Generator) -> Codes:
    """Rows of as many whole patients, in random order, as come within ``LIMIT``; the first patient always."""
    if len(patients) <= LIMIT:
        return np.arange(len(patients))
    counts = np.bincount(patients)
    order = rng.permutation(len(counts))
    kept = np.zeros(len(counts), dtype=bool)
    kept[order[np.cumsum(counts[order]) <= LIMIT]] = True
    kept[order[0]] = True
    return np.flatnonzero(kept[patients])


class _Fit:
    """Fits of one set of rows along the path of strengths, each started from the last."""

    def __init__(self, x: Array, y: Codes, levels: int) -> None:
        self.mean, spread = x.mean(axis=0), x.std(axis=0)
        self.scale = np.where(spread > 1e-12 * np.maximum(1.0, np.abs(self.mean)), spread, 1.0)
        self.x, self.y, self.levels = (x - self.mean) / self.scale, y, levels
        self.model = LogisticRegression(max_iter=ROUNDS, warm_start=True)
        self.converged = True

    def __call__(self, strength: float) -> tuple[Array, Array]:
        """Weights [D, L] and intercept [L] for raw features."""
        self.model.set_params(C=1 / (strength * len(self.y)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # kept in ``converged``, which the note gives
            self.model.fit(self.x, self.y)
        self.converged = bool(np.max(self.model.n_iter_) < ROUNDS)
        weights, intercept = np.zeros((self.x.shape[1], self.levels)), np.full(self.levels, FLOOR)
        seen = self.model.classes_
        one_logit = len(seen) == 2
        weights[:, seen] = (np.vstack([0 * self.model.coef_, self.model.coef_]) if one_logit else self.model.coef_).T
        intercept[seen] = np.append(0.0, self.model.intercept_) if one_logit else self.model.intercept_
        weights /= self.scale[:, None]
        return weights, intercept - self.mean @ weights


def _choose_strength(x: Array, y: Codes, folds: Codes, levels: int) -> tuple[float, Array]:
    """The strength of least held-out log-loss on the way from strong to weak, and its held-out logits."""
    fits = {fold: _Fit(x[folds != fold], y[folds != fold], levels) for fold in np.unique(folds)}
    best, chosen, kept = np.inf, STRENGTHS[0], np.zeros((len(x), levels))
    for strength in STRENGTHS:
        logits = np.zeros((len(x), levels))
        for fold, fit in fits.items():
            weights, intercept = fit(strength)
            logits[folds == fold] = x[folds == fold] @ weights + intercept
        loss = log_loss(logits, y)
        if loss >= best:
            break
        best, chosen, kept = loss, strength, logits
    return chosen, kept


def log_loss(logits: Array, truth: Codes) -> float:
    """Mean of -log softmax(logits)_y over [N, L] logits and [N] classes, in nats.

    >>> round(log_loss(np.zeros((2, 2)), np.array([0, 1])), 4)
    0.6931
    """
    return float(-log_softmax(logits, axis=1)[np.arange(len(truth)), truth].mean())


def fit_temperature(logits: Array, truth: Codes) -> float:
    """The temperature T in [0.05, 20] of least log-loss of softmax(logits / T).

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2. The ranking of the
    classes of an image stays as it is.

    Args:
        logits: [N, L] of images that the judge was not fitted on.
        truth: [N] class.

    """
    bounds = float(np.log(0.05)), float(np.log(20.0))
    found = minimize_scalar(lambda t: log_loss(logits / np.exp(t), truth), bounds=bounds, method="bounded")
    return float(np.exp(found.x))


def reliability(probabilities: Array, truth: Codes) -> tuple[float, float]:
    """Brier score and expected calibration error of class probabilities, over all (image, class) pairs.

        Brier = mean_(i,c) (p_ic - 1[y_i = c])²
        ECE   = sum_b (n_b / n) |mean_b 1[y_i = c] - mean_b p_ic|      in 10 bins of equal width

    For two classes both are those of the probability of the second class. Sources: Brier, Mon. Weather Rev.
    78, 1950; Naeini et al., AAAI 2015.

    >>> reliability(np.array([[0.5, 0.5], [0.0, 1.0]]), np.array([0, 1]))
    (0.125, 0.0)

    """
    hit = (truth[:, None] == np.arange(probabilities.shape[1])).astype(np.float64).ravel()
    p = probabilities.ravel()
    bins = np.minimum((p * BINS).astype(np.int64), BINS - 1)
    surprise = np.bincount(bins, weights=hit - p, minlength=BINS)
    return float(np.mean((p - hit) ** 2)), float(np.abs(surprise).sum() / len(p))
