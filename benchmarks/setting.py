"""What the benchmarks share: a phantom cohort in a temporary folder, encoded, with a network to train on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from equigen.cohort import Cohort
from equigen.cohort.phantom import PhantomSettings, write_phantom
from equigen.diffusion import Denoiser, Vocabulary, build_tokens, build_unet
from equigen.latents import Autoencoder, channel_statistics, encode, load_autoencoder
from equigen.training import LatentDataset
from equigen.training.datasets import cohort_groups

SIZE = 64


@dataclass
class Setting:
    """A training split, its latents, and the autoencoder that made them."""

    cohort: Cohort
    coder: Autoencoder
    data: LatentDataset

    @classmethod
    def make(cls, folder: Path, images: int = 1500, stored: int = SIZE) -> Setting:
        """Write the phantom at ``stored`` pixels, encode it at SIZE, normalise the latents."""
        place = write_phantom(folder / "phantom", images, settings=PhantomSettings(size=stored))
        cohort = Cohort.read(place / "cohort.yaml", show_progress=False).split("train")
        coder = load_autoencoder()
        values = encode(cohort, coder, folder / "latents", SIZE, show=False).values
        mean, std = channel_statistics(values)
        values = (values - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        groups = cohort_groups(cohort)
        index = torch.stack([torch.from_numpy(cohort.groups(name)) for name in groups.attributes], dim=1)
        ids = Vocabulary.from_cohort(cohort).encode(cohort.frame)
        return cls(cohort, coder, LatentDataset(values, ids, index, groups))

    def denoiser(self, preset: str) -> Any:
        """A fresh network, the same every time."""
        sizes = Vocabulary.from_cohort(self.cohort).sizes
        side = SIZE // self.coder.factor
        return Denoiser(build_unet(preset, self.coder.channels, side, 0), build_tokens(sizes, preset, 0))
