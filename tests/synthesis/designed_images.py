"""A generator by design: real images, made brighter by how far the guidance is from the group's own best one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from equigen.cohort import Cohort, load_images

BEST = {"female": 1.5, "male": 3.2}
SHIFT = 40  # grey levels for each unit of guidance off the best


class BrightnessEncoder:
    """Four features that a person can check: mean brightness of the four quarters."""

    name, weight_hash, preprocessing, dimension = "brightness", "none", "none", 4

    def __call__(self, images):
        values = images.astype(np.float32).mean(axis=3) / 255
        half = values.shape[1] // 2
        parts = [values[:, a:b, c:d] for a, b in ((0, half), (half, None)) for c, d in ((0, half), (half, None))]
        return np.stack([part.mean(axis=(1, 2)) for part in parts], axis=1), None


class Designed:
    """Stands in for ``render``: ``made`` counts images, ``stop`` raises after so many."""

    def __init__(self, cohort: Cohort, size: int) -> None:
        self.pixels = load_images(list(cohort.frame["path"]), size)
        self.sex = cohort.frame["attr.sex"].to_numpy()
        self.made, self.stop = 0, None

    def __call__(self, pipeline, plan, rows):
        images = []
        for row in plan.iloc[rows].to_dict("records"):
            if self.stop is not None and self.made >= self.stop:
                raise RuntimeError("power cut")
            own = self.pixels[self.sex == row["attr.sex"]]
            off = SHIFT * (row["guidance"] - BEST[row["attr.sex"]])
            images.append(np.clip(own[row["seed"] % len(own)].astype(float) + off, 0, 255))
            self.made += 1
        return np.stack(images).astype(np.uint8)


def halves(cohort: Cohort) -> tuple[Cohort, Cohort]:
    """Two held-out sides of different patients, by every other patient."""
    first = np.array([int(code) % 2 == 0 for code in cohort.frame["patient"].astype("category").cat.codes])
    frame = cohort.frame.assign(split=np.where(first, "val", "test"), domain="id")
    whole = replace(cohort, frame=frame)
    return whole.split("val"), whole.split("test")
