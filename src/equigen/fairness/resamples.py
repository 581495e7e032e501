"""Bootstrap resamples of patients, shared by all recipes and tasks of one domain.

Shared resamples make differences between recipes paired, and a mean over tasks a mean within each replicate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.seeds import numpy_generator
from equigen.statistics import draw_multiplicities

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
CELLS = 4_000_000  # greatest number of weights in memory; it does not change the result


@dataclass(frozen=True)
class Attribute:
    """One attribute over the units of a domain: levels, codes (-1 unknown), and whether a patient has several."""

    name: str
    levels: list[str]
    codes: Codes  # [U]
    mixed: bool


@dataclass(frozen=True)
class Resamples:
    """Units of one domain with their patients, bootstrap multiplicities and attributes.

    ``multiplicity`` [P, 1 + R]: number of draws of each patient in each replicate, one column a replicate, since the
    metrics of an audit take columns of weights; column 0 is all ones, the data.
    ``null_draws``: number of draws of null distributions.
    """

    units: pd.Index
    patients: Codes  # [U]
    multiplicity: NDArray[np.uint16]
    attributes: list[Attribute]
    null_draws: int
    seed: int

    def stream(self, *names: str) -> np.random.Generator:
        """Random generator of one purpose, the same for every recipe, so that differences are paired."""
        return numpy_generator(self.seed, "/".join(("fairness", *names)))

    def rows_of(self, units: pd.Series) -> Codes:
        """Position of each unit, [N]."""
        return np.asarray(self.units.get_indexer(pd.Index(units)), dtype=np.int64)

    def bootstrap(self, rows: Codes) -> Iterator[tuple[slice, Floats]]:
        """Weights [N, r] of some units (positions), by block of replicates."""
        patients, replicates = self.patients[rows], self.multiplicity.shape[1]
        step = max(1, CELLS // max(1, len(rows)))
        for start in range(0, replicates, step):
            block = slice(start, min(replicates, start + step))
            yield block, self.multiplicity[:, block][patients].astype(np.float64)


def draw_resamples(
    table: pd.DataFrame, levels: dict[str, list[str]], *, replicates: int, permutations: int, seed: int
) -> Resamples:
    """Bootstrap resamples for the units of ``table`` (columns unit, patient, attr.<name>) of one domain.

    Patients are drawn with replacement, as many as there are.
    """
    units = table.drop_duplicates("unit").sort_values("unit")
    patients = np.unique(units["patient"].to_numpy().astype(str), return_inverse=True)[1].astype(np.int64)
    draws = draw_multiplicities(patients, replicates, numpy_generator(seed, "fairness/bootstrap"))
    multiplicity = np.ones((draws.counts.shape[1], 1 + replicates), dtype=np.uint16)
    multiplicity[:, 1:] = draws.counts.T
    attributes = []
    for name, names in levels.items():
        codes = pd.Index(names, dtype=object).get_indexer(pd.Index(units[f"attr.{name}"])).astype(np.int64)
        pairs = np.unique(np.column_stack([patients[codes >= 0], codes[codes >= 0]]), axis=0)
        attributes.append(Attribute(name, names, codes, mixed=len(np.unique(pairs[:, 0])) < len(pairs)))
    return Resamples(pd.Index(units["unit"]), patients, multiplicity, attributes, permutations, seed)
