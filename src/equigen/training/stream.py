"""The training stream: which images, noise and noise levels make the batch at a given count of images seen."""

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
"""Images above which an epoch's order is worked out place by place: a whole permutation of that many takes 0.2 s and
32 MB, of a hundred million 5 s and 800 MB."""


@dataclass(frozen=True)
class Batch:
    """One global batch: rows [B] of the training set, noise [B, C, h, w], timesteps [B], condition numbers [B, F].

    ``shown`` [B, C, h, w]: the noise that the network's input gets, where it is another than the target's.
    """

    rows: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    ids: torch.Tensor
    shown: torch.Tensor | None = None


class Stream:
    """An endless stream that depends on (seed, images seen) alone, not on workers, processes or what ran before.

    ``shape`` (N, C, h, w): of all latents; ``steps``: how many noise levels there are. Without ``weights`` the images
    come in a fresh random order each epoch; with sampling weights [N] (a mechanism's) they are drawn with replacement.
    Up to LARGE images a batch costs the same whatever N but for one permutation an epoch; above it, without that.
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
        self._sums = None if weights is None else _running_sums(weights)
        self._epoch, self._order = -1, np.zeros(0, dtype=np.int64)

    def _rows(self, seen: int) -> NDArray[np.int64]:
        """Rows at positions seen .. seen + batch of the endless order."""
        seed, batch = self.settings.seed, self.settings.batch
        if self._sums is not None:
            return self._sums.searchsorted(numpy_generator(seed, "draw", seen).random(batch), side="right")
        epochs, places = np.divmod(np.arange(seen, seen + batch, dtype=np.int64), self.count)
        parts = [self._of_epoch(int(epoch), places[epochs == epoch]) for epoch in np.unique(epochs)]
        return np.concatenate(parts)

    def _of_epoch(self, epoch: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows at some places of an epoch's order."""
        if self.count > LARGE:
            return shuffled_rows(places, self.count, self.settings.seed, epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = numpy_generator(self.settings.seed, "epoch", epoch).permutation(self.count)
        return self._order[places]

    def batch(self, seen: int) -> Batch:
        """The batch that comes after ``seen`` images."""
        seed = self.settings.seed
        rows = torch.from_numpy(self._rows(seen))
        draws = torch_generator(seed, "noise", seen)
        noise = torch.randn(len(rows), *self.shape, generator=draws)
        timesteps = self._timesteps(len(rows), draws)
        ids = self.conditions.draw(rows, seed, seen, draws)
        noise = self._offset(noise, seen)
        return Batch(rows, noise, timesteps, ids, self._perturbed(noise, seen))

    def _timesteps(self, count: int, draws: torch.Generator) -> torch.Tensor:
        """Uniform in [0, steps), or steps * sigmoid(standard normal): rf/lognorm(0, 1) of Esser et al. (2024)."""
        if self.settings.timestep_sampling == "uniform":
            return torch.randint(0, self.steps, (count,), generator=draws)
        part = torch.randn(count, generator=draws).sigmoid()
        return (part * self.steps).long().clamp(max=self.steps - 1)

    def _offset(self, noise: torch.Tensor, seen: int) -> torch.Tensor:
        """Noise plus a constant in each channel, N(0, noise_offset^2): lets a model learn how bright a whole image is.

        Guttenberg, "Diffusion with offset noise" (2023).
        """
        if not self.settings.noise_offset:
            return noise
        draws = torch_generator(self.settings.seed, "noise-offset", seen)
        return noise + self.settings.noise_offset * torch.randn(*noise.shape[:2], 1, 1, generator=draws)

    def _perturbed(self, noise: torch.Tensor, seen: int) -> torch.Tensor | None:
        """Noise for the network's input, noise + gamma * more; the target keeps ``noise`` (Ning et al., ICML 2023)."""
        if not self.settings.input_perturbation:
            return None
        draws = torch_generator(self.settings.seed, "input-perturbation", seen)
        return noise + self.settings.input_perturbation * torch.randn(noise.shape, generator=draws)


def _running_sums(weights: torch.Tensor) -> NDArray[np.float64]:
    """Cumulative chances [N], in which a uniform number finds its row.

    What ``numpy.random.Generator.choice(N, p=...)`` makes anew, over all N, in each call; the draws are the same ones.
    """
    chances = (weights.double() / weights.double().sum()).numpy()
    sums: NDArray[np.float64] = np.cumsum(chances)
    sums /= sums[-1]
    return sums
