"""Fit two nested ellipses to many images at once, on arrays; the numerical part of the oracle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SIDE = 64  # every image is measured on this grid
REACH = 16  # half the side of the patch around the disc, in pixels
START_STEPS, FINAL_STEPS = 7, 8  # iterations from each start, and from the better one
# x, y, radius, aspect, ratio, shift of the cup, log of the edges' softness; levels of ground, rim and cup;
# slope of the ground in x and y
# mean and spread of the weak prior: lengths in half-widths; levels with the median of the disc at 1
PRIOR = np.array([0, 0, 0.33, 1.06, 0.55, 0.0, np.log(0.03), 0.4, 0.85, 1.2, 0, 0])
SPREAD = np.array([0.1, 0.1, 0.03, 0.05, 0.25, 0.05, 0.35, 0.3, 0.2, 0.3, 0.3, 0.3])
LOW = np.array([-0.3, -0.3, 0.2, 0.9, 0.1, -0.15, np.log(0.012), 0, 0, 0, -1, -1])
HIGH = np.array([0.3, 0.3, 0.48, 1.3, 0.97, 0.15, np.log(0.09), 2, 3, 4, 1, 1])
STARTS = ((0.4, 0.95), (0.75, 0.65))  # ratio and level of the rim: the middle of the disc is rim or is cup
STEP = 0.35  # cup less rim: independent of the camera
STEP_SPREAD = 0.03


@dataclass(frozen=True)
class Patches:
    """Patches to fit: ``values`` [n, p], weights ``inside`` [n, p], pixel centres ``x``, ``y`` [p]."""

    values: Array
    inside: Array
    x: Array
    y: Array


def locate_discs(green: Array) -> tuple[Array, Array]:
    """Return row and column [n, 2] of the best match of a bright disc in a darker ring, and its contrast [n].

    Matched filtering by Fourier transform with discs of three radii; the centre is sought within 0.62
    half-widths of the middle of the image. ``green`` is [n, SIDE, SIDE].
    """
    spectrum = np.fft.rfft2(green)
    axis = np.abs((np.arange(SIDE) + 0.5) * 2 / SIDE - 1)
    allowed = np.maximum(axis[None, :], axis[:, None]) < 0.62
    best = np.full(green.shape, -np.inf)
    shifts = np.fft.fftfreq(SIDE, 1 / SIDE) * 2 / SIDE
    distance = np.hypot(shifts[None, :], shifts[:, None])  # periodic, with the centre at (0, 0)
    for radius in (0.29, 0.33, 0.37):
        inner, ring = distance < 0.92 * radius, (distance > 1.12 * radius) & (distance < 1.5 * radius)
        kernel = inner / inner.sum() - ring / ring.sum()  # disc minus ring, both of unit mass
        match = np.fft.irfft2(spectrum * np.fft.rfft2(kernel), s=(SIDE, SIDE))
        best = np.maximum(best, np.where(allowed, match, -np.inf))
    flat = best.reshape(len(green), -1)
    peak = flat.argmax(1)
    return np.stack(np.unravel_index(peak, (SIDE, SIDE)), -1).astype(float), flat.max(1)


def patch_offsets() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and columns [p] of a patch's pixels relative to its centre, all within ``REACH`` pixels."""
    span = np.arange(-REACH, REACH + 1)
    rows, columns = np.meshgrid(span, span, indexing="ij")
    near = np.hypot(rows, columns) < REACH - 0.6
    return rows[near], columns[near]


def extract_patches(images: Array, centres: Array) -> tuple[Array, Array]:
    """Return pixels [n, p, c] of images [n, SIDE, SIDE, c] around ``centres``, and 1 [n, p] for those inside."""
    down, right = patch_offsets()
    rows, columns = centres[:, :1].astype(int) + down, centres[:, 1:].astype(int) + right
    valid = (rows >= 0) & (rows < SIDE) & (columns >= 0) & (columns < SIDE)
    first = np.arange(len(images))[:, None]
    return images[first, np.clip(rows, 0, SIDE - 1), np.clip(columns, 0, SIDE - 1)], valid.astype(float)


def _sigmoid(z: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(z / 2)))


