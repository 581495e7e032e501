"""The training stream: images, noise, noise levels and conditions of the batch at a given count of images seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from equigen.diffusion import STEPS, Conditions
from equigen.seeds import numpy_generator, torch_generator
from equigen.shuffle import shuffled_rows
from equigen.training.settings import TrainSettings

LARGE = 2**22
"""Images above which an epoch's order is computed position by position: a whole permutation of that many takes 0.2 s
and 32 MB, of a hundred million 5 s and 800 MB."""


@dataclass(frozen=True)
class Batch:
    """One global batch: rows [B] of the training set, noise [B, C, h, w], timesteps [B], condition numbers [B, F].

    ``input_noise`` [B, C, h, w]: the noise of the network's input where it differs from the target's; else None.
    """

    rows: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    ids: torch.Tensor
    input_noise: torch.Tensor | None = None


class Stream:
    """An endless stream of batches that depends on (seed, images seen) alone, not on processes or interruptions.

    ``shape`` (N, C, h, w): of all latents; ``steps``: number of noise levels. Without ``weights`` the images come in a
    fresh random order each epoch; with sampling weights [N] (a mechanism's) they are drawn with replacement. Up to
    LARGE images each epoch computes one permutation; above that, positions of the order are computed batch by batch.
    """

    def __init__(
        self,
        conditions: Conditions,
        shape: tuple[int, ...],
        settings: TrainSettings,
        weights: torch.Tensor | None = None,
        steps: int = STEPS,
    ) -> None:
        self.conditions, self.settings, self.steps = conditions, settings, steps
        self.count, self.shape = shape[0], shape[1:]
        self._cumulative: NDArray[np.float64] | None = None
        if weights is not None:
            # computed once for all batches; the draws are those of numpy.random.Generator.choice(N, p=...)
            self._cumulative = np.cumsum((weights.double() / weights.double().sum()).numpy())
            self._cumulative /= self._cumulative[-1]
        self._epoch, self._order = -1, np.zeros(0, dtype=np.int64)

    def batch(self, images_seen: int) -> Batch:
        """Return the batch that follows after ``images_seen`` images."""
        settings, seed = self.settings, self.settings.seed
        rows = torch.from_numpy(self._rows(images_seen))
        draws = torch_generator(seed, "noise", images_seen)
        noise = torch.randn(len(rows), *self.shape, generator=draws)
        if settings.timestep_sampling == "uniform":
            timesteps = torch.randint(0, self.steps, (len(rows),), generator=draws)
        else:  # steps * sigmoid(standard normal): rf/lognorm(0, 1) of Esser et al. (2024)
            fraction = torch.randn(len(rows), generator=draws).sigmoid()
            timesteps = (fraction * self.steps).long().clamp(max=self.steps - 1)
        ids = self.conditions.draw(rows, seed, images_seen, draws)
        if settings.noise_offset:
            # a constant in each channel, N(0, noise_offset^2), lets a model learn the brightness of a whole image
            # (Guttenberg, "Diffusion with offset noise", 2023)
            draws = torch_generator(seed, "noise-offset", images_seen)
            noise = noise + settings.noise_offset * torch.randn(*noise.shape[:2], 1, 1, generator=draws)
        input_noise = None
        if settings.input_perturbation:  # noise + gamma * more; the target keeps ``noise`` (Ning et al., ICML 2023)
            draws = torch_generator(seed, "input-perturbation", images_seen)
            input_noise = noise + settings.input_perturbation * torch.randn(noise.shape, generator=draws)
        return Batch(rows, noise, timesteps, ids, input_noise)

    def _rows(self, images_seen: int) -> NDArray[np.int64]:
        """Return the rows at positions images_seen .. images_seen + batch of the endless order."""
        seed, batch = self.settings.seed, self.settings.batch
        if self._cumulative is not None:
            return self._cumulative.searchsorted(numpy_generator(seed, "draw", images_seen).random(batch), side="right")
        epochs, positions = np.divmod(np.arange(images_seen, images_seen + batch, dtype=np.int64), self.count)
        parts = [self._epoch_rows(int(epoch), positions[epochs == epoch]) for epoch in np.unique(epochs)]
        return np.concatenate(parts)

    def _epoch_rows(self, epoch: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows at some positions of an epoch's order."""
        if self.count > LARGE:
            return shuffled_rows(positions, self.count, self.settings.seed, epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = numpy_generator(self.settings.seed, "epoch", epoch).permutation(self.count)
        return self._order[positions]
