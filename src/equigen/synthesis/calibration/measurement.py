"""One evaluation of a calibration: the kernel distance of a group's images at one guidance to its real images."""

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
    ResultCache,
    extract_features,
    identity,
    kernel_data,
    kernel_halves,
    subsample_patients,
    unweighted_kernel_value,
)
from equigen.seeds import derive_seed, numpy_generator
from equigen.statistics import patient_codes, split_halves
from equigen.synthesis.chunks import Batched, render
from equigen.synthesis.generation import plan_hash
from equigen.synthesis.guidance import group_names
from equigen.synthesis.plans import match_plan

LIMIT = 4000  # real images of a group; beyond it patients are sampled at random, as in ``evaluate``
HALVES = 100  # half splits of a floor, as in ``evaluate``
Features = NDArray[np.float32]


@dataclass(frozen=True)
class Group:
    """One group: features of its real images [N, D] with their patients [N], and the plan of its generated images.

    The prompts follow the joint distribution of the group's own real images (policy ``match``); prompts and seeds are
    the same at every guidance (common random numbers), so that evaluations differ in the guidance alone.
    ``floor`` is the KD between two halves of its real images, disjoint by patient.
    """

    name: str
    real: Features
    patients: NDArray[np.int64]
    rows: pd.DataFrame
    floor: float
    memory: ResultCache = field(default_factory=ResultCache)

    def kernel_distance(self, generated: Features) -> float:
        """Unbiased KD of generated features [M, D] (each an image of its own patient) from the group's real images."""
        patients = np.arange(len(generated)) + int(self.patients.max()) + 1
        data = kernel_data(self.real, generated, self.patients, patients)
        return unweighted_kernel_value(data, self.memory.compute_once)


def group_rows(tune: Cohort, names: list[str], attribute: str, images: int, steps: int, seed: int) -> pd.DataFrame:
    """Plan with ``images`` rows for each group, one group after the other; column ``group`` is the group's name."""
    row_groups = np.array(group_names(tune.frame, attribute))
    plans = []
    for name in names:
        plan = match_plan(tune.where(row_groups == name), images, derive_seed(seed, f"calibrate/{name}"), steps=steps)
        plans.append(plan.assign(group=name))
    return pd.concat(plans, ignore_index=True)


def make_groups(
    tune: Cohort,
    rows: pd.DataFrame,
    attribute: str,
    network: Encoder,
    size: int,
    *,
    seed: int,
    cache: Path,
    show: bool,
    autoencoder: Autoencoder | None = None,
) -> list[Group]:
    """The groups of ``rows`` with the features of their real images (or their reconstructions) and their floors."""
    names = list(dict.fromkeys(rows["group"]))
    row_groups = np.array(group_names(tune.frame, attribute))
    patients = tune.frame["patient"].to_numpy()
    sample = {}
    for name in names:
        members = np.flatnonzero(row_groups == name)
        rng = numpy_generator(seed, f"calibrate/limit/{name}")
        sample[name] = members[subsample_patients(patients[members], LIMIT, rng, "real")]
    union = np.unique(np.concatenate(list(sample.values()))).astype(np.int64)
    images = reconstructed_images(ImageSet(tune.frame).take(union), autoencoder, size)
    features = extract_features(images, network, size, cache_dir=cache, title="Encoding real images", show=show).values
    codes = patient_codes(patients)
    groups = []
    for name in names:
        real = features[np.searchsorted(union, sample[name])]
        floor = half_floor(real, codes[sample[name]], seed, name)
        plan = rows[rows["group"] == name].drop(columns="group").reset_index(drop=True)
        groups.append(Group(name, real, codes[sample[name]], plan, floor))
    return groups


def reconstructed_images(images: ImageSet, autoencoder: Autoencoder | None, size: int) -> ImageSet:
    """The autoencoder's reconstructions of the images; without an autoencoder the images themselves."""
    if autoencoder is None:
        return images
    pixels = load_images([Path(path) for path in images.frame["path"]], size)
    return ImageSet(images.frame, autoencoder.reconstruct(pixels), images.levels, images.remark)


def half_floor(real: Features, patients: NDArray[np.int64], seed: int, name: str) -> float:
    """Mean KD between two patient-disjoint halves of the real images over ``HALVES`` random splits."""
    data: KernelData = kernel_data(real, real[:0], patients, patients[:0])
    rows = np.arange(len(real), dtype=np.int64)
    cell = Cell("", name, 0, rows, rows[:0], len(np.unique(patients)), [], None)
    rng = numpy_generator(seed, f"calibrate/floor/{name}")
    return float(kernel_halves(data, cell, [split_halves(patients, rng) for _ in range(HALVES)]).mean())


@dataclass(frozen=True)
class Evaluator:
    """Generates images and encodes them; features are cached on disk in ``folder``.

    ``generator`` is the pipeline's hash, a field so that its weights are not hashed again for every evaluation.
    """

    pipeline: Batched
    generator: str
    network: Encoder
    size: int
    folder: Path

    def features(self, rows: pd.DataFrame, advance: Callable[[int], Any]) -> Features:
        """Features [n, D] of the images of a plan; ``advance`` receives the number of images after each chunk."""
        key = hash_value([self.generator, plan_hash(rows), self.size, identity(self.network)])[:24]
        path = self.folder / f"{key}.safetensors"
        try:
            cached: Features | None = load(path.read_bytes())["features"]
        except (FileNotFoundError, SafetensorError, KeyError):
            cached = None
        if cached is not None and len(cached) == len(rows):
            advance(len(rows))
            return cached
        images: dict[int, NDArray[np.uint8]] = {}
        for chunk in self.pipeline.cut(rows):
            rendered = render(self.pipeline, rows.iloc[chunk], list(range(len(chunk))))
            images |= dict(zip(chunk.tolist(), rendered, strict=True))
            advance(len(chunk))
        pixels = np.stack([images[row] for row in range(len(rows))])
        features = extract_features(ImageSet(rows, pixels), self.network, self.size, show=False).values
        write_bytes(path, save({"features": features}))
        return features
