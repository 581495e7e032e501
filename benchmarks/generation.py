"""Generation in chunks with 20 steps against one prompt at a time with 75 steps, by the same generator.

Both run in one process in turn, some images at a time: a machine that is faster at one moment than at another would
otherwise decide the ratio. Fewer steps must not be worse ones: with a small generator, trained here, the KD of both
sets to held-out real images is measured too. Where there is a GPU, the speed is also that of a network of the size of
Stable Diffusion with random weights, whose images say nothing.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from equigen.cohort import Cohort, load_images
from equigen.cohort.phantom import PhantomSettings, write_phantom
from equigen.diffusion import Generator, TextGenerator
from equigen.diffusion.stand_in import stable_diffusion
from equigen.quality import Encoder, ImageSet, kernel_distance, load_encoder
from equigen.quality.features import extract_features
from equigen.synthesis import generate, match_plan
from equigen.synthesis.chunks import render
from equigen.training import TrainSettings, train

STEPS, USUAL = 20, 75
SIZE, IMAGES, LEARN = 64, 1_500, 12_000  # of the small generator: pixels, real images, images seen in training
SETS, HALVES = 160, 200  # images whose KD is measured; half samples that its spread is taken from
TURNS, FEW = 5, 2  # of each way in turn; images that the usual way makes in one
GUIDANCE = {"small": 2.0, "large": 7.5}
ENCODER = "efficientnet-lite0@64"


def usual(generator: Generator, rows: pd.DataFrame, folder: Path) -> NDArray[np.uint8]:
    """What scripts do: one prompt at a time through 75 steps of DDIM, each image saved when it is made."""
    folder.mkdir(parents=True)
    images = []
    for number in range(len(rows)):
        row = rows.iloc[[number]]
        images.append(generator(row, list(row["seed"]), float(row["guidance"].iloc[0]), USUAL, "ddim")[0])
        Image.fromarray(images[-1]).save(folder / f"{number:05d}.png")
    return np.stack(images)


def in_turn(
    generator: Generator, rows: pd.DataFrame, folder: Path
) -> tuple[dict[str, float], NDArray[np.uint8], NDArray[np.uint8]]:
    """Images a second of both ways, the images of all rows that ``generate`` made, and those of the usual way.

    The usual way makes the first rows of those that are made in chunks in the same turn.
    """
    parts = [rows.iloc[part] for part in np.array_split(np.arange(len(rows)), TURNS)]
    usual(generator, rows.iloc[:1], folder / "warm" / "usual")
    generate(generator, parts[0].assign(steps=1), folder / "warm" / "chunks", show=False)
    seconds, chunked, alone = {"chunks": 0.0, "usual": 0.0}, [], []
    for turn, part in enumerate(parts):
        started = time.perf_counter()
        made = generate(generator, part, folder / f"chunks-{turn}", show=False)
        paused = time.perf_counter()
        alone.append(usual(generator, part.iloc[:FEW], folder / f"usual-{turn}"))
        seconds["usual"] += time.perf_counter() - paused
        seconds["chunks"] += paused - started
        chunked.append(load_images(list(made.frame["path"]), generator.size))
    speeds = {"chunks": len(rows) / seconds["chunks"], "usual": FEW * TURNS / seconds["usual"]}
    return speeds, np.concatenate(chunked), np.concatenate(alone)


def small(folder: Path) -> dict[str, Any]:
    """Speed and KD of a generator of 2 M parameters, trained on phantoms."""
    place = write_phantom(folder / "phantom", IMAGES, settings=PhantomSettings(size=SIZE), show=False)
    cohort = Cohort.read(place / "cohort.yaml", show_progress=False)
    settings = TrainSettings(size=SIZE, preset="tiny", images=LEARN, mechanism="none")
    generator = train(cohort, settings=settings, out=folder / "g", latents=folder / "latents").pipeline()
    held_out = cohort.where((cohort.frame["split"] != "train").to_numpy())
    rows = match_plan(held_out, SETS, seed=1, guidance=GUIDANCE["small"], steps=STEPS)
    speeds, chunked, alone = in_turn(generator, rows, folder)
    # The usual way's other images, several at a time: the same but for rounding, and in less than an hour.
    slow = render(generator, rows.assign(steps=USUAL, solver="ddim"), list(range(SETS)))
    first = np.concatenate([part[:FEW] for part in np.array_split(np.arange(SETS), TURNS)])
    network = load_encoder(ENCODER)
    real = extract_features(ImageSet(held_out.frame), network, SIZE, show=False).values
    kd = distances(real, {"chunks": features(rows, chunked, network), "usual": features(rows, slow, network)})
    return {
        "ratio": speeds["chunks"] / speeds["usual"],
        "images per second": speeds,
        "KD to real images": kd,
        "largest difference of the usual images made together, grey levels": int(
            np.abs(slow[first].astype(int) - alone.astype(int)).max()
        ),
        "images": SETS, "real images": len(real), "guidance": GUIDANCE["small"],
        "generator": f"tiny, {LEARN} images seen",
    }  # fmt: skip


def features(rows: pd.DataFrame, images: NDArray[np.uint8], network: Encoder) -> NDArray[np.float32]:
    """[N, D] of images made for some rows."""
    return extract_features(ImageSet(rows, images), network, SIZE, show=False).values


def distances(real: NDArray[np.float32], made: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
    """KD of both sets and their difference with its spread; rows are paired, prompt and seed are the same in both.

    The difference of halves drawn without repeating varies as that of two whole sets does.
    """
    draws, count = np.random.default_rng(0), len(made["usual"])
    differences = []
    for _ in range(HALVES):
        half = draws.permutation(count)[: count // 2]
        differences.append(kernel_distance(real, made["chunks"][half]) - kernel_distance(real, made["usual"][half]))
    values = {name: kernel_distance(real, own) for name, own in made.items()}
    difference, spread = values["chunks"] - values["usual"], float(np.std(differences))
    return {**values, "difference": difference, "interval": [difference - 1.96 * spread, difference + 1.96 * spread]}


def large(
    folder: Path,
    images: int = 320,
    side: int = 64,
    widths: tuple[int, ...] = (320, 640, 1280, 1280),
    precision: str = "bf16",
) -> dict[str, Any]:
    """Speed of a Stable Diffusion pipeline with random weights; by default the size of 1.x at 512 pixels.

    ``side``: of the latents; ``widths``: channels of the network from the finest level down.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    generator = TextGenerator(stable_diffusion(side, widths).to(device, dtype))
    rows = pd.DataFrame({"prompt": "a fundus image", "seed": np.arange(images)})
    rows = rows.assign(guidance=GUIDANCE["large"], steps=STEPS)
    speeds, *_ = in_turn(generator, rows, folder)
    return {
        "ratio": speeds["chunks"] / speeds["usual"], "images per second": speeds, "images": images,
        "guidance": GUIDANCE["large"], "pixels": generator.size, "precision": precision, "device": device,
        "parameters of the network": sum(weight.numel() for weight in generator.pipeline.unet.parameters()),
    }  # fmt: skip


def measure() -> dict[str, Any]:
    """The ratio of images per second, and of the small generator the KD of both ways."""
    with tempfile.TemporaryDirectory() as name:
        found = small(Path(name) / "small")
        found["steps"] = {"chunks": f"{STEPS} of dpm++", "usual": f"{USUAL} of ddim"}
        if torch.cuda.is_available():
            found["of the size of Stable Diffusion"] = large(Path(name) / "large")
    figure = "images per second in chunks with 20 steps / one prompt at a time with 75, by the same generator"
    return {"figure": figure, "target": 4, **found}
