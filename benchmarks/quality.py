"""Quality per group: speed against what is usual, KD's bootstrap, both routes of FD, and peak memory.

What is usual, as in released code: group by group and metric by metric, each of which encodes its own images.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
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
from equigen.progress import progress_bar
from equigen.quality import ImageSet, evaluate, load_encoder
from equigen.quality.cells import GroupedImages, ResamplingSettings, make_cells
from equigen.quality.metric_inputs import MeasurementPlan
from equigen.quality.metrics.frechet import cheaper_svd, frechet_influence, svd_by_features, svd_by_rows
from equigen.quality.metrics.kernel import KernelData, kernel_data, kernel_null, measure_kernel
from equigen.quality.resamples import make_draws

SIZE, IMAGES = 64, 600  # images a side
ENCODER = "efficientnet-lite0@224"  # the resolution that its weights were trained at
LEVELS = {"sex": ["female", "male"], "race": ["asian", "black", "white"], "age": ["under 60", "60 and over"]}
FEATURES, GROUP, REPLICATES = 1280, 2000, 1000  # of KD: images a group and side
ROUTE, ROWS = 768, (0.5, 1.0, 1.4, 1.6, 3.0)  # of FD: features, and rows as multiples of them
MEMORY = (25_000, 100_000)  # images a side


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
        rng = np.random.default_rng(seed)
        frame = pd.DataFrame({f"attr.{attribute}": rng.choice(groups, IMAGES) for attribute, groups in LEVELS.items()})
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
    return {
        "figure": "group by group / one pass, seconds from images to figures",
        "target": 8,
        "ratio": theirs / ours,
        "seconds": seconds,
        "images a side": IMAGES,
        "encoder": ENCODER,
    }


def kernel_replicates() -> dict[str, Any]:
    """KD of seven groups with bootstrap replicates and floors, in seconds; null bands of the three attributes apart."""
    plan, data = _kernel_setting()
    started = time.perf_counter()
    bare = replace(plan, draws=replace(plan.draws, null={}))
    found = measure_kernel(data, bare)
    seconds = time.perf_counter() - started
    if len(found.estimates) != 7 or any(len(one.replicates) != REPLICATES for one in found.estimates.values()):
        raise RuntimeError("a group has no replicates")
    started = time.perf_counter()
    permutations = min(len(kernel_null(data, pool)) for pool in plan.draws.null.values())
    return {
        "figure": "seconds of KD with floors and replicates in seven groups",
        "target": "under 30 s",
        "seconds": seconds,
        "ratio": 30 / seconds,
        "images a group and side": GROUP,
        "features": FEATURES,
        "replicates": REPLICATES,
        "permutations": permutations,
        "null bands besides, seconds": time.perf_counter() - started,
    }


def _kernel_setting() -> tuple[MeasurementPlan, KernelData]:
    """Three attributes over the same images; who is in no group of an attribute of two levels is unknown there."""
    rng, images = np.random.default_rng(0), 3 * GROUP
    order = np.arange(images) // GROUP
    groups = {}
    for name, own in LEVELS.items():
        codes = rng.permuted(order)
        groups[name] = np.where(codes < len(own), codes, -1).astype(np.int64)
    real, made = (GroupedImages(np.array([f"{name}{row}" for row in range(images)]), groups) for name in ("r", "g"))
    settings = ResamplingSettings(replicates=REPLICATES)
    cells = [cell for cell in make_cells(real, made, LEVELS, settings) if cell.attribute != "*"]
    values = [rng.standard_normal((images, FEATURES), dtype=np.float32) for _ in range(2)]
    with progress_bar("KD", len(cells), show=False) as bar:
        plan = MeasurementPlan(cells, make_draws(real, made, cells, settings), GROUP // 2, settings, bar)
    return plan, kernel_data(values[0], values[1], real.patients, made.patients)


def frechet_routes() -> dict[str, Any]:
    """FD with influences by both routes: seconds of each, how far they differ, and which one is taken."""
    rows, apart, rng = [], [], np.random.default_rng(0)
    for times in ROWS:
        n = int(times * ROUTE)
        a, b = (rng.standard_normal((n, ROUTE)) * scale for scale in (1.0, 1.2))
        seconds, found = {}, []
        for name, route in (("n x n", svd_by_rows), ("d x d", svd_by_features)):
            started = time.perf_counter()
            found.append(frechet_influence(a, b, route))
            seconds[name] = time.perf_counter() - started
        taken = "d x d" if cheaper_svd(n, n, ROUTE) is svd_by_features else "n x n"
        apart.append(abs(found[0].value / found[1].value - 1))
        rows.append(
            {
                "rows / features": times,
                "seconds": seconds,
                "taken": taken,
                "taken / the other": seconds[taken] / (sum(seconds.values()) - seconds[taken]),
                "relative difference": apart[-1],
            }
        )
    return {
        "figure": "largest relative difference of FD between the routes",
        "target": 1e-6,
        "difference": max(apart),
        "features": ROUTE,
        "by rows": rows,
    }


def memory() -> dict[str, Any]:
    """Peak memory of evaluations from features, each in a process of its own; it grows by the features alone."""
    runs = []
    for images in MEMORY:
        command = [sys.executable, "-m", "benchmarks.quality_memory", str(images)]
        runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    most = runs[-1]["peak, GiB"]
    return {
        "figure": f"peak GiB of an evaluation of {MEMORY[-1]} images a side",
        "target": "under 4 GiB",
        "peak_gib": most,
        "ratio": 4 / most,
        "runs": runs,
    }


def measure() -> dict[str, Any]:
    """All parts; the one that encodes images, and takes longest, comes last."""
    figures = {"kd replicates": kernel_replicates(), "fd routes": frechet_routes(), "memory": memory()}
    with tempfile.TemporaryDirectory() as folder:
        return {**figures, "one pass": one_pass(sides(Path(folder)))}
