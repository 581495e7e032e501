"""What the corrected perturbation costs against `none`, and for how long its proposals hold a training step up.

Three whole trainings of one network run in one process in turn, PIECE steps at a time: `none`, the corrected mechanism
as it is by default, and the same with proposals within the step (`delay_images` 0). A turn goes on while a proposal is
worked out beside it, so that this work is on nobody else's clock. Where the machine's speed changes from one minute to
the next by more than what is looked for, the ratio of the clocks says little: so what the mechanism adds is timed by
itself too, as a share of its own training.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.setting import Setting
from equigen.diffusion import TokenConditions, noise_schedule, objective_of
from equigen.equity import build_mechanism
from equigen.equity.request import ProposalRequest
from equigen.training import Trainer, TrainSettings

PRESET, BATCH = "tiny", 64  # the smallest network: what is added to it weighs most here
IMAGES = 40_000  # four default windows
PIECE = 20  # steps of one training before it is another's turn
PAST = 60  # windows that the mechanisms look back on: with little to fit, proposing would be cheap
VARIANTS: dict[str, tuple[str, dict[str, int]]] = {
    "none": ("none", {}),
    "corrected": ("perturbation", {}),
    "within the step": ("perturbation", {"delay_images": 0}),
}


class Turns:
    """One thread at a time goes on, in a fixed order."""

    def __init__(self, names: list[str]) -> None:
        self.waiting, self.changed = list(names), threading.Condition()

    def wait(self, name: str) -> None:
        """Until it is ``name``'s turn."""
        with self.changed:
            self.changed.wait_for(lambda: self.waiting[0] == name)

    def give(self, *, stay: bool) -> None:
        """The next one's turn; who does not stay gets none any more."""
        with self.changed:
            name = self.waiting.pop(0)
            self.waiting += [name] if stay else []
            self.changed.notify_all()


@dataclass
class Piece:
    """A turn: its steps, its seconds, how long the mechanism held each step up, and seconds of probes."""

    steps: int = 0
    seconds: float = 0.0
    held: list[float] = field(default_factory=lambda: [0.0])
    probes: float = 0.0


class Clocked:
    """A mechanism that takes turns with others and keeps the time."""

    def __init__(self, mechanism: Any, turns: Turns, name: str) -> None:
        self.mechanism, self.turns, self.name = mechanism, turns, name
        self.pieces, self.started = [Piece()], 0.0

    def __getattr__(self, name: str) -> Any:
        """Everything else is the mechanism's."""
        return getattr(self.mechanism, name)

    def weights(self, *arguments: Any) -> Any:
        """Called once a step, in its middle; the training's turn may end here."""
        piece = self.pieces[-1]
        if piece.steps >= PIECE and not len(getattr(self.mechanism, "pending", ())):
            self.stop()
            self.turns.give(stay=True)
            self.begin()
        found = self._timed(self.mechanism.weights, *arguments)
        self.pieces[-1].steps += 1
        self.pieces[-1].held.append(0.0)
        return found

    def decide(self, *arguments: Any) -> bool:
        """Ask or take in, where the mechanism does such."""
        return bool(self._timed(getattr(self.mechanism, "decide", lambda *_: False), *arguments))

    def observe_probe(self, *arguments: Any) -> None:
        """The end of a window; measuring the probe is not part of it."""
        self._timed(self.mechanism.observe_probe, *arguments)

    def probing(self, measure: Callable[..., Any]) -> Callable[..., Any]:
        """A probe's ``measure`` that is timed."""

        def timed(*arguments: Any) -> Any:
            before = time.perf_counter()
            found = measure(*arguments)
            self.pieces[-1].probes += time.perf_counter() - before
            return found

        return timed

    def _timed(self, call: Callable[..., Any], *arguments: Any) -> Any:
        before = time.perf_counter()
        found = call(*arguments)
        self.pieces[-1].held[-1] += time.perf_counter() - before
        return found

    def begin(self) -> None:
        """Wait for the turn, then start the clock of a new piece."""
        self.turns.wait(self.name)
        self.pieces.append(Piece())
        self.started = time.perf_counter()

    def stop(self) -> None:
        """Stop the clock."""
        self.pieces[-1].seconds = time.perf_counter() - self.started


