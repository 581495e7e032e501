"""Training images of classifiers: those of the cohort and of synthetic sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.cohort import (
    GENERATED_TABLE,
    Cohort,
    accepted_mask,
    check_images,
    load_images,
    read_generated,
    screening_note,
)
from equigen.diagnosis.fitting import FitSettings, Pool
from equigen.diagnosis.recipes import REAL, SYNTHETIC, Recipe
from equigen.diagnosis.targets import encode
from equigen.errors import InputError, Problem
from equigen.files import hash_file, hash_value

Folders = str | PathLike[str] | Mapping[str, str | PathLike[str]]


@dataclass(frozen=True)
class Source:
    """A synthetic set: its accepted rows, its folder and the hash of its table.

    ``remark`` states the number of rows left out, "" for none.
    """

    table: pd.DataFrame
    folder: Path
    hash: str
    remark: str = ""


def synthetic_folders(synthetic: Folders | None) -> dict[str, Path]:
    """Folder of the synthetic set of each generator name."""
    if synthetic is None:
        return {}
    if isinstance(synthetic, Mapping):
        if REAL in synthetic:
            raise InputError(
                "No generator may be called 'real'.", [Problem("the name means the real images", "rename it")]
            )
        return {name: Path(folder) for name, folder in synthetic.items()}
    return {SYNTHETIC: Path(synthetic)}


def read_source(folder: Path, labels: Iterable[str]) -> Source:
    """A synthetic set with its accepted rows; rows without a screening (None) are accepted.

    Raises InputError for a missing set, a missing column, or an image that differs from the record of the table.
    """
    path = folder / GENERATED_TABLE
    table = read_generated(folder, "There is no synthetic set that can be used.")
    problems = [
        Problem(
            "the synthetic set has no such column",
            "generate it from this cohort",
            column=f"label.{name}",
            file=str(path),
        )
        for name in labels
        if f"label.{name}" not in table
    ]
    if problems:
        raise InputError("The synthetic set does not fit the cohort.", problems)
    accepted, _ = accepted_mask(table)
    if not np.any(accepted):
        raise InputError(
            "The synthetic set is empty.",
            [Problem("no accepted image", "generate more, or screen less", file=str(path))],
        )
    check_images(table[accepted], folder, "The synthetic set is damaged.")
    return Source(table[accepted].reset_index(drop=True), folder, hash_file(path), screening_note(accepted))


@dataclass(frozen=True)
class Arm:
    """One classifier to fit: its label, recipe, settings and seed."""

    label: str
    recipe: Recipe
    settings: FitSettings
    seed: int


class Data:
    """Images of the cohort and of the synthetic sets, read on first use."""

    def __init__(self, cohort: Cohort, sources: dict[str, Source], size: int) -> None:
        self.cohort, self.sources, self.size = cohort, sources, size
        self._cohort_hash = cohort.hash
        self._images: dict[str, NDArray[np.uint8]] = {}

    def images(self, name: str) -> NDArray[np.uint8]:
        """[N, size, size, 3] uint8 of the cohort ('real') or a synthetic set, in the order of its table."""
        if name not in self._images:
            if name == REAL:
                paths = list(self.cohort.frame["path"])
            else:
                source = self.sources[name]
                paths = [str(source.folder / image) for image in source.table["image"]]
            self._images[name] = load_images(paths, self.size)
        return self._images[name]

    def pool(self, name: str, label: str, split: str | None = None) -> Pool:
        """Images and targets of one source, or of one split of the cohort."""
        table = self.cohort.frame if name == REAL else self.sources[name].table
        mask = np.ones(len(table), dtype=bool) if split is None else (table["split"] == split).to_numpy()
        targets = encode(table[f"label.{label}"], self.cohort.labels[label])
        return Pool(self.images(name)[mask], targets[mask])

    def key(self, arm: Arm) -> str:
        """Hash of all inputs of a fit."""
        source_hashes = {name: self.sources[name].hash for name in arm.recipe.shares if name != REAL}
        settings = [arm.label, arm.recipe.name, asdict(arm.settings), arm.seed, self.size]
        return hash_value([self._cohort_hash, source_hashes, *settings])
