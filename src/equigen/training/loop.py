"""The training loop. It reads top to bottom: draw, predict, weigh, step, watch, save."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast

from equigen.checkpoints import (
    load_checkpoint,
    load_optimizer_tensors,
    optimizer_tensors,
    prefixed,
    save_checkpoint,
    unprefixed,
)
from equigen.diffusion import Denoiser
from equigen.equity import Groups, Mechanism
from equigen.errors import EquigenError, InputError, Problem
from equigen.progress import progress_bar
from equigen.training.average import Average
from equigen.training.gradients import Gradients, autocast
from equigen.training.history import History
from equigen.training.probe import Probe
from equigen.training.settings import TrainSettings
from equigen.training.stream import Stream


@dataclass
class Data:
    """What is trained on: normalised latents [N, C, h, w], token numbers [N, F], group index [N, A], their names."""

    latents: torch.Tensor
    ids: torch.Tensor
    index: torch.Tensor
    groups: Groups


def crossed(before: int, after: int, every: int) -> bool:
    """Whether a multiple of ``every`` lies in (before, after]."""
    return before // every != after // every


class Trainer:
    """All state of one training run: networks, optimizer, average, mechanism, history and the count of images seen.

    ``checkpoint``: the file that is written, and gone on from where it exists; ``key`` says what it belongs to;
    ``keep`` is called by the first process every ``settings.snapshot_every`` images. Raises
    InputError when that is something else, or when the batch cannot be shared out among the processes.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        schedule: Any,
        data: Data,
        held_out: Data | None,
        mechanism: Mechanism,
        settings: TrainSettings,
        checkpoint: Path,
        key: str,
        accelerator: Accelerator | None = None,
        keep: Callable[[Trainer], None] | None = None,
    ) -> None:
        self.accelerator, self.keep = accelerator or Accelerator(), keep
        self.settings, self.schedule, self.data, self.mechanism = settings, schedule, data, mechanism
        self.checkpoint, self.key = checkpoint, key
        self.network, self.seen = denoiser, 0
        self.optimizer = torch.optim.AdamW(
            denoiser.parameters(),
            lr=settings.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.history = History(data.groups)
        weights = mechanism.sampling_weights(data.index)
        self.stream = Stream(data.ids, tuple(data.latents.shape[1:]), settings, weights)
        self.probes = {"probe_train": self._probe(data, "train")}
        if held_out is not None and len(held_out.latents):
            self.probes["probe_heldout"] = self._probe(held_out, "heldout")
        self.model, self.prepared = self.accelerator.prepare(denoiser, self.optimizer)
        latents = data.latents.to(self.accelerator.device)
        self.gradients = Gradients(
            self.accelerator, self.model, schedule, latents, mechanism, settings, self._check_finite
        )
        self.average = Average(denoiser) if settings.ema else None
        if checkpoint.is_file():
            self._resume()

    def _probe(self, data: Data, name: str) -> Probe:
        return Probe(
            data.latents,
            data.ids,
            data.index,
            data.groups,
            self.settings.probe_images,
            self.settings.seed,
            name,
        )

    def run(self, show: bool = True) -> None:
        """Train until ``settings.images`` images are seen.

        On a CPU the weights do not depend on where the run was interrupted. Raises EquigenError, before anything is
        saved, when a loss or a gradient is not finite.
        """
        settings, parameters = self.settings, list(self.model.parameters())
        self.model.train()
        if self.seen == 0:
            self._watch(force=True)
        shown = show and self.accelerator.is_main_process
        with closing(self), progress_bar(f"train {settings.mechanism}", settings.images, self.seen, shown) as bar:
            while self.seen < settings.images:
                self._decide()
                batch = self.stream.batch(self.seen)
                index = self.data.index[batch.rows]

                # predict, weigh and go backward; the losses are those of the whole batch, before any weight
                self.prepared.zero_grad()
                losses = self.gradients.add(batch, index, self.seen)
                norm = self.accelerator.clip_grad_norm_(parameters, settings.clip)
                self._check_finite("gradient", norm)
                for group in self.optimizer.param_groups:
                    group["lr"] = settings.learning_rate_at(self.seen)
                self.prepared.step()
                if self.average is not None:
                    self.average.update(self.network, settings.ema_decay_at(self.seen))

                before, self.seen = self.seen, self.seen + settings.batch
                over = self.seen >= settings.images
                self.history.count(losses, index)
                if over or crossed(before, self.seen, settings.log_every):
                    mean = self.history.log_training(self.seen, settings.learning_rate_at(self.seen))
                    bar.note(f"loss {mean:.4f}")
                self._watch(force=over or crossed(before, self.seen, settings.probe_every))
                if self.keep is not None and self._snapshot_due(before):
                    self.keep(self)  # before the checkpoint: after it, a kill between the two would lose the snapshot
                if over or crossed(before, self.seen, settings.checkpoint_every):
                    self._save()
                bar.advance(settings.batch)

    def _snapshot_due(self, before: int) -> bool:
        """Whether this process keeps a generator now."""
        every = self.settings.snapshot_every
        return bool(every) and self.accelerator.is_main_process and crossed(before, self.seen, every)

    def _check_finite(self, what: str, values: torch.Tensor) -> None:
        """Stop before a diverged step reaches the weights, their average, the history or a checkpoint."""
        if not bool(values.isfinite().all()):
            found = self.checkpoint.is_file()
            kept = f"the last checkpoint is kept at {self.checkpoint}" if found else "no checkpoint was written yet"
            raise EquigenError(
                f"Training diverged after {self.seen} images: a {what} is not finite. Lower learning_rate "
                f"(now {self.settings.learning_rate}) and start afresh in another folder; {kept}."
            )

    def _watch(self, force: bool) -> None:
        """Measure the probes when the mechanism's window ends, or on schedule."""
        asked = self.mechanism.wants_probe(self.seen)
        if not (asked or force):
            return
        monitors, device = {}, self.accelerator.device
        for kind in self.probes if force else list(self.probes)[-1:]:
            with autocast(device, self.settings.precision):  # in the precision of training, and as fast
                monitors[kind] = self.probes[kind].measure(self.model, self.schedule, device, self.settings.batch)
            self.history.log_probe(self.seen, kind, monitors[kind])
        if asked or self.seen == 0:  # at the start a mechanism only checks that the probe can steer it
            self.mechanism.observe_probe(list(monitors.values())[-1], self.seen)
            self._agree()
        self.history.log_records(self.seen, self.mechanism.records())

    def _decide(self) -> None:
        """What a mechanism has had worked out beside the training takes effect before the same batch everywhere."""
        decide = getattr(self.mechanism, "decide", None)  # few have it
        if decide is not None and decide(self.seen, self.accelerator.is_main_process):
            self._agree()

    def close(self) -> None:
        """End what the mechanism has running beside the training; ``run`` does it, however it ends."""
        getattr(self.mechanism, "close", lambda: None)()

    def _agree(self) -> None:
        """All processes go on with the first one's decision; unlike processors may round proposals differently."""
        if self.accelerator.num_processes > 1:
            state = self.mechanism.state_dict()
            device = self.accelerator.device
            shared = {
                name: broadcast(value.to(device)).cpu() if isinstance(value, torch.Tensor) else value
                for name, value in state.items()
            }
            self.mechanism.load_state_dict(shared)

    def _save(self) -> None:
        """Everything that the rest of the run depends on, in one file, written by the first process."""
        if not self.accelerator.is_main_process:
            return
        state = self.mechanism.state_dict()
        tensors = {
            **prefixed("network", self.network.state_dict()),
            **prefixed("optimizer", optimizer_tensors(self.optimizer)),
            **prefixed("average", self.average.state_dict() if self.average else {}),
            **prefixed("mechanism", {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}),
            "history.sums": self.history.sums,
        }
        record = {
            "key": self.key,
            "seen": self.seen,
            "mechanism": {name: value for name, value in state.items() if not isinstance(value, torch.Tensor)},
            "history": self.history.rows,
            "saved": time.time(),
        }
        save_checkpoint(self.checkpoint, tensors, record)

    def _resume(self) -> None:
        """Go on from the checkpoint; InputError when it belongs to other data or settings."""
        tensors, state = load_checkpoint(self.checkpoint)
        if state["key"] != self.key:
            problem = Problem(
                "was made with other data or settings",
                "choose another output folder, or delete this file to start afresh",
                file=str(self.checkpoint),
            )
            raise InputError("The checkpoint does not fit this run.", [problem])
        self.network.load_state_dict(unprefixed("network", tensors))
        load_optimizer_tensors(self.optimizer, unprefixed("optimizer", tensors))
        if self.average is not None:
            self.average.load_state_dict(unprefixed("average", tensors))
        self.mechanism.load_state_dict({**unprefixed("mechanism", tensors), **state["mechanism"]})
        self.history.rows, self.history.sums = state["history"], tensors["history.sums"]
        self.seen = int(state["seen"])
