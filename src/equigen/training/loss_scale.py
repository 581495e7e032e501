"""The factor that keeps gradients within what float16 can hold."""

from __future__ import annotations

from collections.abc import Iterable

import torch

START, GROWTH, PATIENCE, LOWEST = 2.0**16, 2.0, 2000, 1.0


class LossScale:
    """Dynamic loss scaling (Micikevicius et al., ICLR 2018, section 3.2), by the rule of torch.amp.GradScaler.

    GradScaler itself looks for overflows in the gradients of its own process alone, which differ between shards.
    The loss is multiplied by ``value``, the gradients are divided by it. A step whose gradients overflowed is left out
    and halves it; PATIENCE finite steps in a row double it. Powers of 2, so that nothing is rounded. The norm is that
    over all processes, so that they all leave out the same steps, also where the weights are sharded. ``skipped``:
    steps left out since the last log.
    """

    def __init__(self) -> None:
        self.value, self.good, self.skipped = START, 0, 0

    def unscale(self, parameters: Iterable[torch.Tensor]) -> None:
        """Divide the gradients by the scale."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if gradients:
            torch._foreach_mul_(gradients, 1 / self.value)

    def accept_step(self, norm: torch.Tensor) -> bool:
        """Return whether the step with gradients of this norm is made; sets the scale of the next."""
        if not bool(norm.isfinite()):
            self.value, self.good, self.skipped = self.value / GROWTH, 0, self.skipped + 1
            return False
        self.good += 1
        if self.good == PATIENCE:
            self.value, self.good = self.value * GROWTH, 0
        return True

    @property
    def exhausted(self) -> bool:
        """Return whether gradients overflow though they are not scaled up any more: the training diverged."""
        return self.value < LOWEST

    def state_dict(self) -> dict[str, float]:
        """Return the scale and the counts of steps."""
        return {"value": self.value, "good": self.good, "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Load what ``state_dict`` returned."""
        self.value, self.good, self.skipped = float(state["value"]), int(state["good"]), int(state["skipped"])
