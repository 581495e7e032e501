"""The training loop against a bare forward-backward-step loop on the same network and batch."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.setting import Setting
from equigen.diffusion import loss_per_image, noise_schedule
from equigen.equity import build, propose
from equigen.training import Trainer, TrainSettings

PRESET, BATCH = "tiny", 64        # the smallest network: what the loop adds weighs most here
ROUNDS, BARE, OURS = 2, 1_280, 20_000  # two default windows of the mechanism in each round; runs are ten times longer


def bare(setting: Setting, denoiser: Any, images: int) -> float:
    """Images a second of forward, backward and step alone."""
    schedule, data = noise_schedule(), setting.data
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=1e-4, fused=True)
    started = time.perf_counter()
    for step in range(images // BATCH):
        rows = torch.arange(step * BATCH, (step + 1) * BATCH) % len(data.latents)
        latents = data.latents[rows]
        timesteps = torch.randint(0, 1000, (BATCH,))
        loss = loss_per_image(denoiser, schedule, latents, torch.randn_like(latents), timesteps, data.ids[rows]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return images / (time.perf_counter() - started)


def ours(setting: Setting, denoiser: Any, images: int, folder: Path) -> float:
    """Images a second of the whole loop: mechanism with probe and Bayesian step, averages, logging, checkpoint."""
    settings = TrainSettings(preset=PRESET, batch=BATCH, images=images)
    # design=1: the Bayesian step runs at the end of the very first window, so that its cost is in the figure
    mechanism = build("perturbation", setting.data.groups, 0, design=1)
    sides, place = (setting.data, setting.data), folder / "checkpoint.safetensors"
    trainer = Trainer(denoiser, noise_schedule(), *sides, mechanism, settings, place, "benchmark")
    started = time.perf_counter()
    trainer.run(show=True)
    return images / (time.perf_counter() - started)


def measure() -> dict[str, Any]:
    """Bare and whole loop in turn; the median of the ratios."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        setting = Setting.make(Path(name))
        bare(setting, setting.denoiser(PRESET), 5 * BATCH)
        points = torch.rand(4, 5, dtype=torch.float64)
        propose(points, points[:, 0], seed=0)  # imports BoTorch: start-up, which is not images per second
        for number in range(ROUNDS):
            first = bare(setting, setting.denoiser(PRESET), BARE)
            whole = ours(setting, setting.denoiser(PRESET), OURS, Path(name) / str(number))
            last = bare(setting, setting.denoiser(PRESET), BARE)
            rows.append({"bare": (first + last) / 2, "whole": whole, "ratio": 2 * whole / (first + last)})
    ratio = statistics.median(row["ratio"] for row in rows)
    title = "whole loop / bare loop, images per second"
    return {"figure": title, "target": 0.9, "ratio": ratio, "preset": PRESET, "batch": BATCH, "rounds": rows}
