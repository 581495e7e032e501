"""Training and validation data, in memory or in a store of latents on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from equigen.cohort import Cohort, Manifest
from equigen.diffusion import Vocabulary
from equigen.latents import Autoencoder, LatentStore, LatentView, encode_store
from equigen.training.cohort_data import LatentSplits, Statistics, cohort_groups, prepare_memory_splits
from equigen.training.data import LatentDataset
from equigen.training.settings import TrainSettings


def prepare_splits(
    cohort: Cohort | Manifest,
    autoencoder: Autoencoder,
    cache: str | Path,
    settings: TrainSettings,
    accelerator: Accelerator,
    show: bool,
    statistics: Statistics | None = None,
) -> LatentSplits:
    """Return latents in memory, encoded by the first process, or on disk, encoded by all, by ``settings.store``."""
    if settings.store == "disk":
        return prepare_stored_splits(
            cohort, autoencoder, cache, settings.size, rank=accelerator.process_index, world=accelerator.num_processes,
            wait=accelerator.wait_for_everyone, show=show, statistics=statistics,
        )  # fmt: skip
    assert isinstance(cohort, Cohort)  # ``check_cohort`` refuses a manifest
    with accelerator.main_process_first():
        return prepare_memory_splits(cohort, autoencoder, cache, settings.size, show, statistics)


def prepare_stored_splits(
    cohort: Cohort | Manifest,
    autoencoder: Autoencoder,
    folder: str | Path,
    size: int,
    *,
    rank: int = 0,
    world: int = 1,
    wait: Callable[[], Any] = lambda: None,
    show: bool = True,
    statistics: Statistics | None = None,
) -> LatentSplits:
    """Return the splits with latents that stay on disk; every process encodes its share of the images.

    ``folder``: of latent stores; ``wait`` is called when this process (``rank`` of ``world``) has encoded its share,
    and returns when all have; ``statistics`` as for ``prepare_memory_splits``. Token numbers and group index take 8
    bytes a row and field. Raises InputError as ``encode_store`` does.
    """
    images = cohort.split("train", "val", domain="id")
    file = encode_store(images, autoencoder, folder, size, rank=rank, world=world, show=show)
    wait()
    store, vocabulary, groups = LatentStore(file), Vocabulary.from_cohort(cohort), cohort_groups(cohort)
    training = np.asarray(images.frame["split"] == "train")
    mean, std = statistics or store.statistics(np.flatnonzero(training))

    def split_dataset(mask: NDArray[np.bool_]) -> LatentDataset:
        split = images.where(mask)
        index = np.empty((len(split), len(groups.attributes)), dtype=np.int64)
        for column, name in enumerate(groups.attributes):
            index[:, column] = split.groups(name)
        latents: Any = LatentView(store, np.flatnonzero(mask), mean, std)
        return LatentDataset(latents, vocabulary.encode(split.frame), torch.from_numpy(index), groups)

    return LatentSplits(split_dataset(training), split_dataset(~training), mean, std)
