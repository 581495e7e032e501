"""Training from cached latents against the same loop encoding each batch."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from benchmarks.setting import SIZE, Setting
from equigen.cohort import load_images
from equigen.diffusion import loss_per_image, noise_schedule
from equigen.latents import Autoencoder

PRESET, BATCH, IMAGES, ROUNDS = "tiny", 64, 1_920, 3


def train(setting: Setting, preset: str, latents_of: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """Images a second of a training loop that gets its latents from ``latents_of(rows)``."""
    denoiser, schedule = setting.denoiser(preset), noise_schedule()
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=1e-4, fused=True)
    started = time.perf_counter()
    for step in range(IMAGES // BATCH):
        rows = torch.arange(step * BATCH, (step + 1) * BATCH) % len(setting.data.latents)
        latents, ids = latents_of(rows), setting.data.ids[rows]
        timesteps = torch.randint(0, 1000, (BATCH,))
        loss = loss_per_image(denoiser, schedule, latents, torch.randn_like(latents), timesteps, ids).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return IMAGES / (time.perf_counter() - started)


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
    """Cached and encoding in turn, for two autoencoders."""
    title = "cached / encoding each batch, images per second"
    figures: dict[str, Any] = {"figure": title, "target": 1.3, "batch": BATCH, "preset": PRESET}
    with tempfile.TemporaryDirectory() as name:
        setting = Setting.make(Path(name))
        paths = list(setting.cohort.frame["path"])
        train(setting, PRESET, lambda rows: setting.data.latents[rows])
        for kind, coder in autoencoders(setting.coder).items():

            def encoding(rows: torch.Tensor, coder: Autoencoder = coder) -> torch.Tensor:
                return coder.encode(load_images([paths[row] for row in rows.tolist()], SIZE))

            rows = []
            for _ in range(ROUNDS):
                cached = train(setting, PRESET, lambda rows: setting.data.latents[rows])
                each = train(setting, PRESET, encoding)
                rows.append({"cached": cached, "encoding": each, "ratio": cached / each})
            figures[kind] = {"ratio": statistics.median(row["ratio"] for row in rows), "rounds": rows}
    return figures
