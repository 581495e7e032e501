"""The training stream: which images, noise and noise levels make the batch at a given count of images seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from equigen.diffusion import STEPS, drop
from equigen.seeds import numpy_generator, torch_generator
from equigen.training.settings import TrainSettings


@dataclass(frozen=True)
class Batch:
    """One global batch: rows [B] of the training set, noise [B, C, h, w], timesteps [B], token numbers [B, F]."""

    rows: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    ids: torch.Tensor


class Stream:
    """An endless stream that depends on (seed, images seen) alone, not on workers, processes or what ran before.

    Without ``weights`` the images come in a fresh random order each epoch; with sampling weights [N] (a mechanism's)
    they are drawn with replacement.
    """

    def __init__(
        self,
        ids: torch.Tensor,
        shape: tuple[int, ...],
        settings: TrainSettings,
        weights: torch.Tensor | None = None,
    ) -> None:
        self.ids, self.shape, self.settings = ids, shape, settings
        self.weights = None if weights is None else (weights.double() / weights.double().sum()).numpy()
        self._epoch, self._order = -1, np.zeros(0, dtype=np.int64)

    def _rows(self, seen: int) -> NDArray[np.int64]:
        """Rows at positions seen .. seen + batch of the endless order."""
        count, seed, batch = len(self.ids), self.settings.seed, self.settings.batch
        if self.weights is not None:
            return numpy_generator(seed, "draw", seen).choice(count, size=batch, p=self.weights)
        rows = []
        for position in range(seen, seen + batch):
            epoch, place = divmod(position, count)
            if epoch != self._epoch:
                self._epoch, self._order = epoch, numpy_generator(seed, "epoch", epoch).permutation(count)
            rows.append(self._order[place])
        return np.array(rows)

    def batch(self, seen: int) -> Batch:
        """The batch that comes after ``seen`` images."""
        rows = torch.from_numpy(self._rows(seen))
        draws = torch_generator(self.settings.seed, "noise", seen)
        noise = torch.randn(len(rows), *self.shape, generator=draws)
        timesteps = torch.randint(0, STEPS, (len(rows),), generator=draws)
        return Batch(
            rows,
            noise,
            timesteps,
            drop(self.ids[rows], self.settings.drop_all, self.settings.drop_one, draws),
        )