def look_back(mechanism: Any) -> None:
    """Give it PAST windows before the first image, and both ways of proposing their start-up."""
    if not hasattr(mechanism, "proposer"):
        return
    draws = torch.Generator().manual_seed(0)
    points = torch.rand(PAST, len(mechanism.groups), generator=draws, dtype=torch.float64)
    rewards = -points.mean(1) - 0.1 * torch.rand(PAST, generator=draws, dtype=torch.float64)
    times = mechanism.window_images * torch.arange(-PAST, 0)
    mechanism.load_state_dict({**mechanism.state_dict(), "points": points, "rewards": rewards, "times": times})
    question = ProposalRequest(points[:4], rewards[:4], times[:4], 0.0, 0.1, 0)
    _ = mechanism.proposer.answer(question) if mechanism.delay_images else question.answer()


def train(trainer: Trainer, clock: Clocked) -> None:
    """One whole training; its clock starts with its first turn."""
    for probe in trainer.probes.values():
        probe.measure = clock.probing(probe.measure)  # type: ignore[method-assign]
    try:
        clock.begin()
        trainer.run(show=False)
        clock.stop()
    finally:
        clock.turns.give(stay=False)


def measure(images: int = IMAGES, preset: str = PRESET) -> dict[str, Any]:
    """Ratios of images per second, and the longest time that a step was held up in mean steps."""
    with tempfile.TemporaryDirectory() as name:
        setting, turns, jobs = Setting.make(Path(name)), Turns(list(VARIANTS)), []
        settings = TrainSettings(preset=preset, batch=BATCH, images=images)
        for variant, (mechanism, own) in VARIANTS.items():
            rule = build_mechanism(mechanism, setting.data.groups, 0, **own)
            look_back(rule)
            clock = Clocked(rule, turns, variant)
            place = Path(name) / variant / "checkpoint.safetensors"
            network, objective = setting.denoiser(preset), objective_of(noise_schedule())
            sides = TokenConditions(setting.data.ids, settings.drop_all, settings.drop_one), setting.data, setting.data
            jobs.append((Trainer(network, objective, *sides, clock, settings, place, ""), clock))
        with ThreadPoolExecutor(len(jobs)) as threads:
            for done in [threads.submit(train, *job) for job in jobs]:
                done.result()
    return figures({clock.name: clock.pieces for _, clock in jobs}, images, preset)


def figures(pieces: dict[str, list[Piece]], images: int, preset: str) -> dict[str, Any]:
    """What the clocks say."""
    step = {name: per_step(some) for name, some in pieces.items()}
    others = [name for name in pieces if name != "none"]
    added = {name: (spent(pieces[name]) - spent(pieces["none"])) / seconds(pieces[name]) for name in others}
    return {
        "figure": "images per second of the corrected perturbation, its probe and proposals included / of none: 1 less "
        "the share of its time that it spends on probes, proposals and weights beyond what none does",
        "target": 0.98,
        "ratio": 1 - added["corrected"],
        "ratio with proposals within the step, likewise": 1 - added["within the step"],
        "ratio of the two clocks": step["none"] / step["corrected"],
        "ratio of the two clocks in each quarter": [
            per_step(none) / per_step(own)
            for none, own in zip(quarters(pieces["none"]), quarters(pieces["corrected"]), strict=False)
        ],
        "longest hold-up of a step by the mechanism / mean step (target 1 at most)": {
            name: max(max(piece.held) for piece in pieces[name]) / step[name] for name in others
        },
        "mean step, seconds": step,
        "images per second": {name: BATCH / seconds for name, seconds in step.items()},
        "preset": preset,
        "batch": BATCH,
        "images": images,
        "windows before the first image": PAST,
    }


def seconds(pieces: list[Piece]) -> float:
    """Seconds of all turns."""
    return sum(piece.seconds for piece in pieces)


def spent(pieces: list[Piece]) -> float:
    """Seconds on probes and within the mechanism."""
    return sum(piece.probes + sum(piece.held) for piece in pieces)


def per_step(pieces: list[Piece]) -> float:
    """Mean seconds of a step."""
    return sum(piece.seconds for piece in pieces) / sum(piece.steps for piece in pieces)


def quarters(pieces: list[Piece]) -> list[list[Piece]]:
    """The pieces in four parts, in order."""
    size = -(-len(pieces) // 4)
    return [pieces[start : start + size] for start in range(0, len(pieces), size)]
