"""Training data in memory, or too large for it: a manifest and a store of latents in place of a cohort and a tensor."""

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
from equigen.training.cohort_data import Sides, Statistics, groups_of, prepare
from equigen.training.data import Data
from equigen.training.settings import TrainSettings


def prepare_sides(
    cohort: Cohort | Manifest, coder: Autoencoder, cache: str | Path, settings: TrainSettings, accelerator: Accelerator,
    show: bool, statistics: Statistics | None = None,
) -> Sides:
    """Latents in memory, encoded by the first process, or on the disk, encoded by all, as the settings say."""
    if settings.store == "disk":
        return prepare_store(
            cohort, coder, cache, settings.size, rank=accelerator.process_index, world=accelerator.num_processes,
            wait=accelerator.wait_for_everyone, show=show, statistics=statistics,
        )  # fmt: skip
    assert isinstance(cohort, Cohort)  # ``check_cohort`` has refused the other
    with accelerator.main_process_first():
        return prepare(cohort, coder, cache, settings.size, show, statistics)


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
    statistics: Statistics | None = None,
) -> Sides:
    """What ``prepare`` gives, with latents that stay on the disk; every process encodes its share of the images.

    ``folder``: of latent stores; ``wait`` is called when this process (``rank`` of ``world``) has encoded its share,
    and returns when all have; ``statistics`` as for ``prepare``. Token numbers and group index take 8 bytes a row and
    field. Raises InputError as ``encode_store`` does.
    """
    whole = cohort.split("train", "val", domain="id")
    file = encode_store(whole, coder, folder, size, rank=rank, world=world, show=show)
    wait()
    store, words, groups = LatentStore(file), Vocabulary.of(cohort), groups_of(cohort)
    training = np.asarray(whole.frame["split"] == "train")
    mean, std = statistics or store.statistics(np.flatnonzero(training))

    def side(mask: NDArray[np.bool_]) -> Data:
        part = whole.where(mask)
        index = np.empty((len(part), len(groups.attributes)), dtype=np.int64)
        for place, name in enumerate(groups.attributes):
            index[:, place] = part.groups(name)
        latents: Any = LatentView(store, np.flatnonzero(mask), mean, std)
        return Data(latents, words.encode(part.frame), torch.from_numpy(index), groups)

    return Sides(side(training), side(~training), mean, std)
