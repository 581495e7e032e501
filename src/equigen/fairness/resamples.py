"""The draws that every recipe and task of one domain shares: patients resampled.

Sharing them is what makes differences paired, and what makes a mean over tasks a mean of one draw.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.seeds import numpy_generator
from equigen.statistics import patient_bootstrap

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
CELLS = 4_000_000  # weights held at once: more rows mean fewer replicates at a time, the same result


@dataclass(frozen=True)
class Attribute:
    """One attribute over the units of a domain: levels, their codes (-1 unknown), and whether patients mix groups."""

    name: str
    levels: list[str]
    codes: Codes  # [U]
    mixed: bool


@dataclass(frozen=True)
class Draws:
    """Units of one domain with their patients, how often each replicate draws a patient, and the attributes.

    ``multiplicity`` is [P, 1 + R]; column 0 is all ones, the data as they are. ``chance`` counts the draws of what
    chance gives; ``stream`` is their source.
    """

    units: pd.Index
    patients: Codes  # [U]
    multiplicity: NDArray[np.int16]
    attributes: list[Attribute]
    chance: int
    seed: int

    def stream(self, *names: str) -> np.random.Generator:
        """Generator of one purpose, the same for every recipe: what is paired stays paired."""
        return numpy_generator(self.seed, "/".join(("fairness", *names)))

    def rows_of(self, units: pd.Series) -> Codes:
        """Position of each unit, [N]."""
        return np.asarray(self.units.get_indexer(pd.Index(units)), dtype=np.int64)

    def bootstrap(self, rows: Codes) -> Iterator[tuple[slice, Floats]]:
        """Weights [N, r] of the given units, block by block of replicates."""
        mine = self.patients[rows]
        for block in _blocks(len(rows), self.multiplicity.shape[1]):
            yield block, self.multiplicity[:, block][mine].astype(np.float64)


def _blocks(rows: int, replicates: int) -> Iterator[slice]:
    """Slices of replicates that keep a block of weights small."""
    step = max(1, CELLS // max(1, rows))
    for start in range(0, replicates, step):
        yield slice(start, min(replicates, start + step))


def draw(
    table: pd.DataFrame, levels: dict[str, list[str]], *, replicates: int, permutations: int, seed: int
) -> Draws:
    """Draws for the units of ``table`` (columns unit, patient, attr.<name>), which holds one domain.

    Patients are drawn with replacement, as many as there are.
    """
    units = table.drop_duplicates("unit").sort_values("unit")
    patients = np.unique(units["patient"].to_numpy().astype(str), return_inverse=True)[1].astype(np.int64)
    count = int(patients.max()) + 1
    multiplicity = np.ones((count, 1 + replicates), dtype=np.int16)
    drawn = patient_bootstrap(np.arange(count), replicates, numpy_generator(seed, "fairness/bootstrap"))
    for column, rows in enumerate(drawn, start=1):
        multiplicity[:, column] = np.bincount(rows, minlength=count)
    attributes = [_attribute(name, known, units[f"attr.{name}"], patients) for name, known in levels.items()]
    return Draws(pd.Index(units["unit"]), patients, multiplicity, attributes, permutations, seed)


def _attribute(name: str, levels: list[str], values: pd.Series, patients: Codes) -> Attribute:
    """Codes of one attribute."""
    codes = pd.Index(levels, dtype=object).get_indexer(pd.Index(values)).astype(np.int64)
    known = codes >= 0
    pairs = np.unique(np.column_stack([patients[known], codes[known]]), axis=0)
    return Attribute(name, levels, codes, mixed=len(np.unique(pairs[:, 0])) < len(pairs))
