"""The gradients of one step: predict, weigh, go backward, for the whole batch at once or in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator

from equigen.diffusion import Objective, loss_per_image, min_snr_weights
from equigen.equity import Mechanism, checked_weights
from equigen.errors import InputError, Problem
from equigen.seeds import derive_seed
from equigen.training.loss_scale import LossScale
from equigen.training.settings import TrainSettings
from equigen.training.stream import Batch


def check_batch(batch: int, processes: int, accumulate: int = 1) -> None:
    """InputError unless the global batch can be shared out evenly among the processes, and each share cut in parts."""
    if batch % (processes * accumulate):
        found = f"batch {batch} on {processes} {'process' if processes == 1 else 'processes'}"
        found += f" in {accumulate} parts" if accumulate > 1 else ""
        problem = Problem(found, f"use a multiple of {processes * accumulate}")
        raise InputError("The batch cannot be shared out.", [problem])


class Gradients:
    """Gradients of mean_i(w_i s_i l_i) over the global batch, which this process adds up for its share.

    l_i is the denoising loss of an image, w_i the mechanism's weight and s_i that of its noise level
    (``min_snr_weights``; 1 where ``settings.min_snr`` is 0). The mechanism sees the unweighted losses of the whole
    batch. Where it declares ``uses_losses = False`` it gets NaN in their place, so that a hidden use shows.

    With ``settings.accumulate`` > 1 a process passes its share in as many equal parts, so that one part's activations
    are in memory at a time; the gradients are those of one pass, to rounding. Weights need all losses before the first
    part goes backward, so a mechanism that uses losses costs one more forward pass, without gradients. It also costs
    a GPU one wait a step, since a mechanism works on the CPU.

    ``latents``: the training set, [N, C, h, w] on the processor that computes, or a store that gives [B, C, h, w] on
    the CPU for rows [B]; ``check(what, values)`` raises where a value is not finite; ``scale`` multiplies the
    gradients (float16). Raises InputError when the batch cannot be shared out.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: torch.nn.Module,
        objective: Objective,
        latents: Any,
        mechanism: Mechanism,
        settings: TrainSettings,
        check: Callable[[str, torch.Tensor], None],
        scale: LossScale | None = None,
    ) -> None:
        check_batch(settings.batch, accelerator.num_processes, settings.accumulate)
        self.accelerator, self.model, self.objective, self.latents = accelerator, model, objective, latents
        self.mechanism, self.settings, self.check, self.scale = mechanism, settings, check, scale
        self.uses_losses = bool(getattr(mechanism, "uses_losses", True))
        self.drops = any(isinstance(part, torch.nn.modules.dropout._DropoutNd) and part.p for part in model.modules())
        share = settings.batch // accelerator.num_processes
        first, size = accelerator.process_index * share, share // settings.accumulate
        self.parts = [slice(low, low + size) for low in range(first, first + share, size)]

    def add(self, batch: Batch, index: torch.Tensor, seen: int) -> torch.Tensor:
        """Add a batch's gradients to those of the network; the unweighted losses [B] of the whole batch.

        They are on the processor that computed them, or on the CPU where the mechanism had to see them. ``index``
        [B, A]: groups of the images; ``seen``: images seen before this batch.
        """
        if len(self.parts) == 1:
            losses = self._losses(batch, self.parts[0], seen)
            everyone = self._everyone([losses])
            self._backward(losses, self._weights(everyone, batch, index, seen)[self.parts[0]])
            return everyone
        beforehand = self._losses_beforehand(batch, seen) if self.uses_losses else None
        weights, made = self._weights(beforehand, batch, index, seen), []
        for part in self.parts:
            # processes add up their gradients once, with the last part's
            with nullcontext() if part is self.parts[-1] else self.accelerator.no_sync(self.model):
                made.append(self._losses(batch, part, seen))
                self._backward(made[-1], weights[part])
        return self._everyone(made)

    @torch.no_grad()
    def _losses_beforehand(self, batch: Batch, seen: int) -> torch.Tensor:
        return self._everyone([self._losses(batch, part, seen) for part in self.parts])

    def _losses(self, batch: Batch, part: slice, seen: int) -> torch.Tensor:
        """l_i of some images of the batch: f(z_t, t, c) against its target."""
        device = self.accelerator.device
        inputs = [batch.noise[part], batch.timesteps[part], batch.ids[part]]
        inputs += [] if batch.shown is None else [batch.shown[part]]
        with autocast(device, self.settings.precision), self._dropout(seen + part.start):
            return loss_per_image(
                self.model, self.objective, self._latents(batch.rows[part]), *(to(value, device) for value in inputs)
            )

    def _latents(self, rows: torch.Tensor) -> torch.Tensor:
        """[B, C, h, w] of some rows, on the processor that computes."""
        device = self.accelerator.device
        if isinstance(self.latents, torch.Tensor):
            return self.latents[to(rows, device)]
        return to(self.latents[rows], device)

    @contextmanager
    def _dropout(self, place: int) -> Iterator[None]:
        """Dropout in a network draws from torch's global generators: for one pass they are made from the seed."""
        if not self.drops:
            yield
            return
        device = self.accelerator.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(derive_seed(self.settings.seed, "dropout", place))
            yield

    def _everyone(self, losses: list[torch.Tensor]) -> torch.Tensor:
        """The losses [B] of all processes, in the batch's order; fetched, and seen to, only for who uses them now."""
        everyone: torch.Tensor = self.accelerator.gather(torch.cat(losses).detach())
        if self.uses_losses:
            everyone = everyone.cpu()
            self.check("loss", everyone)  # stops a training that diverged before the mechanism learns from it
        return everyone

    def _weights(self, losses: torch.Tensor | None, batch: Batch, index: torch.Tensor, seen: int) -> torch.Tensor:
        """w_i s_i [B] on the CPU: each process computes those of the whole batch, and takes its own."""
        if losses is None or not self.uses_losses:
            losses = torch.full((len(index),), torch.nan)
        weights = self.mechanism.weights(losses, index, batch.timesteps, seen)
        hint = "" if self.uses_losses else "; it declares uses_losses = False, so it may not look at losses"
        nonnegative = bool(getattr(self.mechanism, "nonnegative", False))
        weights = checked_weights(weights, len(index), self.settings.mechanism, seen, nonnegative, hint)
        if self.settings.min_snr:
            weights = weights * min_snr_weights(self.objective, batch.timesteps, self.settings.min_snr)
        return weights

    def _backward(self, losses: torch.Tensor, weights: torch.Tensor) -> None:
        """Add the gradients of a part's share in mean_i(w_i s_i l_i)."""
        loss = (to(weights, losses.device) * losses).mean() / len(self.parts)
        self.accelerator.backward(loss if self.scale is None else self.scale.value * loss)


def to(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Values of the CPU on the processor that computes; a GPU takes them when it comes to them, without a wait."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def autocast(device: torch.device, precision: str) -> Any:
    """Half precision where it was asked for, or, on ``auto``, bfloat16 where it is faster; weights stay float32."""
    half = torch.float16 if precision == "fp16" else torch.bfloat16
    wanted = precision in {"bf16", "fp16"} or (precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, half, enabled=wanted)
