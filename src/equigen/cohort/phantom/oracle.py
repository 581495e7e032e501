"""Oracle for phantom images: measures disc, cup and pigmentation from the pixels alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from equigen.cohort.phantom.fitting import (
    REACH,
    SIDE,
    Array,
    Patches,
    coverage,
    extract_patches,
    fit_ellipses,
    locate_discs,
    patch_offsets,
)
from equigen.cohort.phantom.parameters import PhantomSettings
from equigen.cohort.phantom.render import CUP, FUNDUS, RIM
from equigen.errors import InputError, Problem

BATCH = 64
DARK = 0.02  # added before logarithms are taken: about the sensor noise
# Weights of the logarithms of red, green and blue that cancel vessels: at right angles to the absorption of
# arteries and of veins, log(ARTERY) x log(VEIN), scaled to -1 for green. What is left shows fundus, rim, cup.
VESSEL_FREE = np.array([0.5, -1.0, 1.09])
LEVEL = 0.35 / 0.44  # brings cup - rim of that mixture to fitting.STEP
# Least-squares fit of the true pigmentation on the absorption in red and green, over 2 000 default phantoms.
OFFSET, BY_RED, BY_GREEN = -0.071, 1.485, -0.707


def _masked_quantile(values: Array, mask: NDArray[np.bool_], share: float) -> Array:
    """Return the quantile ``share`` of the masked values: [n, p, c], [n, p] -> [n, c]; NaN for an empty mask."""
    masked = np.where(mask[..., None], values, np.nan)
    rows = np.full((len(values), values.shape[2]), np.nan)
    nonempty = mask.any(1)
    if nonempty.any():
        rows[nonempty] = np.nanquantile(masked[nonempty], share, axis=1)
    return rows


def _tissue_mask(logs: Array, disc: Array, cup: Array) -> NDArray[np.bool_]:
    """Return [n] whether the colours are those of an eye: cup paler than rim, rim paler than ground.

    Steps of the logarithm of light do not depend on the camera's gains. Cup over rim is 0.12, 0.37, 0.69 in
    red, green, blue by construction; the bounds leave room for blur, vessels and lossy coding.
    """
    rim = disc - cup
    inner = _masked_quantile(logs, cup > 0.8, 0.6)
    middle = _masked_quantile(logs, rim > 0.8 * rim.max(1, keepdims=True), 0.6)
    outer = _masked_quantile(logs, disc < 0.1, 0.6)
    step = np.nan_to_num(inner - middle, nan=-9.0)
    red, green, blue = step.T
    good = (red < 0.57) & (green > 0.2) & (green < 0.68) & (blue > 0.35) & (blue < 1)
    return np.asarray(good & (np.nan_to_num(middle - outer, nan=-9.0)[:, 1] > 0.18))


def _absorption(grid: Array, light: Array, theta: Array, centres: Array) -> Array:
    """Return the absorption of the ground relative to the palest fundus in each channel [n, 3], as a logarithm.

    The disc is the reference white: gains and exposure act on disc and ground alike and cancel.
    """
    axis = (np.arange(SIDE) + 0.5) * 2 / SIDE - 1
    middle = (centres + 0.5) * 2 / SIDE - 1
    y, x = middle[:, 0] + theta[:, 1], middle[:, 1] + theta[:, 0]
    distance = np.hypot(axis[None, None, :] - x[:, None, None], axis[None, :, None] - y[:, None, None])
    ring = (distance > 1.25 * theta[:, 2, None, None]) & (distance < 2.2 * theta[:, 2, None, None])
    ring &= np.hypot(axis[None, None, :], axis[None, :, None]) < 0.75
    logs = np.log(grid + 1e-3).reshape(len(grid), -1, 3)
    return np.asarray(light - (_masked_quantile(logs, ring.reshape(len(grid), -1), 0.5) - np.log(FUNDUS)))


def _measure(images: NDArray[np.uint8]) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Return the cup-to-disc ratio [n], absorption [n, 3] and whether a disc with a cup was found [n]."""
    if images.shape[1:3] != (SIDE, SIDE):
        kind = Image.Resampling.BOX if images.shape[1] % SIDE == 0 else Image.Resampling.BICUBIC
        images = np.stack([np.asarray(Image.fromarray(image).resize((SIDE, SIDE), kind)) for image in images])
    grid = images / 255.0
    centres, contrast = locate_discs(grid[..., 1])
    pixels, inside = extract_patches(grid, centres)
    mixture = np.log(pixels + DARK) @ VESSEL_FREE
    down, right = patch_offsets()
    core = np.hypot(down, right) < 0.56 * REACH
    x, y = right * 2 / SIDE, down * 2 / SIDE
    values = 1 + LEVEL * (mixture - np.median(mixture[:, core], axis=1, keepdims=True))
    theta, noise = fit_ellipses(Patches(values, inside, x, y))
    disc, cup = coverage(theta, x, y)
    # a disc with a cup is bright, with clear edges, of plausible size and steps
    radius, aspect, ratio, rim_step = theta[:, 2], theta[:, 3], theta[:, 4], theta[:, 8] - theta[:, 7]
    cup_step = theta[:, 9] - theta[:, 8]
    ok = (radius > 0.24) & (radius < 0.44) & (aspect > 0.91) & (aspect < 1.25) & (ratio > 0.12) & (ratio < 0.93)
    ok &= (rim_step > 0.12) & (cup_step > 0.15) & (cup_step < 0.6)
    ok &= (contrast > 0.08) & (rim_step + cup_step > 2.5 * noise) & _tissue_mask(np.log(pixels + DARK), disc, cup)
    # logarithm of the light on the disc in each channel [n, 3]: pixel value less tissue reflectance
    tissue = np.where((cup > 0.5)[..., None], np.log(CUP), np.log(RIM))
    pure = (disc > 0.95) & ((cup > 0.9) | (cup < 0.1))
    light = _masked_quantile(np.log(pixels + 1e-3) - tissue, pure, 0.6)
    return ratio, _absorption(grid, light, theta, centres), ok


