"""The training loop: draw a batch, predict, weigh, go backward, step; then measure, log and save."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from numpy.typing import NDArray

from equigen.checkpoints import Tensors, save_checkpoint
from equigen.diffusion import Conditions, Objective, loss_per_image, min_snr_weights
from equigen.equity import GroupLosses, Mechanism, check_sampling_weights, check_weights
from equigen.errors import EquigenError
from equigen.progress import progress_bar
from equigen.training.average import Average, BestWeights, trained_parameters
from equigen.training.datasets import LatentDataset
from equigen.training.gradients import (
    autocast,
    check_batch,
    has_dropout,
    seeded_dropout,
    select_latents,
    to_cpu,
    to_device,
)
from equigen.training.history import History
from equigen.training.loss_scale import LossScale
from equigen.training.probe import Probe
from equigen.training.requirements import (
    build_optimizer,
    check_accelerator,
    check_requirements,
    checkpoint_activations,
)
from equigen.training.settings import TrainSettings
from equigen.training.shards import full_tensor, gather_on_first, shard_module
from equigen.training.state import resume_run, run_state
from equigen.training.stream import Batch, Stream
from equigen.training.trackers import HistoryTracker

Images = dict[str, NDArray[np.uint8]]


def is_due(before: int, after: int, every: int) -> bool:
    """Return whether a multiple of ``every`` lies in (before, after]; False where ``every`` is 0."""
    return bool(every) and before // every != after // every


@contextmanager
def evaluation_mode(network: torch.nn.Module) -> Iterator[None]:
    """Put the network into evaluation mode within the block, and back into training mode after it."""
    network.eval()
    try:
        yield
    finally:
        network.train()


class Trainer:
    """Train a network: its optimizer, averaged weights, mechanism, history and the count of images seen.

    Args:
        module: called as module(noisy [B, C, h, w], time [B], ids [B, F]) -> [B, C, h, w]. Its parameters with
            ``requires_grad`` are trained, in float32; the others are frozen and not part of the checkpoint.
        objective: how latents are made noisy, and the target of the prediction.
        conditions: condition numbers of the rows of ``data``, with dropout.
        data: the training split.
        held_out: the validation split, which is only measured.
        mechanism: equity mechanism; it gives each image its weight in the loss.
        settings: hyperparameters.
        checkpoint: file that is written; training resumes from it where it exists.
        key: hash of all that the run depends on, frozen weights included; a checkpoint of another key is refused.
        accelerator: None makes one.
        save_snapshot: called by the first process as save_snapshot(trainer, weights) every ``settings.snapshot_every``
            images.
        sample_grids: called by every process as sample_grids(trainer), with averaged weights in ``network``, every
            ``settings.grid_every`` images, at the start and at the end.

    Raises:
        InputError: settings, checkpoint, mechanism or data that do not fit each other.

    """

    def __init__(
        self,
        module: torch.nn.Module,
        objective: Objective,
        conditions: Conditions,
        data: LatentDataset,
        held_out: LatentDataset | None,
        mechanism: Mechanism,
        settings: TrainSettings,
        checkpoint: Path,
        key: str,
        accelerator: Accelerator | None = None,
        save_snapshot: Callable[[Trainer, Tensors], None] | None = None,
        sample_grids: Callable[[Trainer], Images] | None = None,
    ) -> None:
        check_requirements(settings)
        self.accelerator = accelerator or Accelerator()
        self.save_snapshot, self.sample_grids = save_snapshot, sample_grids
        check_accelerator(self.accelerator)
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        check_batch(settings.batch, processes, settings.accumulate)
        self.settings, self.objective, self.data, self.mechanism = settings, objective, data, mechanism
        self.checkpoint, self.key = checkpoint, key
        self.network, self.images_seen = module, 0
        if settings.gradient_checkpointing:
            checkpoint_activations(module)
        sharded = settings.sharding == "full" and processes > 1  # a single process has nothing to share
        self.model = shard_module(module, self.accelerator) if sharded else self.accelerator.prepare(module)
        self.parameters = list(trained_parameters(module).values())
        self.optimizer = build_optimizer(self.parameters, settings)
        self.prepared = self.accelerator.prepare(self.optimizer)
        self.scale = LossScale() if settings.precision == "fp16" else None
        self.average = Average(module) if settings.ema else None
        self.history = History(data.groups)
        weights = check_sampling_weights(
            mechanism.sampling_weights(data.index), len(data.index), settings.mechanism_label
        )
        self.stream = Stream(conditions, tuple(data.latents.shape), settings, weights, objective.steps)
        in_memory = isinstance(data.latents, torch.Tensor)
        self.latents = data.latents.to(self.accelerator.device) if in_memory else data.latents
        self.dropout = has_dropout(self.model)
        share = settings.batch // processes  # images of the batch on this process, cut into micro-batches
        size = share // settings.accumulate
        self.micro_batches = [slice(low, low + size) for low in range(rank * share, (rank + 1) * share, size)]
        self.probes = {"probe_train": self._build_probe(data, "train")}
        if held_out is not None and len(held_out.latents):
            self.probes["probe_heldout"] = self._build_probe(held_out, "heldout")
        probe = self.probes.get("probe_heldout")
        self.best = None if settings.best == "none" else BestWeights(settings.best, module, probe)
        if checkpoint.is_file():
            resume_run(self)

    def _build_probe(self, data: LatentDataset, name: str) -> Probe:
        count, seed, steps = self.settings.probe_images, self.settings.seed, self.objective.steps
        return Probe(data.latents, data.ids, data.index, data.groups, count, seed, name, steps)

    def run(self, show: bool = True) -> None:
        """Train until ``settings.images`` images are seen; ``show``: a progress bar.

        On a CPU the weights do not depend on where the run was interrupted. Raises EquigenError, before anything is
        saved, when a loss or a gradient is not finite.
        """
        settings, first = self.settings, self.accelerator.is_main_process
        self.model.train()
        tracker = HistoryTracker(self.checkpoint.parent, settings, self.history.rows, first)
        bars = progress_bar(f"train {settings.mechanism_label}", settings.images, self.images_seen, show and first)
        with closing(self), closing(tracker), bars as bar:
            if self.images_seen == 0:
                self._measure_probes(scheduled=True)
                self._log_grids(tracker)
            while self.images_seen < settings.images:
                decide = getattr(self.mechanism, "decide", None)  # an optional method of mechanisms
                if decide is not None and decide(self.images_seen, first):
                    self._share_mechanism_state()  # what it decided takes effect before the same batch everywhere
                batch = self.stream.batch(self.images_seen)
                losses = self.train_step(batch)
                before, self.images_seen = self.images_seen, self.images_seen + settings.batch
                last = self.images_seen >= settings.images
                self.history.count(losses, self.data.index[batch.rows])
                if last or is_due(before, self.images_seen, settings.log_every):
                    rate = settings.learning_rate_at(self.images_seen)
                    bar.note(f"loss {self.history.log_training(self.images_seen, rate, self.scale):.4f}")
                self._measure_probes(scheduled=last or is_due(before, self.images_seen, settings.probe_every))
                if last or is_due(before, self.images_seen, settings.grid_every):
                    self._log_grids(tracker)
                if self.save_snapshot is not None and is_due(before, self.images_seen, settings.snapshot_every):
                    weights = self.weights(current=True)
                    if first:  # before the checkpoint: after it, a kill between the two would lose the snapshot
                        self.save_snapshot(self, weights)
                if last or is_due(before, self.images_seen, settings.checkpoint_every):
                    self.save()
                tracker.log_history()
                bar.advance(settings.batch)

    def train_step(self, batch: Batch) -> torch.Tensor:
        """Take one optimizer step; returns the unweighted losses [B] of the whole batch, on the CPU."""
        settings = self.settings
        self.prepared.zero_grad()
        losses = self.backward(batch)
        if self.scale is not None:
            self.scale.unscale(self.parameters)
        norm = full_tensor(self.accelerator.clip_grad_norm_(self.parameters, settings.clip))
        losses, norm = to_cpu(losses, norm)  # the only wait for a GPU, unless the mechanism uses losses
        self._check_finite("loss", losses)
        if self.scale is None or (not self.scale.accept_step(norm) and self.scale.exhausted):
            self._check_finite("gradient", norm)
        if bool(norm.isfinite()):  # float16 gradients overflow now and then: such a step is left out
            for group in self.optimizer.param_groups:
                group["lr"] = settings.learning_rate_at(self.images_seen)
            self.prepared.step()
            if self.average is not None:
                self.average.update(self.network, settings.ema_decay_at(self.images_seen))
        return losses

    def backward(self, batch: Batch) -> torch.Tensor:
        """Add the gradients of mean_i(w_i s_i l_i) over the global batch; returns the losses l_i [B] of all processes.

        l_i is the denoising loss of an image, w_i the mechanism's weight and s_i that of its noise level (min-SNR; 1
        where ``settings.min_snr`` is 0). Every process computes the weights of the whole batch and the gradients of its
        share. With ``settings.accumulate`` > 1 the share passes in micro-batches, so that the activations of one are in
        memory at a time; a mechanism that uses losses then costs a forward pass more, since weights need all of them.
        """
        settings, single = self.settings, len(self.micro_batches) == 1
        index = self.data.index[batch.rows]

        # predict: unweighted losses, here where the weights depend on them, with gradients in a single pass
        losses = []
        if single or self.uses_losses:
            with torch.set_grad_enabled(single):
                losses = [self.predict(batch, rows) for rows in self.micro_batches]
        batch_losses = self._gather(losses) if losses else None

        # weigh: NaN in place of losses shows a use of them that the mechanism denies
        unknown = torch.full((len(index),), torch.nan)
        visible = batch_losses if batch_losses is not None and self.uses_losses else unknown
        weights = self.mechanism.weights(visible, index, batch.timesteps, self.images_seen)
        hint = "" if self.uses_losses else "; it declares uses_losses = False, so it may not look at losses"
        nonnegative = bool(getattr(self.mechanism, "nonnegative", False))
        weights = check_weights(weights, len(index), settings.mechanism_label, self.images_seen, nonnegative, hint)
        if settings.min_snr:
            weights = weights * min_snr_weights(self.objective, batch.timesteps, settings.min_snr)

        # go backward: processes add up their gradients once, with the last micro-batch
        losses = losses if single else []
        for rows in self.micro_batches:
            last = rows is self.micro_batches[-1]
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                if not single:
                    losses.append(self.predict(batch, rows))
                loss = (to_device(weights[rows], losses[-1].device) * losses[-1]).mean() / len(self.micro_batches)
                self.accelerator.backward(loss if self.scale is None else self.scale.value * loss)
        return batch_losses if single and batch_losses is not None else self._gather(losses)

    def predict(self, batch: Batch, rows: slice) -> torch.Tensor:
        """Return the denoising losses l_i = mean((f(z_t, t, c) - target)^2) of some images of a batch."""
        device = self.accelerator.device
        inputs = [batch.noise[rows], batch.timesteps[rows], batch.ids[rows]]
        inputs += [] if batch.input_noise is None else [batch.input_noise[rows]]
        latents = select_latents(self.latents, batch.rows[rows], device)
        dropout = seeded_dropout(device, self.settings.seed, self.images_seen + rows.start)
        with autocast(device, self.settings.precision), dropout if self.dropout else nullcontext():
            return loss_per_image(self.model, self.objective, latents, *(to_device(value, device) for value in inputs))

    @property
    def uses_losses(self) -> bool:
        """Whether the mechanism's weights depend on losses; True unless it declares the opposite."""
        return bool(getattr(self.mechanism, "uses_losses", True))

    def _gather(self, losses: list[torch.Tensor]) -> torch.Tensor:
        """Return the losses [B] of all processes in the batch's order, on the CPU where the mechanism uses them."""
        gathered: torch.Tensor = self.accelerator.gather(torch.cat(losses).detach())
        if self.uses_losses:
            gathered = gathered.cpu()
            self._check_finite("loss", gathered)  # before the mechanism learns from them
        return gathered

    def _check_finite(self, quantity: str, values: torch.Tensor) -> None:
        """Raise before a diverged step reaches the weights, their average, the history or a checkpoint."""
        if not bool(values.isfinite().all()):
            saved = self.checkpoint.is_file()
            state = f"the last checkpoint is kept at {self.checkpoint}" if saved else "no checkpoint was written yet"
            raise EquigenError(
                f"Training diverged after {self.images_seen} images: a {quantity} is not finite. Lower learning_rate "
                f"(now {self.settings.learning_rate}) and start afresh in another folder; {state}."
            )

    def weights(self, *, current: bool = False) -> Tensors:
        """Return trained weights by name: the best ones, or with ``current`` those of now, averaged where there is one.

        Where each process holds a part of them all have to call this, and the first gets them, on its CPU.
        """
        if self.best is not None and not current:
            return self.best.weights.state_dict()
        source = trained_parameters(self.network) if self.average is None else self.average.values
        return {name: gather_on_first(value.detach()) for name, value in source.items()}

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Return a context in which the network has averaged weights, where an average is kept."""
        return nullcontext() if self.average is None else self.average.swap_into(self.network)

    @torch.no_grad()
    def _log_grids(self, tracker: HistoryTracker) -> None:
        """Write grids of samples as files and to the tracker."""
        if self.sample_grids is None or not self.settings.grid_every:
            return
        with self.averaged_weights(), evaluation_mode(self.network):
            images = self.sample_grids(self)
        tracker.log_images(images, self.images_seen)

    def _measure_probes(self, scheduled: bool) -> None:
        """Measure the fixed probes on schedule, and the last of them when a window of the mechanism ends."""
        requested = self.mechanism.wants_probe(self.images_seen)
        if not (requested or scheduled):
            return
        monitors = {}
        for kind in self.probes if scheduled else list(self.probes)[-1:]:
            monitors[kind] = self._measure_probe(kind, kind)
        if requested or self.images_seen == 0:  # at the start a mechanism only checks that it can use the probe
            self.mechanism.observe_probe(list(monitors.values())[-1], self.images_seen)
            self._share_mechanism_state()
        self.history.log_records(self.images_seen, self.mechanism.records())
        if self.best is not None and scheduled:
            with self.averaged_weights():
                monitor = self._measure_probe("probe_heldout", "probe_averaged")
                self.best.update(monitor, self.network, self.images_seen)

    def _measure_probe(self, probe: str, kind: str) -> GroupLosses:
        """Return the group losses of a probe now, after logging them as ``kind``."""
        device, share = self.accelerator.device, self.settings.batch // self.accelerator.num_processes
        # in the precision of training, and as fast; without dropout, and without an update of running means
        with autocast(device, self.settings.precision), evaluation_mode(self.network):
            monitor = self.probes[probe].measure(self.model, self.objective, device, share, self.accelerator)
        self.history.log_probe(self.images_seen, kind, monitor)
        return monitor

    def _share_mechanism_state(self) -> None:
        """Give the first process's mechanism state to all: different processors may round proposals differently."""
        if self.accelerator.num_processes > 1:
            state = self.mechanism.state_dict()
            device = self.accelerator.device
            shared = {
                name: broadcast(value.to(device)).cpu() if isinstance(value, torch.Tensor) else value
                for name, value in state.items()
            }
            self.mechanism.load_state_dict(shared)

    def close(self) -> None:
        """End the mechanism's background process, if it has one; ``run`` calls this however it ends."""
        getattr(self.mechanism, "close", lambda: None)()

    def save(self) -> None:
        """Write the checkpoint: all that the rest of the run depends on, in one file, by the first process."""
        tensors, record = run_state(self)
        if self.accelerator.is_main_process:
            save_checkpoint(self.checkpoint, tensors, record)
