"""The interface of equity mechanisms."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from equigen.equity.monitor import GroupLosses

State = dict[str, Tensor | float | int | str]
"""State of a mechanism in a checkpoint: float64 and int64 tensors (safetensors) and JSON scalars."""


@runtime_checkable
class Mechanism(Protocol):
    """A rule that turns the losses of a batch into weights; the training loss is mean_i(w_i * l_i).

    The training loop calls, for each global batch, ``weights`` once, then steps, then asks ``wants_probe``
    with the new count of images; when True it measures the fixed probe and gives it to ``observe_probe``.
    Losses are gathered over all ranks first, so each rank computes the same weights and takes its slice.
    Every random draw comes from (seed, purpose, images_seen), so neither resuming nor the number of
    processes changes a weight. ``state_dict`` and ``load_state_dict`` carry all that is remembered: into
    checkpoints, and from rank 0 to the others where ranks run on unlike hardware. Weights of a mechanism
    multiply with other per-image weights (min-SNR): a mechanism sees nothing but per-image losses.

    A mechanism whose ``weights`` do not depend on losses may declare ``uses_losses = False`` (a class attribute; True
    where there is none). It then gets NaN for them, and gradient accumulation saves a forward pass.

    Weights are checked (``equigen.equity.checks``): a floating tensor [B] of finite numbers, never reshaped or
    cast. A mechanism may promise ``nonnegative = True`` (a class attribute; False where there is none): then a weight
    below 0 stops the training.

    Two more methods are called where a mechanism has them: ``decide(images_seen, first) -> bool`` before each batch, on
    the first process and on the others; it returns whether the state of the first has to be copied to the others. And
    ``close()`` when the run ends, however it ends.
    """

    name: str

    def weights(self, losses: Tensor, groups: Tensor, timesteps: Tensor, images_seen: int) -> Tensor:
        """Return weights [B] for the losses [B] of the whole global batch, on their device and in their dtype.

        ``losses`` are detached and unweighted; ``groups`` is an integer index [B, A] with -1 for unknown;
        ``timesteps`` [B] are the noise levels; ``images_seen`` counts the images before this batch and
        differs between calls.
        """
        ...

    def wants_probe(self, images_seen: int) -> bool:
        """Return whether the fixed probe has to be measured now, after ``images_seen`` images."""
        ...

    def observe_probe(self, monitor: GroupLosses, images_seen: int) -> None:
        """Update the mechanism by the group losses of the fixed probe, measured after ``images_seen`` images."""
        ...

    def records(self) -> dict[str, float]:
        """Return values to log: ``sigma/<attribute>/<group>``, ``weight/...``, ``reward``; unknown ones have no key."""
        ...

    def sampling_weights(self, groups: Tensor) -> Tensor | None:
        """Return sampling weights [N] of the training images, or None for the uniform stream.

        Called once before the first step, at a start and at a resume, with the group index [N, A] of all
        training images; a mechanism may take the groups' frequencies from it.
        """
        ...

    def state_dict(self) -> State:
        """Return the complete state, as copies, from which another process resumes exactly."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Load ``state``; raises ``InputError`` when it is of another mechanism, other groups or settings."""
        ...
