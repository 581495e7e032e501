"""Standardisation of groups to a common case mix: rows weighted so that each stratum has its share over all groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Mix:
    """The column of the predictions whose strata groups are weighted by ("truth", or a trait), and its levels."""

    name: str
    column: str
    levels: list[str]

    def note(self, table: pd.DataFrame) -> str:
        """What the note of each row of a group says; rows of an unknown stratum are counted."""
        unknown = int((self.strata(table) < 0).sum())
        left = f", {unknown} rows of unknown {self.name} without weight" if unknown else ""
        return f"standardised to the shares of {self.name} over all groups{left}"

    def strata(self, table: pd.DataFrame) -> Codes:
        """Stratum of each row, [N]; -1 unknown."""
        values = table[self.column].astype(object)
        texts = pd.Index([None if pd.isna(value) else str(value) for value in values], dtype=object)
        return np.asarray(pd.Index(self.levels, dtype=object).get_indexer(texts), dtype=np.int64)

    def target(self, table: pd.DataFrame, known: NDArray[np.bool_]) -> Floats:
        """Share of each stratum over the rows of all groups, [S]."""
        codes = self.strata(table)[known]
        counts = np.bincount(codes[codes >= 0], minlength=len(self.levels)).astype(np.float64)
        shares: Floats = counts / max(1.0, counts.sum())
        return shares

    def of(self, table: pd.DataFrame, inside: NDArray[np.bool_], target: Floats) -> tuple[Codes, Floats]:
        """Strata of one group's rows, and the target."""
        return self.strata(table)[inside], target


def standardised(weights: Floats, strata: Codes, target: Floats) -> Floats:
    """Weights [N, R] times target share / own share of each row's stratum, in each column.

    Direct standardisation: each group is measured as if its strata had the shares of the whole. Rows of an unknown
    stratum get no weight. A column in which a stratum of the target has no weight is NaN throughout: the group
    cannot stand for cases it has not got. The total weight of a column is that of its known strata.

    >>> standardised(np.ones((3, 1)), np.array([0, 0, 1]), np.array([0.5, 0.5])).round(2).ravel().tolist()
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