class Oracle:
    """Measures cup-to-disc ratio and pigmentation of phantom images.

    It uses the pixels only: a disc is located by matched filtering; two nested ellipses (fundus, rim, cup) are
    fitted by robust least squares to a mixture of colours in which vessels vanish; the pigmentation follows
    from how much darker the ground is than the disc, which cancels the camera's gains.

    It cannot measure the sex (which shifts the radius of the disc by less than its spread), the site or the
    patient, nor the race itself, only the group whose pigmentation fits best. It assumes the tissue colours of
    the phantom and is of no use on real photographs. Its constants were fitted to phantoms of the default
    settings; images of any size are measured at 64 pixels.
    """

    def __init__(self, settings: PhantomSettings | None = None) -> None:
        self.settings = settings or PhantomSettings()

    def measure(self, images: NDArray[np.uint8]) -> pd.DataFrame:
        """Measurements of images [n, size, size, 3] uint8: one row each.

        Columns: ``cup_disc_ratio`` (0..1), ``pigmentation`` (0..1), both NaN where ``ok`` is False because no
        disc with a cup was found. Raises InputError if the array is no batch of square 8-bit colour images.
        """
        images = np.asarray(images)
        square = images.ndim == 4 and images.shape[3] == 3 and images.shape[1] == images.shape[2] > 0
        if not square or images.dtype != np.uint8:
            problem = Problem(
                f"an array of shape {list(images.shape)} and type {images.dtype} was given",
                "give square colour images: [n, size, size, 3], uint8",
            )
            raise InputError("The oracle cannot read these images.", [problem])
        batches = [_measure(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
        ratio, absorption, ok = (
            (np.concatenate(column) for column in zip(*batches, strict=True))
            if batches
            else (np.empty(0), np.empty((0, 3)), np.empty(0, bool))
        )
        red, green = absorption[:, 0], absorption[:, 1]
        pigment = np.clip(OFFSET + BY_RED * red + BY_GREEN * green, 0, 1)
        ok = ok & np.isfinite(pigment)
        ratio, pigment = np.where(ok, ratio, np.nan), np.where(ok, pigment, np.nan)
        return pd.DataFrame({"cup_disc_ratio": ratio, "pigmentation": pigment, "ok": ok})

    def judge(self, images: NDArray[np.uint8]) -> pd.DataFrame:
        """Classify images into level names: columns ``glaucoma`` and ``race``, None where no disc was found.

        ``glaucoma`` ("glaucoma" or "healthy") compares the ratio with ``settings.threshold``. ``race`` is the
        group under whose normal distribution of pigmentation the measured one is most likely, without regard
        to the sizes of the groups.
        """
        return self.classify(self.measure(images))

    def classify(self, measurements: pd.DataFrame) -> pd.DataFrame:
        """Classify the measurements of ``measure``; the same columns as ``judge``."""
        names = list(self.settings.races)
        appearances = list(self.settings.races.values())
        mean = np.array([look.pigmentation for look in appearances])
        spread = np.array([look.pigmentation_sd for look in appearances])
        values = measurements["pigmentation"].to_numpy(float)[:, None]
        likelihood = -0.5 * ((values - mean) / spread) ** 2 - np.log(spread)
        best = np.where(np.isfinite(likelihood), likelihood, -np.inf).argmax(1)
        ill = measurements["cup_disc_ratio"].to_numpy(float) > self.settings.threshold
        verdicts = {
            "glaucoma": np.where(ill, "glaucoma", "healthy").astype(object),
            "race": np.array(names, object)[best],
        }
        ok = measurements["ok"].to_numpy(bool)
        return pd.DataFrame(
            {name: pd.Series(np.where(ok, verdict, None), dtype=object) for name, verdict in verdicts.items()}
        )
