"""Training from cached latents against the same loop encoding each batch."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.setting import SIZE, Setting
from equigen.cohort import load_images
from equigen.diffusion import loss_per_image, noise_schedule
from equigen.latents import channel_statistics

BATCH, IMAGES, ROUNDS = 64, 2_560, 3


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


def measure() -> dict[str, Any]:
    """Cached and encoding in turn, for two sizes of network."""
    title = "cached / encoding each batch, images per second"
    figures: dict[str, Any] = {"figure": title, "target": 1.3, "batch": BATCH}
    with tempfile.TemporaryDirectory() as name:
        setting = Setting.make(Path(name))
        paths = list(setting.cohort.frame["path"])
        mean, std = (torch.tensor(values)[:, None, None] for values in channel_statistics(setting.data.latents))

        def encoding(rows: torch.Tensor) -> torch.Tensor:
            images = load_images([paths[row] for row in rows.tolist()], SIZE)
            return (setting.coder.encode(images) - mean) / std

        for preset in ("tiny", "small"):
            train(setting, preset, lambda rows: setting.data.latents[rows])
            rows = []
            for _ in range(ROUNDS):
                cached = train(setting, preset, lambda rows: setting.data.latents[rows])
                each = train(setting, preset, encoding)
                rows.append({"cached": cached, "encoding": each, "ratio": cached / each})
            figures[preset] = {"ratio": statistics.median(row["ratio"] for row in rows), "rounds": rows}
    return figures
