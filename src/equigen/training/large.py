"""Training data that does not fit in memory: a manifest and a store of latents in place of a cohort and a tensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from equigen.cohort import Cohort, Manifest
from equigen.diffusion import Vocabulary
from equigen.latents import Autoencoder, LatentStore, LatentView, encode_store
from equigen.training.loop import Data
from equigen.training.train import Sides, groups_of


def prepare_store(
    cohort: Cohort | Manifest,
    coder: Autoencoder,
    folder: str | Path,
    size: int,
    *,
    rank: int = 0,
    world: int = 1,
    wait: Callable[[], Any] = lambda: None,
    show: bool = True,
) -> Sides:
    """What ``prepare`` gives, with latents that stay on the disk; every process encodes its share of the images.

    ``folder``: of latent stores; ``wait`` is called when this process (``rank`` of ``world``) has encoded its share,
    and returns when all have. Token numbers and group index take 8 bytes a row and field. Raises InputError as
    ``encode_store`` does.
    """
    whole = cohort.split("train", "val", domain="id")
    file = encode_store(whole, coder, folder, size, rank=rank, world=world, show=show)
    wait()
    store, groups = LatentStore(file), groups_of(cohort)
    ids = Vocabulary.of(cohort).encode(whole.frame)
    columns = [torch.from_numpy(whole.groups(name)) for name in groups.attributes]
    index = torch.stack(columns, dim=1) if columns else torch.zeros(len(whole), 0, dtype=torch.int64)
    in_training = np.asarray(whole.frame["split"] == "train")
    mean, std = store.statistics(np.flatnonzero(in_training))
    parts = [
        Data(LatentView(store, rows, mean, std), ids[rows], index[rows], groups)  # type: ignore[arg-type, unused-ignore]
        for rows in (np.flatnonzero(in_training), np.flatnonzero(~in_training))
    ]
    return Sides(parts[0], parts[1], mean, std)
