"""Direct standardisation of groups to a common case mix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class CaseMix:
    """The strata of standardisation: a column of the predictions ("truth", or a trait) and its levels."""

    name: str
    column: str
    levels: list[str]

    def note(self, table: pd.DataFrame) -> str:
        """Note of each row of a group, with the number of rows of unknown stratum."""
        unknown = int((self.strata(table) < 0).sum())
        unweighted = f", {unknown} rows of unknown {self.name} without weight" if unknown else ""
        return f"standardised to the shares of {self.name} over all groups{unweighted}"

    def strata(self, table: pd.DataFrame) -> Codes:
        """Stratum of each row, [N]; -1 unknown."""
        values = table[self.column].astype(object)
        texts = pd.Index([None if pd.isna(value) else str(value) for value in values], dtype=object)
        return np.asarray(pd.Index(self.levels, dtype=object).get_indexer(texts), dtype=np.int64)

    def target(self, table: pd.DataFrame, mask: NDArray[np.bool_]) -> Floats:
        """Share of each stratum over the rows of ``mask``, those of all groups, [S]."""
        codes = self.strata(table)[mask]
        counts = np.bincount(codes[codes >= 0], minlength=len(self.levels)).astype(np.float64)
        shares: Floats = counts / max(1.0, counts.sum())
        return shares


def standardise_weights(weights: Floats, strata: Codes, target: Floats) -> Floats:
    """Weights [N, R] multiplied by target share / observed share of each row's stratum, in each column.

    Direct standardisation: the strata of a group then have the target shares. Rows of an unknown stratum have weight 0.
    A column in which a stratum of the target has no weight is NaN, since the group has no such cases. The total weight
    of a column is that of its known strata.

    >>> standardise_weights(np.ones((3, 1)), np.array([0, 0, 1]), np.array([0.5, 0.5])).round(2).ravel().tolist()
    [0.75, 0.75, 1.5]

    """
    member = (strata[:, None] == np.arange(len(target))).astype(np.float64)
    sums = member.T @ weights
    total = sums.sum(axis=0)
    factor = np.divide(target[:, None] * total, sums, out=np.zeros_like(sums), where=sums > 0)
    factor[:, ((sums <= 0) & (target[:, None] > 0)).any(axis=0)] = np.nan
    scaled: Floats = np.where(strata[:, None] < 0, 0.0, (member @ np.nan_to_num(factor)) * weights)
    scaled[:, np.isnan(factor).any(axis=0)] = np.nan
    return scaled
