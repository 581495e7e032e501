"""Does training with prompts learn what the prompts say? A text-conditioned network on phantoms, read by the oracle.

A network is trained from scratch on prompts (``text_encoder``, here one with random weights: it only has to tell
prompts apart). The oracle then reads generated images: cup-disc ratio by the diagnosis that was asked for, within each
group, and pigmentation by race.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from equigen.cohort import Cohort, load_images
from equigen.cohort.phantom import Oracle, PhantomSettings, write_phantom
from equigen.diffusion.stand_in import stable_diffusion
from equigen.synthesis import generate, plan
from equigen.synthesis.generation import SyntheticSet
from equigen.training import TrainSettings, train

IMAGES, SEEN, MADE = 2_000, 120_000, 360
WORDS = ("fundus", "of", "a", "patient", "asian", "black", "white", "female", "male", "healthy", "glaucoma", "unknown")
PROMPTS = ["fundus of a {race} {sex} patient: {glaucoma}", "{glaucoma}, {race}, {sex}"]


def measure(seen: int = SEEN, made: int = MADE) -> dict[str, Any]:
    """Means of what the oracle reads, by what was asked for, and how far apart they are."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = write_phantom(folder / "phantom", IMAGES, settings=PhantomSettings(), show=False) / "cohort.yaml"
        place.write_text(yaml.safe_dump({**yaml.safe_load(place.read_text()), "prompt": PROMPTS}))
        cohort = Cohort.read(place, show_progress=False)
        pipeline = stable_diffusion(8, divisor=8, length=24, whole_words=WORDS)
        pipeline.text_encoder.save_pretrained(folder / "encoder")
        pipeline.tokenizer.save_pretrained(folder / "encoder")
        settings = TrainSettings(
            size=64,
            text_encoder=str(folder / "encoder"),
            tune="unet",
            preset="tiny",
            images=seen,
            batch=32,
            learning_rate=1e-3,
            mechanism="balanced",
            trackers="none",
        )
        run = train(cohort, settings=settings, out=folder / "run", latents=folder / "latents")
        rows = plan(cohort, "uniform", made, seed=1, guidance=3.0, steps=20)
        images = generate(run, rows, folder / "set")
        return figures(images, seen)


def mean(values: NDArray[np.float64]) -> float:
    """Of what the oracle could read."""
    return float(np.nanmean(values))


def figures(images: SyntheticSet, seen: int) -> dict[str, Any]:
    """The oracle's readings by what was asked for."""
    frame = images.frame
    read = Oracle(PhantomSettings()).measure(load_images(list(frame["path"]), 64))
    ratio, pigment = np.asarray(read["cup_disc_ratio"], float), np.asarray(read["pigmentation"], float)
    ill = (frame["label.glaucoma"] == "glaucoma").to_numpy()
    groups = {column[5:]: frame[column] for column in frame if str(column).startswith("attr.")}
    contrasts = {
        f"{attribute} {level}": mean(ratio[ill & (own == level)]) - mean(ratio[~ill & (own == level)])
        for attribute, own in groups.items()
        for level in sorted(own.dropna().unique())
    }
    race = {level: mean(pigment[groups["race"] == level]) for level in sorted(groups["race"].unique())}
    return {
        "figure": "cup-disc ratio where glaucoma was asked for less where health was, in each group (truth: above 0)",
        "target": 0.0,
        "contrast": contrasts,
        "smallest": min(contrasts.values()),
        "pigmentation by the race that was asked for": race,
        "unreadable": float(np.isnan(ratio).mean()),
        "images seen": seen,
        "images": len(frame),
    }


if __name__ == "__main__":
    print(measure())
