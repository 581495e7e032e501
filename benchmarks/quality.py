"""Quality per group: one pass for everything, against what is usual, group by group and metric by metric."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from equigen.cohort import load_images
from equigen.cohort.phantom import write_phantom
from equigen.quality import ImageSet, evaluate, load_encoder

SIZE, IMAGES = 64, 1200  # images a side
ENCODER = "efficientnet-lite0@224"  # the resolution that its weights were trained at
LEVELS = {"sex": ["female", "male"], "race": ["asian", "black", "white"], "age": ["under 60", "60 and over"]}
FEATURES, GROUP, GROUPS = 1280, 2000, 7


class Extractor(torch.nn.Module):
    """The encoder as the metrics library takes it: uint8 [N, 3, H, W] in, features (or logits) out."""

    def __init__(self, encoder: Any, logits: bool = False) -> None:
        super().__init__()
        self.encoder, self.logits, self.num_features = encoder, logits, encoder.dimension

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Features [N, D], or log probabilities [N, C]."""
        features, probabilities = self.encoder(images.permute(0, 2, 3, 1).numpy())
        return torch.from_numpy(np.log(probabilities + 1e-12) if self.logits else features)


def sides(folder: Path) -> dict[str, ImageSet]:
    """Two phantoms of one distribution with three attributes, seven groups in all."""
    made = {}
    for seed, name in enumerate(("real", "generated")):
        place = write_phantom(folder / name, IMAGES, seed)
        table = pd.read_csv(place / "metadata.csv")
        pixels = load_images([place / "images" / f"{row:06d}.png" for row in range(IMAGES)], SIZE)
        draws = np.random.default_rng(seed)
        frame = pd.DataFrame({f"attr.{attribute}": draws.choice(groups, IMAGES) for attribute, groups in LEVELS.items()})
        frame["patient"] = table["patient"].astype(str)
        made[name] = ImageSet(frame, pixels, LEVELS)
    return made


def group_by_group(real: ImageSet, generated: ImageSet) -> dict[str, float]:
    """FID, KID and IS of the whole and of each group, each metric encoding its own images, without intervals."""
    encoder, found = load_encoder(ENCODER), {}
    cells = [("*", "*"), *((attribute, group) for attribute, groups in LEVELS.items() for group in groups)]
    for attribute, group in cells:
        images = [_pixels(side, attribute, group) for side in (real, generated)]
        smallest = min(len(side) for side in images)
        metrics = {
            "fd": FrechetInceptionDistance(Extractor(encoder)),
            "kd": KernelInceptionDistance(Extractor(encoder), subset_size=min(1000, smallest)),
            "is": InceptionScore(Extractor(encoder, logits=True), splits=1),
        }
        for name, metric in metrics.items():
            for side, is_real in zip(images, (True, False), strict=True):
                if name == "is" and is_real:
                    continue
                for start in range(0, len(side), 64):
                    batch = torch.from_numpy(side[start : start + 64]).permute(0, 3, 1, 2)
                    metric.update(batch) if name == "is" else metric.update(batch, real=is_real)
            value = metric.compute()
            found[f"{name} {attribute} {group}"] = float(value[0] if isinstance(value, tuple) else value)
    return found


def _pixels(side: ImageSet, attribute: str, group: str) -> NDArray[np.uint8]:
    if side.pixels is None:
        raise ValueError("the benchmark keeps its images in memory")
    return side.pixels if attribute == "*" else side.pixels[(side.frame[f"attr.{attribute}"] == group).to_numpy()]


def one_pass(made: dict[str, ImageSet]) -> dict[str, Any]:
    """Seconds of both ways on the same images; ours with floors, intervals, null bands and all intersections or not."""
    load_encoder(ENCODER)(np.zeros((16, SIZE, SIZE, 3), np.uint8))  # loads the weights
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    evaluate(made["real"], made["generated"], encoder=ENCODER, metrics=["fd", "kd", "is"], intersections=False)
    seconds["one pass, with floors, intervals and null bands"] = time.perf_counter() - started
    started = time.perf_counter()
    group_by_group(made["real"], made["generated"])
    seconds["group by group, estimates alone"] = time.perf_counter() - started
    ours, theirs = seconds.values()
    return {"target": 8, "ratio": theirs / ours, "seconds": seconds, "images a side": IMAGES, "encoder": ENCODER}
