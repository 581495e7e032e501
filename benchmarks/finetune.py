"""Fine-tuning a text-to-image pipeline: the usual loop, which encodes images and prompts at every step, against ours.

Same network, batch, optimizer, clipping and averaged weights; both run in one process in turn, a few steps at a time.
The pipeline has random weights in the proportions of Stable Diffusion 1.x: all widths divided by PART, so that
autoencoder and text encoder cost beside the network what they cost in the whole. What equity costs is timed by itself:
the mechanism's weights in every step and its probe once a window.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from equigen.cohort import Cohort, load_images
from equigen.cohort.phantom import PhantomSettings, write_phantom
from equigen.diffusion import PromptConditions, objective_of, open_pretrained, prompt_table, set_trainable
from equigen.diffusion.stand_in import stable_diffusion
from equigen.equity import build_mechanism
from equigen.training import Trainer, TrainSettings
from equigen.training.average import Average
from equigen.training.datasets import cohort_groups, prepare_memory_splits
from equigen.training.text_to_image import use_prompts

PART, SIDE, BATCH, STEPS, PIECE = 4, 16, 8, 24, 2
FULL = {"part": 1, "side": 64, "batch": 8, "steps": 60, "piece": 5}  # on a GPU: 1.x itself at 512 pixels
WINDOW = 10_000  # images of the mechanism's window by default


def usual(pretrained: Any, cohort: Cohort, settings: TrainSettings, device: str) -> Iterator[None]:
    """What scripts do at every step: read and encode the images, encode the prompts, predict, step, average."""
    pipeline, schedule = pretrained.diffusers_pipeline, objective_of(pretrained.scheduler)
    parameters = [value for value in pretrained.network.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, fused=True)
    average, draws = Average(pretrained.network), np.random.default_rng(0)
    prompts = [cohort.prompt(row) or "" for row in cohort.frame.to_dict("records")]
    half = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=torch.device(device).type == "cuda")
    pretrained.network.train()
    while True:
        rows = draws.choice(len(cohort), BATCH_OF[0], replace=False)
        pixels = load_images([cohort.frame["path"].iloc[row] for row in rows], settings.size)
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().to(device) / 127.5 - 1
        tokens = pipeline.tokenizer(
            [prompts[row] for row in rows],
            padding="max_length",
            truncation=True,
            return_tensors="pt",
            max_length=pipeline.tokenizer.model_max_length,
        )
        with torch.no_grad(), half:
            latents = pipeline.vae.encode(images).latent_dist.sample().float() * pipeline.vae.config.scaling_factor
            told = pipeline.text_encoder(tokens.input_ids.to(device))[0]
        noise, times = torch.randn_like(latents), torch.randint(0, schedule.steps, (len(rows),))
        noisy = schedule.noisy(latents, noise, times.to(device))
        with half:
            made = pretrained.network(noisy, times.to(device), encoder_hidden_states=told, return_dict=False)[0]
        loss = (made.float() - schedule.target(latents, noise, times.to(device))).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        optimizer.step()
        average.update(pretrained.network, 0.999)
        yield


BATCH_OF = [BATCH]  # what the usual loop takes, set by ``measure``


class Turns:
    """A mechanism that lets the usual loop run between steps of ours, and keeps the clocks."""

    def __init__(self, mechanism: Any, other: Iterator[None], piece: int) -> None:
        self.mechanism, self.other, self.piece = mechanism, other, piece
        self.calls, self.weighing, self.pieces = 0, 0.0, list[tuple[float, float]]()
        self.started = time.perf_counter()

    def __getattr__(self, name: str) -> Any:
        """Everything else is the mechanism's."""
        return getattr(self.mechanism, name)

    def weights(self, *arguments: Any) -> torch.Tensor:
        """Called once a step; every few steps the other loop takes as many."""
        self.calls += 1
        if self.calls % self.piece == 0:
            paused = _now()
            for _ in range(self.piece):
                next(self.other)
            ended = _now()
            self.pieces.append((paused - self.started, ended - paused))
            self.started = ended
        begun = time.perf_counter()
        weights: torch.Tensor = self.mechanism.weights(*arguments)
        self.weighing += time.perf_counter() - begun
        return weights


