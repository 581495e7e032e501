"""The training loop. It reads top to bottom: draw, predict, weigh, step, watch, show, save."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from numpy.typing import NDArray

from equigen.checkpoints import Tensors, load_checkpoint, save_checkpoint
from equigen.diffusion import Conditions, Objective
from equigen.equity import GroupLosses, Mechanism, checked_sampling
from equigen.errors import EquigenError, InputError, Problem
from equigen.progress import progress_bar
from equigen.training.average import Average, trained
from equigen.training.best_weights import Best
from equigen.training.data import Data
from equigen.training.gradients import Gradients, autocast
from equigen.training.history import History
from equigen.training.loss_scale import LossScale
from equigen.training.probe import Probe
from equigen.training.requirements import build_optimizer, check_accelerator, check_needs, checkpoint_activations
from equigen.training.settings import TrainSettings
from equigen.training.shards import everywhere, gathered, shard
from equigen.training.state import load_run_state, run_state
from equigen.training.stream import Stream
from equigen.training.trackers import Follower

Images = dict[str, NDArray[np.uint8]]


def crossed(before: int, after: int, every: int) -> bool:
    """Whether a multiple of ``every`` lies in (before, after]; never where ``every`` is 0."""
    return bool(every) and before // every != after // every


@contextmanager
def evaluating(network: torch.nn.Module) -> Iterator[None]:
    """The network in evaluation mode within the block, in training mode after it."""
    network.eval()
    try:
        yield
    finally:
        network.train()


class Trainer:
    """All state of one training run: network, optimizer, average, mechanism, history and the count of images seen.

    ``module``: called as module(noisy [B, C, h, w], time [B], ids [B, F]) -> [B, C, h, w]; its parameters with
    ``requires_grad`` are trained, in float32, the others stay as they are and are in no checkpoint. ``conditions``:
    what it is told in training of the rows of ``data``. ``held_out``: the validation side, never trained on.
    ``checkpoint``: the file that is written, and gone on from where it exists; ``key`` says what it belongs to, frozen
    weights included. ``keep(trainer, weights)`` is called by the first process every ``settings.snapshot_every``
    images; ``grids(trainer)`` by every process, with averaged weights in ``network``, every ``settings.grid_every``
    images, at the start and at the end. Raises InputError when something of this does not fit.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        objective: Objective,
        conditions: Conditions,
        data: Data,
        held_out: Data | None,
        mechanism: Mechanism,
        settings: TrainSettings,
        checkpoint: Path,
        key: str,
        accelerator: Accelerator | None = None,
        keep: Callable[[Trainer, Tensors], None] | None = None,
        grids: Callable[[Trainer], Images] | None = None,
    ) -> None:
        check_needs(settings)
        self.accelerator, self.keep, self.grids = accelerator or Accelerator(), keep, grids
        check_accelerator(self.accelerator)
        self.settings, self.objective, self.data, self.mechanism = settings, objective, data, mechanism
        self.checkpoint, self.key = checkpoint, key
        self.network, self.seen = module, 0
        if settings.gradient_checkpointing:
            checkpoint_activations(module)
        sharded = settings.sharding == "full" and self.accelerator.num_processes > 1  # one process has the whole anyway
        self.model = shard(module, self.accelerator) if sharded else self.accelerator.prepare(module)
        self.parameters = list(trained(module).values())
        self.optimizer = build_optimizer(self.parameters, settings)
        self.prepared = self.accelerator.prepare(self.optimizer)
        self.history = History(data.groups)
        weights = checked_sampling(mechanism.sampling_weights(data.index), len(data.index), settings.mechanism)
        self.stream = Stream(conditions, tuple(data.latents.shape), settings, weights, objective.steps)
        self.probes = {"probe_train": self._probe(data, "train")}
        if held_out is not None and len(held_out.latents):
            self.probes["probe_heldout"] = self._probe(held_out, "heldout")
        self.scale = LossScale() if settings.precision == "fp16" else None
        device, latents = self.accelerator.device, data.latents
        latents = latents.to(device) if isinstance(latents, torch.Tensor) else latents
        self.gradients = Gradients(
            self.accelerator, self.model, objective, latents, mechanism, settings, self._check_finite, self.scale
        )
        self.average = Average(module) if settings.ema else None
        held = self.probes.get("probe_heldout")
        self.best = None if settings.best == "none" else Best(settings.best, module, held)
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
            self.objective.steps,
        )

    def run(self, show: bool = True) -> None:
        """Train until ``settings.images`` images are seen.

        On a CPU the weights do not depend on where the run was interrupted. Raises EquigenError, before anything is
        saved, when a loss or a gradient is not finite.
        """
        settings, first = self.settings, self.accelerator.is_main_process
        self.model.train()
        follower = Follower(self.checkpoint.parent, settings, self.history.rows, first)
        bars = progress_bar(f"train {settings.mechanism}", settings.images, self.seen, show and first)
        with closing(self), closing(follower), bars as bar:
            if self.seen == 0:
                self._watch(force=True)
                self._show(follower)
            while self.seen < settings.images:
                self._decide()
                batch = self.stream.batch(self.seen)
                index = self.data.index[batch.rows]

                # predict, weigh and go backward; the losses are those of the whole batch, before any weight
                self.prepared.zero_grad()
                losses = self.gradients.add(batch, index, self.seen)
                losses, norm = self._fetched(losses, self._clipped())  # waits for a GPU
                if self._sound(losses, norm):
                    for group in self.optimizer.param_groups:
                        group["lr"] = settings.learning_rate_at(self.seen)
                    self.prepared.step()
                    if self.average is not None:
                        self.average.update(self.network, settings.ema_decay_at(self.seen))

                before, self.seen = self.seen, self.seen + settings.batch
                over = self.seen >= settings.images
                self.history.count(losses, index)
                if over or crossed(before, self.seen, settings.log_every):
                    mean = self.history.log_training(self.seen, settings.learning_rate_at(self.seen), self.scale)
                    bar.note(f"loss {mean:.4f}")
                self._watch(force=over or crossed(before, self.seen, settings.probe_every))
                if over or crossed(before, self.seen, settings.grid_every):
                    self._show(follower)
                if crossed(before, self.seen, settings.snapshot_every):
                    self._keep()  # before the checkpoint: after it, a kill between the two would lose the snapshot
                if over or crossed(before, self.seen, settings.checkpoint_every):
                    self._save()
                follower.tell()
                bar.advance(settings.batch)

    def weights(self, *, now: bool = False) -> Tensors:
        """Trained weights by name: the best ones, or those ``now``, averaged where an average is kept.

        Where each process holds a part of them all have to call this, and the first gets them, on its CPU.
        """
        if self.best is not None and not now:
            return self.best.weights.state_dict()
        source = trained(self.network) if self.average is None else self.average.values
        return {name: gathered(value.detach()) for name, value in source.items()}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The network as it would be given out now, within the block."""
        if self.average is None:
            yield
            return
        with self.average.applied(self.network):
            yield

    def _keep(self) -> None:
        """Have a generator kept as it is now."""
        if self.keep is None:
            return
        weights = self.weights(now=True)
        if self.accelerator.is_main_process:
            self.keep(self, weights)

    @torch.no_grad()
    def _show(self, follower: Follower) -> None:
        """Grids of samples, as files and to the tracker."""
        if self.grids is None or not self.settings.grid_every:
            return
        with self.averaged(), evaluating(self.network):
            images = self.grids(self)
        follower.show(images, self.seen)

    def _clipped(self) -> torch.Tensor:
        """Clip the gradients; their norm before, which is one number for all processes."""
        if self.scale is not None:
            self.scale.unscale(self.parameters)
        return everywhere(self.accelerator.clip_grad_norm_(self.parameters, self.settings.clip))

    def _fetched(self, losses: torch.Tensor, norm: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both on the CPU, brought there together."""
        if losses.device != norm.device:  # the mechanism had to see the losses before
            return losses, norm.cpu()
        both = torch.cat([losses, norm[None]]).cpu()
        return both[:-1], both[-1]

    def _sound(self, losses: torch.Tensor, norm: torch.Tensor) -> bool:
        """Whether the step may be made; stops a training that diverged. float16 may overflow now and then."""
        self._check_finite("loss", losses)
        if self.scale is None or (not self.scale.keeps(norm) and self.scale.exhausted):
            self._check_finite("gradient", norm)
        return bool(norm.isfinite())

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
        monitors = {}
        for kind in self.probes if force else list(self.probes)[-1:]:
            monitors[kind] = self._measured(kind, kind)
        if asked or self.seen == 0:  # at the start a mechanism only checks that the probe can steer it
            self.mechanism.observe_probe(list(monitors.values())[-1], self.seen)
            self._agree()
        self.history.log_records(self.seen, self.mechanism.records())
        if self.best is not None and force:
            with self.averaged():
                self.best.offer(self._measured("probe_heldout", "probe_averaged"), self.network, self.seen)

    def _measured(self, probe: str, kind: str) -> GroupLosses:
        """Group losses of a probe now, which the history keeps as ``kind``."""
        device, share = self.accelerator.device, self.settings.batch // self.accelerator.num_processes
        # in the precision of training, and as fast; without dropout, and no running mean learns from it
        with autocast(device, self.settings.precision), evaluating(self.network):
            monitor = self.probes[probe].measure(self.model, self.objective, device, share, self.accelerator)
        self.history.log_probe(self.seen, kind, monitor)
        return monitor

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
        """Everything that the rest of the run depends on, whole, in one file, written by the first process."""
        tensors, record = run_state(self)
        if self.accelerator.is_main_process:
            save_checkpoint(self.checkpoint, tensors, record)

    def _resume(self) -> None:
        """Go on from the checkpoint; InputError when it belongs to other data or settings."""
        tensors, record = load_checkpoint(self.checkpoint)
        if record["key"] != self.key:
            problem = Problem(
                "was made with other data or settings",
                "choose another output folder, or delete this file to start afresh",
                file=str(self.checkpoint),
            )
            raise InputError("The checkpoint does not fit this run.", [problem])
        load_run_state(self, tensors, record)
