"""Images and an encoder whose numbers a person can check."""

from __future__ import annotations

import numpy as np
import pandas as pd

from equigen.quality import ImageSet


class ColourEncoder:
    """Six features a person can check: mean and spread of each channel; probabilities from the means."""

    name, weight_hash, preprocessing, dimension = "colour", "none", "none", 6

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images):
        self.seen += len(images)
        values = images.astype(np.float32) / 255
        means, spreads = values.mean(axis=(1, 2)), values.std(axis=(1, 2))
        classes = np.exp(8 * means)
        return np.concatenate([means, spreads], axis=1), classes / classes.sum(axis=1, keepdims=True)


def make_images(n, seed, shift=0.0, groups=("a", "b"), odds=None, per_patient=2, size=8):
    """Noise images whose brightness is random, groups by patient; ``shift`` moves the first group."""
    rng = np.random.default_rng(seed)
    patients = np.arange(n) // per_patient
    group = rng.choice(len(groups), patients.max() + 1, p=odds)[patients]
    level = 0.5 + 0.1 * rng.standard_normal((n, 1, 1, 3)) + shift * (group == 0)[:, None, None, None]
    noise = 0.05 * rng.standard_normal((n, size, size, 3))
    pixels = (np.clip(level + noise, 0, 1) * 255).astype(np.uint8)
    frame = pd.DataFrame(
        {
            "patient": [f"{seed}-{patient}" for patient in patients],
            "attr.sex": pd.Series([groups[code] for code in group], dtype=object),
        }
    )
    return ImageSet(frame, pixels)