def _now() -> float:
    """The clock, when a GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def phantoms(folder: Path, size: int) -> Cohort:
    """240 phantoms, most of them held out: the probe is then as large as by default."""
    place = write_phantom(folder, 240, settings=PhantomSettings(size=size), show=False) / "cohort.yaml"
    spec = yaml.safe_load(place.read_text())
    split = {"fractions": {"train": 0.3, "val": 0.6, "test": 0.1}, "seed": 0}
    place.write_text(yaml.safe_dump({**spec, "split": split}))
    return Cohort.read(place, show_progress=False)


def measure(
    part: int = PART, side: int = SIDE, batch: int = BATCH, steps: int = STEPS, piece: int = PIECE
) -> dict[str, Any]:
    """Images a second of both loops, and what equity adds to ours."""
    device, BATCH_OF[0] = ("cuda" if torch.cuda.is_available() else "cpu"), batch
    with tempfile.TemporaryDirectory() as name:
        folder, size = Path(name), 8 * side
        cohort = phantoms(folder / "phantom", size)
        torch.manual_seed(0)
        stable_diffusion(side, divisor=part).save_pretrained(str(folder / "base"), safe_serialization=True)
        settings = TrainSettings(
            base=str(folder / "base"),
            tune="unet",
            size=size,
            images=steps * batch,
            batch=batch,
            mechanism="perturbation",
            learning_rate=1e-5,
            probe_every=10**9,
            checkpoint_every=10**9,
            log_every=10**6,
        )
        ours, theirs = (open_pretrained(folder / "base", device=device) for _ in range(2))
        for pretrained in (ours, theirs):
            set_trainable(pretrained, "unet")
        whole = cohort.split("train", "val", domain="id")
        conditions = PromptConditions(whole)
        began = time.perf_counter()
        statistics = (list(ours.mean), list(ours.std))
        sides = prepare_memory_splits(cohort, ours.autoencoder, folder / "latents", size, False, statistics)
        table = prompt_table(ours, conditions.texts, folder / "prompts", show=False)
        encoding = time.perf_counter() - began
        training = (whole.frame["split"] == "train").to_numpy()
        sides = use_prompts(sides, conditions, training)
        other = usual(theirs, cohort.split("train", domain="id"), settings, device)
        next(other)  # what is set up once is not images a second
        rule = build_mechanism("perturbation", cohort_groups(cohort), 0)
        mechanism = Turns(rule, other, piece)
        trainer = Trainer(
            ours.denoiser(table),
            objective_of(ours.scheduler),
            conditions.take(training),
            sides.train,
            sides.held_out,
            mechanism,
            settings,
            folder / "run" / "checkpoint.safetensors",
            "",
        )
        trainer.save = lambda: None  # type: ignore[method-assign]
        held_out, measured = trainer.probes["probe_heldout"], list[float]()
        probe = held_out.measure

        def timed(*arguments: Any) -> Any:
            start = _now()
            found = probe(*arguments)
            measured.append(_now() - start)
            return found

        held_out.measure = timed  # type: ignore[method-assign]
        trainer.run(show=True)
    return figures(mechanism, measured, batch, encoding, len(whole), size, part)


def figures(
    turns: Turns, probes: list[float], batch: int, encoding: float, encoded: int, size: int, part: int
) -> dict[str, Any]:
    """What the clocks say; the first piece holds the probes of the start and is left out."""
    pieces = turns.pieces[1:]
    mine, theirs = (sum(pair[which] for pair in pieces) / len(pieces) / turns.piece for which in (0, 1))
    window = WINDOW / batch
    added = window * turns.weighing / turns.calls + min(probes)
    return {
        "figure": "images per second of our fine-tuning / of the usual loop, which encodes everything at every step",
        "target": 1.3,
        "ratio": theirs / mine,
        "ratio of each piece": [b / a for a, b in pieces],
        "images per second": {"ours": batch / mine, "usual": batch / theirs},
        "encoded once, seconds an image": encoding / encoded,
        "equity: images per second of the corrected perturbation / of none, by its parts (target 0.98)":
            1 - added / (window * mine + added),
        "equity, seconds": {
            "weights a step": turns.weighing / turns.calls, "probe a window": min(probes), "step": mine,
        },
        "batch": batch, "pixels": size, "widths divided by": part,
    }  # fmt: skip


if __name__ == "__main__":
    print(measure(**FULL) if torch.cuda.is_available() else measure())
