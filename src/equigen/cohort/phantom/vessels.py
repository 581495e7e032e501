"""Draw the vessel tree: arcades from the disc and their side branches, each a tapered curve."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Array = NDArray[np.float64]
STEPS = 20
_T = np.linspace(0, 1, STEPS)[:, None]
_BASIS = np.hstack([(1 - _T) ** 3, 3 * (1 - _T) ** 2 * _T, 3 * (1 - _T) * _T**2, _T**3])
_SLOPE = np.hstack([-3 * (1 - _T) ** 2, 3 * (1 - _T) * (1 - 3 * _T), 3 * _T * (2 - 3 * _T), 3 * _T**2])

# Control points (towards the nose, downwards) of a trunk that leaves the disc upwards, relative to the disc:
# the temporal arcade bends round the macula, the nasal one runs outwards.
_TEMPORAL = np.array([[0.08, 0.0], [0.02, -0.50], [-0.45, -0.80], [-1.35, -0.55]])
_NASAL = np.array([[0.08, 0.0], [0.14, -0.30], [0.35, -0.50], [0.75, -0.85]])


def _trunks(rng: np.random.Generator) -> tuple[Array, Array]:
    """Sample four arteries and four veins: control points [8, 4, 2] and widths at the root [8], arteries first."""
    upper = np.stack([_TEMPORAL, _NASAL])
    arcades = np.concatenate([upper, upper * [1, -1]])
    trunks = np.concatenate([arcades, arcades])
    trunks = trunks + rng.normal(0, [[[0.02], [0.04], [0.05], [0.08]]], trunks.shape)
    trunks[4:, :, 0] += 0.05  # veins run beside their arteries, a little towards the nose
    trunks[4:, 2:, 1] *= rng.uniform(0.72, 1.18, (4, 1))
    width = np.tile([0.075, 0.048], 4) * rng.uniform(0.85, 1.15, 8) * np.repeat([0.85, 1.1], 4)
    return trunks, width


def _branches(parents: Array, widths: Array, count_per_parent: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Sample ``count_per_parent`` side branches per parent, in their order: control points and root widths."""
    count = len(parents) * count_per_parent
    parent = np.repeat(np.arange(len(parents)), count_per_parent)
    step = (rng.uniform(0.25, 0.85, count) * (STEPS - 1)).astype(int)
    root = np.einsum("nk,nkd->nd", _BASIS[step], parents[parent])
    heading = np.einsum("nk,nkd->nd", _SLOPE[step], parents[parent])
    angle = np.arctan2(heading[:, 1], heading[:, 0])
    direction = np.tile([1.0, -1.0], count)[:count] * np.where(rng.random(count) < 0.85, 1, -1)
    length = rng.uniform(0.25, 0.6, count) * (widths[parent] / 0.04) ** 0.5
    turns = angle[:, None] + direction[:, None] * (np.array([0.35, 0.75, 0.9]) + rng.normal(0, 0.2, (count, 3)))
    hops = np.stack([np.cos(turns), np.sin(turns)], -1) * (length / 3)[:, None, None]
    points = np.concatenate([root[:, None], root[:, None] + np.cumsum(hops, 1)], 1)
    return points, widths[parent] * (1 - 0.5 * step / STEPS) * rng.uniform(0.5, 0.75, count)


def _arteries_first(*generations: Array) -> Array:
    """Concatenate generations, each arteries then as many veins, into all arteries, then all veins."""
    halves = zip(*(np.split(generation, 2) for generation in generations), strict=True)
    return np.concatenate([array for half in halves for array in half])


def _outlines(curves: Array, widths: Array) -> Array:
    """Return closed outlines [v, 2 * STEPS, 2] of curves whose width falls to 45 % at the tip."""
    line, slope = _BASIS @ curves, _SLOPE @ curves
    normal = np.stack([-slope[..., 1], slope[..., 0]], -1)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    half = (widths[:, None] * (1 - 0.55 * _T[:, 0]) / 2)[..., None] * normal
    return np.concatenate([line + half, (line - half)[:, ::-1]], 1)


def _fill(outlines: Array, size: int, scale: int) -> NDArray[np.float32]:
    """Return antialiased coverage [size, size] of outlines given in pixels of the enlarged canvas."""
    canvas = Image.new("L", (size * scale, size * scale))
    draw = ImageDraw.Draw(canvas)
    for outline in outlines:
        draw.polygon(outline.ravel().tolist(), fill=255)
    return np.asarray(np.asarray(canvas.reduce(scale)) / np.float32(255), np.float32)


def draw_vessels(params: pd.DataFrame, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return coverage of arteries and of veins, both [n, size, size] in 0..1, drawn enlarged and averaged down."""
    scale = 4 if size <= 128 else 2
    nose = np.where(params["eye"].to_numpy() == "right", 1.0, -1.0)
    centre = np.stack([nose * params["disc_offset"].to_numpy(), params["disc_y"].to_numpy()], -1)
    coverage = np.empty((2, len(params), size, size), np.float32)
    for row, seed in enumerate(params["vessel_seed"]):
        rng = np.random.default_rng(int(seed))
        trunks, widths = _trunks(rng)
        branches, branch_widths = _branches(trunks, widths, 2, rng)
        outlines = _outlines(_arteries_first(trunks, branches), _arteries_first(widths, branch_widths))
        outlines = outlines * [nose[row], 1] + centre[row]
        pixels = (outlines + 1) / 2 * size * scale - 0.5
        half = len(pixels) // 2
        coverage[0, row] = _fill(pixels[:half], size, scale)
        coverage[1, row] = _fill(pixels[half:], size, scale)
    return coverage[0], coverage[1]
