"""The training loop against a bare forward-backward-step loop on the same network and batch.

Both run in one process in turn, PIECE images at a time: a machine that is faster at one moment than at another would
otherwise decide the ratio.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.setting import Setting
from equigen.diffusion import TokenConditions, loss_per_image, noise_schedule, objective_of
from equigen.equity import build_mechanism, propose
from equigen.training import Trainer, TrainSettings

PRESET, BATCH = "tiny", 64  # the smallest network: what the loop adds weighs most here
IMAGES = 40_000  # four default windows of the mechanism, each with its probe and Bayesian step
PIECE = 20  # steps of the bare loop after as many of the whole one


def bare(setting: Setting, denoiser: Any) -> Iterator[None]:
    """Forward, backward and step alone, one batch at each ``next``."""
    schedule, data = noise_schedule(), setting.data
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=1e-4, fused=True)
    first = 0
    while True:
        rows = torch.arange(first, first + BATCH) % len(data.latents)
        latents = data.latents[rows]
        timesteps = torch.randint(0, 1000, (BATCH,))
        loss = loss_per_image(denoiser, schedule, latents, torch.randn_like(latents), timesteps, data.ids[rows]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first += BATCH
        yield


class InTurn:
    """A mechanism that lets the bare loop run between two steps of the whole one, and keeps both clocks."""

    def __init__(self, mechanism: Any, other: Iterator[None]) -> None:
        self.mechanism, self.other = mechanism, other
        self.calls, self.other_seconds, self.pieces = 0, 0.0, list[dict[str, float]]()
        self.started = time.perf_counter()

    def __getattr__(self, name: str) -> Any:
        """Everything else is the mechanism's."""
        return getattr(self.mechanism, name)

    def weights(self, *arguments: Any) -> torch.Tensor:
        """Called once a step; every PIECE steps the other loop takes as many."""
        self.calls += 1
        if self.calls % PIECE == 0:
            paused = time.perf_counter()
            for _ in range(PIECE):
                next(self.other)
            ended = time.perf_counter()
            self.pieces.append({"whole": paused - self.started, "bare": ended - paused})
            self.started = ended
        weights: torch.Tensor = self.mechanism.weights(*arguments)
        return weights


def measure() -> dict[str, Any]:
    """The ratio of the whole times, with the spread of its quarters."""
    with tempfile.TemporaryDirectory() as name:
        setting = Setting.make(Path(name))
        points = torch.rand(4, 5, dtype=torch.float64)
        propose(points, points[:, 0], seed=0)  # imports BoTorch: start-up, which is not images per second
        other = bare(setting, setting.denoiser(PRESET))
        for _ in range(5):
            next(other)
        settings = TrainSettings(preset=PRESET, batch=BATCH, images=IMAGES)
        # design=1: the Bayesian step runs from the end of the very first window on, so that its cost is in the figure
        mechanism = InTurn(build_mechanism("perturbation", setting.data.groups, 0, design=1), other)
        place = Path(name) / "run" / "checkpoint.safetensors"
        conditions = TokenConditions(setting.data.ids, settings.drop_all, settings.drop_one)
        trainer = Trainer(
            setting.denoiser(PRESET),
            objective_of(noise_schedule()),
            conditions,
            setting.data,
            setting.data,
            mechanism,
            settings,
            place,
            "",
        )
        mechanism.started = time.perf_counter()
        trainer.run(show=True)
        pieces = mechanism.pieces
    quarter = len(pieces) // 4
    quarters = [ratio(pieces[start : start + quarter]) for start in range(0, 4 * quarter, quarter)]
    middle = statistics.median(piece["bare"] / piece["whole"] for piece in pieces)
    return {
        "figure": "whole loop / bare loop, images per second",
        "target": 0.9,
        "ratio": ratio(pieces),
        "quarters": quarters,
        "without probes, Bayesian steps and checkpoints (median piece)": middle,
        "preset": PRESET,
        "batch": BATCH,
        "images": IMAGES,
        "bare images per second": len(pieces) * PIECE * BATCH / sum(piece["bare"] for piece in pieces),
    }


def ratio(pieces: list[dict[str, float]]) -> float:
    """Seconds of the bare loop over seconds of the whole one, for the same images."""
    return sum(piece["bare"] for piece in pieces) / sum(piece["whole"] for piece in pieces)
