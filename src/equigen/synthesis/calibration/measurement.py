"""One evaluation of a calibration: images of one group at one guidance, and how far they are from its real images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from equigen.cohort import Cohort, load_images
from equigen.files import hash_value, write_bytes
from equigen.latents import Autoencoder
from equigen.quality import (
    Cell,
    Encoder,
    ImageSet,
    KernelData,
    Memory,
    extract,
    identity,
    kernel_data,
    kernel_halves,
    kernel_value,
    whole_patients,
)
from equigen.seeds import derive_seed, numpy_generator
from equigen.statistics import patient_codes, split_halves
from equigen.synthesis.chunks import Batched, render
from equigen.synthesis.generation import plan_hash
from equigen.synthesis.guidance import group_names
from equigen.synthesis.plans import match_plan

LIMIT = 4000  # real images of a group; beyond it whole patients are drawn at random, as in an evaluation
HALVES = 100  # half splits that a floor is the mean of, as in an evaluation
Features = NDArray[np.float32]


@dataclass(frozen=True)
class Group:
    """One group: features of its real images [N, D] with their patients [N], and the rows that are made for it.

    The prompts follow the joint distribution of the group's own real images (policy ``match``); prompts and seeds are
    the same at every guidance (common random numbers), so that what differs between two guidances is the guidance.
    ``floor`` is the KD between two halves of its real images, disjoint by patient.
    """

    name: str
    real: Features
    patients: NDArray[np.int64]
    rows: pd.DataFrame
    floor: float
    memory: Memory = field(default_factory=Memory)

    def kernel_distance(self, made: Features) -> float:
        """Unbiased KD of generated features [M, D] (each an image of its own patient) from the group's real images."""
        own = np.arange(len(made)) + int(self.patients.max()) + 1
        data = kernel_data(self.real, made, self.patients, own)
        ones = np.ones((1, len(self.real))), np.ones((1, len(made)))
        return float(kernel_value(data, np.arange(len(self.real)), np.arange(len(made)), *ones, self.memory.once)[0])


def group_rows(tune: Cohort, names: list[str], attribute: str, images: int, steps: int, seed: int) -> pd.DataFrame:
    """Rows to make for each group, ``images`` of each, one after the other; a column ``group`` says whose they are."""
    owners = np.array(group_names(tune.frame, attribute))
    parts = []
    for name in names:
        own = match_plan(tune.where(owners == name), images, derive_seed(seed, f"calibrate/{name}"), steps=steps)
        parts.append(own.assign(group=name))
    return pd.concat(parts, ignore_index=True)


def make_groups(
    tune: Cohort, rows: pd.DataFrame, attribute: str, network: Encoder, size: int, *,
    seed: int, cache: Path, show: bool, through: Autoencoder | None = None,
) -> list[Group]:
    """The groups of ``rows`` with the features of their real images (as ``through`` keeps them) and their floors."""
    names = list(dict.fromkeys(rows["group"]))
    owners = np.array(group_names(tune.frame, attribute))
    patients = tune.frame["patient"].to_numpy()
    taken = {}
    for name in names:
        at = np.flatnonzero(owners == name)
        rng = numpy_generator(seed, f"calibrate/limit/{name}")
        taken[name] = at[whole_patients(patients[at], LIMIT, rng, "real")]
    every = np.unique(np.concatenate(list(taken.values()))).astype(np.int64)
    images = kept(ImageSet(tune.frame).take(every), through, size)
    values = extract(images, network, size, cache_dir=cache, title="Encoding real images", show=show).values
    codes = patient_codes(patients)
    groups = []
    for name in names:
        own = values[np.searchsorted(every, taken[name])]
        floor = half_floor(own, codes[taken[name]], seed, name)
        asked = rows[rows["group"] == name].drop(columns="group").reset_index(drop=True)
        groups.append(Group(name, own, codes[taken[name]], asked, floor))
    return groups


def kept(images: ImageSet, through: Autoencoder | None, size: int) -> ImageSet:
    """The images as an autoencoder keeps them; None: as they are."""
    if through is None:
        return images
    pixels = load_images([Path(path) for path in images.frame["path"]], size)
    return ImageSet(images.frame, through.reconstruct(pixels), images.levels, images.remark)


def half_floor(real: Features, patients: NDArray[np.int64], seed: int, name: str) -> float:
    """KD between two halves of the real images that share no patient, the mean over ``HALVES`` splits."""
    data: KernelData = kernel_data(real, real[:0], patients, patients[:0])
    everything = np.arange(len(real), dtype=np.int64)
    cell = Cell("", name, 0, everything, everything[:0], len(np.unique(patients)), [], None)
    rng = numpy_generator(seed, f"calibrate/floor/{name}")
    return float(kernel_halves(data, cell, [split_halves(patients, rng) for _ in range(HALVES)]).mean())


@dataclass(frozen=True)
class Maker:
    """Features of generated images, kept on disk under ``folder``: what was made once is never made again.

    ``generator`` is the pipeline's hash, given so that its weights are not read again for every evaluation.
    """

    pipeline: Batched
    generator: str
    network: Encoder
    size: int
    folder: Path

    def features(self, rows: pd.DataFrame, made: Callable[[int], Any]) -> Features:
        """[n, D] of the images of some rows; ``made`` is told how many more are there."""
        place = self.folder / f"{self._key(rows)}.safetensors"
        kept = _read(place, len(rows))
        if kept is not None:
            made(len(rows))
            return kept
        images: dict[int, NDArray[np.uint8]] = {}
        for chunk in self.pipeline.cut(rows):
            own = render(self.pipeline, rows.iloc[chunk], list(range(len(chunk))))
            images |= dict(zip(chunk.tolist(), own, strict=True))
            made(len(chunk))
        pictures = ImageSet(rows, np.stack([images[row] for row in range(len(rows))]))
        values = extract(pictures, self.network, self.size, show=False).values
        write_bytes(place, save({"features": values}))
        return values

    def _key(self, rows: pd.DataFrame) -> str:
        return hash_value([self.generator, plan_hash(rows), self.size, identity(self.network)])[:24]


def _read(place: Path, count: int) -> Features | None:
    """What an earlier run left there; None where there is nothing, or nothing whole."""
    try:
        values: Features = load(place.read_bytes())["features"]
    except (FileNotFoundError, SafetensorError, KeyError):
        return None
    return values if len(values) == count else None
