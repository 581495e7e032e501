"""Render images from parameters: a procedural fundus as a two-laser scanning ophthalmoscope shows it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from equigen.errors import InputError, Problem

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


Floats = NDArray[np.float32]

# Reflectance (red, green, blue) of the fundus at pigmentation 0, and how strongly melanin absorbs each:
# reflectance(p) = FUNDUS * exp(-MELANIN * p), the law of Beer and Lambert.
FUNDUS = np.array([0.70, 0.37, 0.155], np.float32)
MELANIN = np.array([1.05, 0.78, 0.65], np.float32)
RIM = np.array([0.80, 0.58, 0.30], np.float32)
CUP = np.array([0.90, 0.84, 0.60], np.float32)
ARTERY = np.array([0.80, 0.42, 0.50], np.float32)  # light that passes
VEIN = np.array([0.58, 0.28, 0.40], np.float32)
PIXELS_AT_ONCE = 1 << 19
PARAMETERS = (
    "eye", "pigmentation", "cup_disc_ratio", "disc_radius", "disc_offset", "disc_y", "disc_aspect",
    "cup_shift", "exposure", "vessel_seed", "texture_seed", "noise_seed", "gain_red", "gain_green",
    "gain_blue", "blur", "vignette", "field", "noise",
)  # fmt: skip


def _as_images(params: pd.DataFrame, name: str) -> Floats:
    """Return a column as [n, 1, 1] float32, to broadcast over images."""
    return params[name].to_numpy(np.float32)[:, None, None]


def _edge_coverage(distance: Floats, softness: float) -> Floats:
    """Return the share of a pixel inside a soft edge: 1 for ``distance`` far below 0, 0 far above it."""
    t = np.clip(0.5 - distance / (2 * softness), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Floats:
    """Return smooth noise of unit variance with ``cells`` cells a side, [size, size], the same at every size."""
    cloud = Image.fromarray(rng.standard_normal((cells, cells), np.float32))
    return np.asarray(cloud.resize((size, size), Image.Resampling.BICUBIC), np.float32)


def _disc_coverage(params: pd.DataFrame, x: Floats, y: Floats, pixel: float) -> tuple[Floats, Floats]:
    """Return the coverage of the disc and of the cup, both [n, size, size].

    Both are ellipses of the same aspect a (height to width), so that the ratio of their radii is the same in
    every direction: r = sqrt((dx * a)^2 + dy^2) against R (disc) and ratio * R (cup); the cup moves within
    the rim towards the temple by ``cup_shift`` of the free width.
    """
    nose = np.where(params["eye"].to_numpy() == "right", 1, -1).astype(np.float32)[:, None, None]
    radius, ratio = _as_images(params, "disc_radius"), _as_images(params, "cup_disc_ratio")
    dx, dy = x - nose * _as_images(params, "disc_offset"), y - _as_images(params, "disc_y")
    aspect = _as_images(params, "disc_aspect")
    shift = nose * _as_images(params, "cup_shift") * (1 - ratio) * radius / aspect
    disc = np.hypot(dx * aspect, dy) - radius
    cup = np.hypot((dx + shift) * aspect, dy) - ratio * radius
    return _edge_coverage(disc, 0.02 + pixel / 2), _edge_coverage(cup, 0.015 + pixel / 2)


def _background(params: pd.DataFrame, x: Floats, y: Floats, size: int) -> Floats:
    """Return the reflectance of the fundus without disc and vessels, [n, size, size, 3]."""
    nose = np.where(params["eye"].to_numpy() == "right", 1, -1).astype(np.float32)[:, None, None]
    pigment = _as_images(params, "pigmentation")
    textures = []  # of choroid and pigment epithelium: about unit variance, streaky
    for seed in params["texture_seed"]:
        rng = np.random.default_rng(int(seed))
        broad, middle, fine = _smooth_noise(rng, size, 6), _smooth_noise(rng, size, 15), _smooth_noise(rng, size, 28)
        textures.append((0.5 * broad + 0.7 * (1.2 - 2 * np.abs(middle)) + 0.4 * fine).astype(np.float32))
    texture = np.stack(textures)
    macula = np.exp(-((x + 0.45 * nose) ** 2 + (y - 0.04 - _as_images(params, "disc_y")) ** 2) / 0.045)
    # the choroid shines through a fair epithelium; a dark one hides it
    tone = (1 + (0.085 - 0.045 * pigment) * texture) * (1 - 0.45 * macula)
    absorbed = np.exp(-MELANIN * pigment[..., None])
    return np.asarray(FUNDUS * absorbed * tone[..., None], np.float32)


def _apply_camera(scene: Floats, params: pd.DataFrame, size: int) -> NDArray[np.uint8]:
    """Apply the camera to light [n, size, size, 3]: blur, gain of each channel, noise, 8 bits."""
    images = np.empty(scene.shape, np.uint8)
    gains = params[["gain_red", "gain_green", "gain_blue"]].to_numpy(np.float32)
    blurs, noises = params["blur"].to_numpy() * size / 2, params["noise"].to_numpy(np.float32)
    for row, seed in enumerate(params["noise_seed"]):
        image = scene[row]
        if blurs[row] > 0.2:
            image = gaussian_filter(image, (blurs[row], blurs[row], 0), truncate=3)
        rng = np.random.default_rng(int(seed))
        grain = rng.standard_normal(image.shape, np.float32) * noises[row]
        images[row] = np.clip((image * gains[row] + grain) * 255 + 0.5, 0, 255)
    return images


def _render_batch(params: pd.DataFrame, size: int) -> NDArray[np.uint8]:
    """Render the images of a batch of rows, [n, size, size, 3]."""
    axis = ((np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1).astype(np.float32)
    x, y = axis[None, None, :], axis[None, :, None]  # pixel centres to the right and downwards, both -1..1
    pixel = 2 / size
    disc, cup = (cover[..., None] for cover in _disc_coverage(params, x, y, pixel))
    scene = _background(params, x, y, size)
    scene += disc * (RIM - scene)
    scene += cup * (CUP - scene)
    arteries, veins = draw_vessels(params, size)
    over_disc = 1 - 0.65 * disc  # the bright tissue below scatters light into the vessels
    scene *= 1 - over_disc * arteries[..., None] * (1 - ARTERY)
    scene *= 1 - over_disc * veins[..., None] * (1 - VEIN)
    # light that reaches the sensor, [n, size, size]: exposure, vignetting, edge of the round field
    squared, edge = x * x + y * y, _as_images(params, "field")
    lost = _as_images(params, "vignette") * (squared / (edge * edge)) ** 1.5
    inside = _edge_coverage(np.sqrt(squared) - edge, 0.01 + pixel / 2)
    light = np.asarray(_as_images(params, "exposure") * np.clip(1 - lost, 0, 1) * inside, np.float32)
    scene *= light[..., None]
    return _apply_camera(scene, params, size)


def render(params: pd.DataFrame, size: int = 64) -> NDArray[np.uint8]:
    """Render images [n, size, size, 3] uint8 (red, green, blue) from the rows of ``sample_parameters``.

    Each image depends on its own row and the size alone; anatomy is the same at every size, sensor noise is
    not. The right eye has its disc on the right, as a camera sees it. Raises InputError if the size is not
    in 32..512 or a column is missing.
    """
    missing = [name for name in PARAMETERS if name not in params]
    problems = [Problem("it is missing", "use sample_parameters", column=name) for name in missing]
    if not 32 <= size <= 512:
        problems.append(Problem(f"the size is {size} pixels", "choose 32 to 512"))
    if problems:
        raise InputError("The phantom cannot be drawn.", problems)
    step = max(1, PIXELS_AT_ONCE // (size * size))
    batches = [_render_batch(params.iloc[start : start + step], size) for start in range(0, len(params), step)]
    return np.concatenate(batches) if batches else np.empty((0, size, size, 3), np.uint8)