def coverage(theta: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Return coverage of disc and cup [n, p] for parameters [n, 12] (in the order of ``PRIOR``)."""
    cx, cy, radius, aspect, ratio, shift, log_soft = (theta[:, [k]] for k in range(7))
    soft = np.exp(log_soft) / 1.7  # a logistic edge as wide as a Gaussian one
    disc = _sigmoid((radius - np.hypot((x - cx) * aspect, y - cy)) / soft)
    cup = _sigmoid((ratio * radius - np.hypot((x - cx - shift) * aspect, y - cy)) / soft)
    return disc, cup


def _model(theta: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Return predicted values [n, p] and their derivatives [n, p, 12].

    I = g + D (m - g) + C (c - m) + (1 - D) (slope . offset), with D and C logistic edges of ellipses.
    """
    cx, cy, radius, aspect, ratio, shift, log_soft = (theta[:, [k]] for k in range(7))
    ground, rim, cup, sx, sy = (theta[:, [k]] for k in range(7, 12))
    soft = np.exp(log_soft) / 1.7
    u, v, uc = (x - cx), (y - cy), (x - cx - shift)
    distance = np.maximum(np.hypot(u * aspect, v), 1e-6)
    cup_distance = np.maximum(np.hypot(uc * aspect, v), 1e-6)
    z, zc = (radius - distance) / soft, (ratio * radius - cup_distance) / soft
    disc, inner = _sigmoid(z), _sigmoid(zc)
    tilt = sx * x + sy * y
    out = ground + disc * (rim - ground) + inner * (cup - rim) + (1 - disc) * tilt
    by_z = disc * (1 - disc) * (rim - ground - tilt)
    by_zc = inner * (1 - inner) * (cup - rim)
    slope, slope_cup = by_z / soft, by_zc / soft
    squared = aspect * aspect
    columns = [
        slope * squared * u / distance + slope_cup * squared * uc / cup_distance,
        slope * v / distance + slope_cup * v / cup_distance,
        slope + slope_cup * ratio,
        -slope * aspect * u * u / distance - slope_cup * aspect * uc * uc / cup_distance,
        slope_cup * radius,
        slope_cup * squared * uc / cup_distance,
        -by_z * z - by_zc * zc,
        1 - disc,
        disc - inner,
        inner,
        (1 - disc) * x,
        (1 - disc) * y,
    ]
    return out, np.stack(columns, -1)


def _robust(residual: Array, inside: Array) -> tuple[Array, Array]:
    """Return Cauchy weights [n, p], zero outside, and the scale [n, 1]; outliers such as vessels count little."""
    hidden = np.where(inside > 0, np.abs(residual), np.nan)
    scale = np.maximum(1.4826 * np.nanmedian(hidden, axis=1, keepdims=True), 0.015)
    return inside / (1 + (residual / (2 * scale)) ** 2), scale


def _step(theta: Array, patches: Patches) -> Array:
    """Take one damped, robust Gauss-Newton step under the prior; returns the new parameters [n, 12]."""
    predicted, jacobian = _model(theta, patches.x, patches.y)
    residual = patches.values - predicted
    weights, scale = _robust(residual, patches.inside)
    weights = weights / scale**2
    weighted = jacobian * weights[..., None]
    normal = weighted.transpose(0, 2, 1) @ jacobian
    right = (weighted.transpose(0, 2, 1) @ residual[..., None])[..., 0] + (PRIOR - theta) / SPREAD**2
    index = np.arange(theta.shape[1])
    normal[:, index, index] *= 1.05
    normal[:, index, index] += 1 / SPREAD**2
    tie = np.zeros(theta.shape[1])  # the prior of cup - rim
    tie[9], tie[8] = 1 / STEP_SPREAD, -1 / STEP_SPREAD
    normal += tie[:, None] * tie
    right += (STEP / STEP_SPREAD - theta @ tie)[:, None] * tie
    move = np.linalg.solve(normal, right[..., None])[..., 0]
    limit = np.array([0.05, 0.05, 0.03, 0.05, 0.1, 0.03, 0.3, 0.2, 0.2, 0.2, 0.3, 0.3])
    return np.asarray(np.clip(theta + np.clip(move, -limit, limit), LOW, HIGH))


def fit_ellipses(patches: Patches) -> tuple[Array, Array]:
    """Return parameters [n, 12] of the best of several starts, and the robust scale of the residual [n]."""
    count = len(patches.values)
    theta, costs = np.tile(PRIOR, (count, 1)), np.full(count, np.inf)
    for ratio, rim in STARTS:
        trial = np.tile(PRIOR, (count, 1))
        trial[:, [4, 8, 9]] = ratio, rim, rim + STEP
        for _ in range(START_STEPS):
            trial = _step(trial, patches)
        residual = patches.values - _model(trial, patches.x, patches.y)[0]
        prior_cost = ((trial[:, 9] - trial[:, 8] - STEP) / STEP_SPREAD) ** 2
        cost = (patches.inside * np.log1p((residual / 0.08) ** 2)).sum(1) + prior_cost  # Cauchy with a fixed scale
        better = cost < costs
        theta[better], costs[better] = trial[better], cost[better]
    for _ in range(FINAL_STEPS):
        theta = _step(theta, patches)
    residual = patches.values - _model(theta, patches.x, patches.y)[0]
    return theta, _robust(residual, patches.inside)[1][:, 0]
