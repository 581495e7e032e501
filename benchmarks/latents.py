"""Training from cached latents against the same loop encoding each batch."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from benchmarks.setting import SIZE, Setting
from equigen.cohort import load_images
from equigen.diffusion import loss_per_image, noise_schedule
from equigen.latents import Autoencoder

PRESET, BATCH, TURNS, PIECE = "tiny", 64, 12, 3
STORED = (64, 256)  # side of the image files, pixels: users store images larger than they train at


def train(setting: Setting, latents_of: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """A training loop that gets its latents from ``latents_of(rows)``, one batch at each ``next``."""
    denoiser, schedule = setting.denoiser(PRESET), noise_schedule()
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=1e-4, fused=True)
    for first in count(0, BATCH):
        rows = torch.arange(first, first + BATCH) % len(setting.data.latents)
        latents, ids = latents_of(rows), setting.data.ids[rows]
        timesteps = torch.randint(0, 1000, (BATCH,))
        loss = loss_per_image(denoiser, schedule, latents, torch.randn_like(latents), timesteps, ids).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield


def in_turn(loops: dict[str, Iterator[None]]) -> dict[str, float]:
    """Images a second of several loops that take turns, a few steps at a time."""
    seconds = dict.fromkeys(loops, 0.0)
    for turn in range(-1, TURNS):  # the first turn warms up
        for name, loop in loops.items():
            started = time.perf_counter()
            for _ in range(PIECE):
                next(loop)
            seconds[name] += (time.perf_counter() - started) * (turn >= 0)
    return {name: TURNS * PIECE * BATCH / spent for name, spent in seconds.items()}


def autoencoders(shipped: Autoencoder) -> dict[str, Autoencoder]:
    """The shipped one, which is unusually cheap, and a small one of the usual kind, untrained: its cost counts."""
    levels = 4
    usual = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(16, 32, 64, 128),
        latent_channels=shipped.channels,
        norm_num_groups=8,
    )
    return {"shipped": shipped, "AutoencoderKL": Autoencoder(usual)}


def measure() -> dict[str, Any]:
    """Cached and encoding loops in turn: two autoencoders, and images stored at the size trained at or larger."""
    with tempfile.TemporaryDirectory() as name:
        speeds = {}
        for stored in STORED:
            setting = Setting.make(Path(name) / str(stored), stored=stored)
            loops = {"cached": train(setting, setting.data.latents.__getitem__)}
            for kind, coder in autoencoders(setting.coder).items():
                loops[kind] = train(setting, partial(encoded, list(setting.cohort.frame["path"]), coder))
            speeds[stored] = in_turn(loops)
    ratios = {
        f"{kind}, images stored at {stored} px": measured["cached"] / speed
        for stored, measured in speeds.items()
        for kind, speed in measured.items()
        if kind != "cached"
    }
    return {
        "figure": f"cached / encoding each batch, images per second, trained at {SIZE} px",
        "target": 1.3,
        "batch": BATCH,
        "preset": PRESET,
        "ratios": ratios,
        "images_per_second": {str(stored): measured for stored, measured in speeds.items()},
    }


def encoded(paths: list[str], coder: Autoencoder, rows: torch.Tensor) -> torch.Tensor:
    """What a loop without a cache does: read the files of the batch and encode them."""
    return coder.encode(load_images([paths[row] for row in rows.tolist()], SIZE))
