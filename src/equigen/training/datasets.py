"""The data set of a split: checks of a cohort, and latents in memory or in a store on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from equigen.cohort import Cohort, Manifest
from equigen.diffusion import Vocabulary
from equigen.equity import Groups, build_mechanism
from equigen.errors import InputError, Problem
from equigen.latents import Autoencoder, LatentStore, LatentView, channel_statistics, encode, encode_store
from equigen.training.gradients import check_batch
from equigen.training.requirements import check_requirements
from equigen.training.settings import TrainSettings


@dataclass
class LatentDataset:
    """A split's latents [N, C, h, w], condition numbers [N, F], group index [N, A], and the names of the groups.

    ``latents`` have unit variance; a tensor, or anything with ``len``, ``shape`` and ``latents[rows]`` for rows [B]
    int64 -> [B, C, h, w] float32 on the CPU. ``ids``: the condition of each image, without dropout.
    """

    latents: Any
    ids: torch.Tensor
    index: torch.Tensor
    groups: Groups


Statistics = tuple[list[float], list[float]]


@dataclass(frozen=True)
class LatentSplits:
    """Training and held-out (validation) data, normalised by ``mean`` and ``std`` [C] of the latents' channels."""

    train: LatentDataset
    held_out: LatentDataset
    mean: list[float]
    std: list[float]


def cohort_groups(cohort: Cohort | Manifest) -> Groups:
    """Return the cohort's attributes and their levels as the groups of a mechanism."""
    return Groups(tuple((name, tuple(spec.levels)) for name, spec in cohort.attributes.items()))


def check_cohort(settings: TrainSettings, cohort: Cohort | Manifest) -> None:
    """Check settings against a cohort before an image is encoded, whatever the network.

    Raises InputError for packages that are not installed, a batch that does not divide into micro-batches, a training
    split without images, a choice of the best weights without validation images, or a mechanism that is unknown or
    cannot work on the cohort's groups.
    """
    check_requirements(settings)
    check_batch(settings.batch, 1, settings.accumulate)
    if isinstance(cohort, Manifest) and settings.store != "disk":
        problem = Problem("a manifest is for cohorts larger than memory", "set store: disk, or open a Cohort")
        raise InputError("This cohort is not held in memory.", [problem])
    if len(cohort.split("train")) == 0:
        problem = Problem("the training split is empty", "mend the split in cohort.yaml")
        raise InputError("There is nothing to train on.", [problem])
    if settings.best != "none" and len(cohort.split("val", domain="id")) == 0:
        problem = Problem("the validation split is empty", "mend the split in cohort.yaml, or set best: none")
        raise InputError("The best weights cannot be told.", [problem])
    build_mechanism(settings.mechanism, cohort_groups(cohort), settings.seed, **settings.mechanism_settings)


def prepare_memory_splits(
    cohort: Cohort,
    autoencoder: Autoencoder,
    cache: str | Path,
    size: int,
    show: bool = True,
    statistics: Statistics | None = None,
) -> LatentSplits:
    """Return latents, token numbers and group index of the training and validation splits; no other image is read.

    ``statistics``: mean and standard deviation of each channel to normalise by; None measures those of the training
    images.
    """
    images = cohort.split("train", "val", domain="id")
    values = encode(images, autoencoder, cache, size, show=show).values
    in_training = torch.tensor([split == "train" for split in images.frame["split"]])
    mean, std = statistics or channel_statistics(values[in_training])
    values = (values - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    ids, groups = Vocabulary.from_cohort(cohort).encode(images.frame), cohort_groups(cohort)
    columns = [torch.from_numpy(images.groups(name)) for name in groups.attributes]
    index = torch.stack(columns, dim=1) if columns else torch.zeros(len(images), 0, dtype=torch.int64)
    parts = [LatentDataset(values[mask], ids[mask], index[mask], groups) for mask in (in_training, ~in_training)]
    return LatentSplits(parts[0], parts[1], mean, std)


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
