"""The gradients of one step: predict, weigh, go backward, for the whole batch at once or in parts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator

from equigen.diffusion import loss_per_image, min_snr_weights
from equigen.equity import Mechanism
from equigen.errors import EquigenError, InputError, Problem
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
    part goes backward, so a mechanism that uses losses costs one more forward pass, without gradients.

    ``latents`` [N, C, h, w]: the training set, on the processor that computes; ``check(what, values)`` raises where a
    value is not finite. Raises InputError when the batch cannot be shared out.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: torch.nn.Module,
        schedule: Any,
        latents: torch.Tensor,
        mechanism: Mechanism,
        settings: TrainSettings,
        check: Callable[[str, torch.Tensor], None],
    ) -> None:
        check_batch(settings.batch, accelerator.num_processes, settings.accumulate)
        self.accelerator, self.model, self.schedule, self.latents = accelerator, model, schedule, latents
        self.mechanism, self.settings, self.check = mechanism, settings, check
        self.uses_losses = bool(getattr(mechanism, "uses_losses", True))
        share = settings.batch // accelerator.num_processes
        first, size = accelerator.process_index * share, share // settings.accumulate
        self.parts = [slice(low, low + size) for low in range(first, first + share, size)]

    def add(self, batch: Batch, index: torch.Tensor, seen: int) -> torch.Tensor:
        """Add a batch's gradients to those of the network; the unweighted losses [B] of the whole batch, on the CPU.

        ``index`` [B, A]: groups of the images; ``seen``: images seen before this batch.
        """
        if len(self.parts) == 1:
            losses = self._losses(batch, self.parts[0])
            everyone = self._everyone([losses])
            self._backward(losses, self._weights(everyone, batch, index, seen)[self.parts[0]])
            return everyone
        beforehand = self._losses_beforehand(batch) if self.uses_losses else None
        weights, made = self._weights(beforehand, batch, index, seen), []
        for part in self.parts:
            # processes add up their gradients once, with the last part's
            with nullcontext() if part is self.parts[-1] else self.accelerator.no_sync(self.model):
                made.append(self._losses(batch, part))
                self._backward(made[-1], weights[part])
        return self._everyone(made)

    @torch.no_grad()
    def _losses_beforehand(self, batch: Batch) -> torch.Tensor:
        return self._everyone([self._losses(batch, part) for part in self.parts])

    def _losses(self, batch: Batch, part: slice) -> torch.Tensor:
        """l_i of some images of the batch: f(z_t, t, c) against its target."""
        device = self.accelerator.device
        inputs = (batch.noise[part], batch.timesteps[part], batch.ids[part])
        with autocast(device, self.settings.precision):
            return loss_per_image(
                self.model, self.schedule, self.latents[batch.rows[part]], *(value.to(device) for value in inputs)
            )

    def _everyone(self, losses: list[torch.Tensor]) -> torch.Tensor:
        """The losses [B] of all processes, in the batch's order; stops a training that diverged."""
        everyone: torch.Tensor = self.accelerator.gather(torch.cat(losses).detach()).cpu()
        self.check("loss", everyone)
        return everyone

    def _weights(self, losses: torch.Tensor | None, batch: Batch, index: torch.Tensor, seen: int) -> torch.Tensor:
        """w_i s_i [B]: each process computes those of the whole batch, and takes its own."""
        if losses is None or not self.uses_losses:
            losses = torch.full((len(index),), torch.nan)
        weights = self.mechanism.weights(losses, index, batch.timesteps, seen)
        if not bool(weights.isfinite().all()):
            mend = "" if self.uses_losses else "; it declares uses_losses = False, so it may not look at losses"
            name = self.settings.mechanism
            raise EquigenError(f"The mechanism '{name}' gave a weight that is not finite after {seen} images{mend}.")
        if self.settings.min_snr:
            weights = weights * min_snr_weights(self.schedule, batch.timesteps, self.settings.min_snr)
        return weights

    def _backward(self, losses: torch.Tensor, weights: torch.Tensor) -> None:
        """Add the gradients of a part's share in mean_i(w_i s_i l_i)."""
        self.accelerator.backward((weights.to(losses.device) * losses).mean() / len(self.parts))


def autocast(device: torch.device, precision: str) -> Any:
    """bfloat16 where it was asked for, or, on ``auto``, where it is faster; weights stay float32."""
    wanted = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)
