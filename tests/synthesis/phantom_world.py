"""Rendered phantoms as stand-ins for generated images, and the oracle as a classifier."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from screen_world import luck

from equigen.cohort.phantom import Oracle, PhantomSettings, render, sample_parameters
from equigen.quality.judge.classifier import FunctionClassifier
from equigen.quality.judge.questions import Target

SIZE = 64
SETTINGS = PhantomSettings()
RACE = Target("attr.race", list(SETTINGS.races))
GLAUCOMA = Target("label.glaucoma", ["healthy", "glaucoma"])


@cache
def pool() -> dict:
    """Eyes by diagnosis."""
    eyes = sample_parameters(300, seed=21).query("site == 'alpha'")
    return {level: own.reset_index(drop=True) for level, own in eyes.groupby("glaucoma")}


class PhantomPainter:
    """Renders the eye that is asked for; the seed is the noise: all of the eye that nobody asked about.

    ``race(row, luck)`` and ``glaucoma(row, luck)`` say what it renders; by default what the row asks for.
    """

    hash, latent_side, device, mixes_guidance = "phantoms", 8, torch.device("cpu"), True

    def __init__(self, race=lambda row, luck: row["attr.race"], glaucoma=lambda row, luck: row["label.glaucoma"],
                 size=SIZE):  # fmt: skip
        self.race, self.glaucoma, self.size = race, glaucoma, size
        self.pool = pool()

    def check(self, plan):
        assert len(plan)

    def __call__(self, conditions, seeds, guidance, steps, **rest):
        return np.stack([self.one(row, seed) for row, seed in zip(conditions.to_dict("records"), seeds, strict=True)])

    def one(self, row, seed):
        chance = luck(seed)
        race, pool = self.race(row, chance), self.pool[self.glaucoma(row, chance)]
        eye = pool.iloc[[int(seed) % 97 % len(pool)]].copy()
        shift = SETTINGS.races[race].pigmentation - SETTINGS.races[eye["race"].iloc[0]].pigmentation
        eye["pigmentation"] = np.clip(eye["pigmentation"] + shift, 0, 1)
        return render(eye, self.size)[0]


def oracle_reader() -> FunctionClassifier:
    """The oracle's judgement as probabilities of 0 and 1; evenly spread where it sees nothing."""

    def read(images):
        seen = Oracle().judge(images)
        return {question.name: _spread(seen[question.column.split(".")[1]], question.levels)
                for question in (GLAUCOMA, RACE)}  # fmt: skip

    return FunctionClassifier(read, [GLAUCOMA, RACE], "oracle")


def _spread(seen, levels):
    shown = np.array([[value == level for level in levels] for value in seen], float)
    return np.where(shown.any(axis=1, keepdims=True), shown, 1 / len(levels))
