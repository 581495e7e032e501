"""Render images from parameters: a procedural fundus as a two-laser scanning ophthalmoscope shows it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from equigen.cohort.phantom.vessels import draw_vessels
from equigen.errors import InputError, Problem

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
