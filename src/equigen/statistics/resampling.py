"""Resampling in which a patient's rows are never torn apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.errors import InputError, Problem

Rows = NDArray[np.int64]


def patient_codes(patients: NDArray[Any]) -> Rows:
    """Number the patients 0 .. P-1 in sorted order of their names, one code per row.

    Raises InputError where a patient is missing: rows of nobody could land on both sides of a split.
    """
    names = np.asarray(patients)
    absent = np.asarray(pd.isna(names), dtype=bool)
    if bool(np.any(absent)):
        first = int(np.flatnonzero(absent)[0])
        problem = Problem(f"{int(np.sum(absent))} rows have no patient, the first at index {first}",
                          "give each row a patient, or its own image's name", column="patient")
        raise InputError("Resampling by patient needs a patient in every row.", [problem])
    names = names.astype(str) if names.dtype == object else names
    codes: Rows = np.unique(names, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return codes


def _rows_of(chosen: Rows, order: Rows, starts: Rows, counts: Rows) -> Rows:
    """Rows of the chosen patients, in their order; a patient chosen twice gives its rows twice."""
    lengths = counts[chosen]
    ends = np.cumsum(lengths)
    offsets = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    rows: Rows = order[np.repeat(starts[chosen], lengths) + offsets]
    return rows


def patient_bootstrap(patients: NDArray[Any], replicates: int, rng: np.random.Generator) -> Iterator[Rows]:
    """Yield row indices of cluster-bootstrap replicates: patients drawn with replacement, all rows kept.

    A replicate draws as many patients as there are.

    Source: Field and Welsh, J. R. Stat. Soc. B 69, 2007 (cluster bootstrap).

    Args:
        patients: [N] patient of each row, any sortable names.
        replicates: how many replicates to yield.
        rng: source of the draws.

    Yields:
        Row indices; their number differs between replicates when patients have different numbers of rows.

    Raises:
        InputError: there is no row, or a row without a patient.

    """
    codes = patient_codes(patients)
    if len(codes) == 0:
        problem = Problem("no rows", "check the filter that made this group")
        raise InputError("There is no row to resample.", [problem])
    order = np.argsort(codes, kind="stable").astype(np.int64)
    counts = np.bincount(codes).astype(np.int64)
    starts = np.cumsum(counts) - counts
    for _ in range(replicates):
        yield _rows_of(rng.integers(0, len(counts), len(counts)), order, starts, counts)


def permute_groups(groups: Rows, patients: NDArray[Any], rng: np.random.Generator) -> Rows:
    """Shuffle group labels under the hypothesis that they mean nothing, each patient's rows moved whole.

    A patient whose known rows are all of one group hands that group to another such patient, which then holds
    it in all of its known rows: the number of *patients* of each group stays, the number of rows may not.
    A patient whose rows are of several groups (age that passes a bin's edge, a view) has its own labels
    shuffled among its own known rows. Unknown (-1) stays unknown, in its own rows.

    Args:
        groups: [N] index of the group, -1 unknown.
        patients: [N] patient of each row.
        rng: source of the permutation.

    Returns:
        [N] permuted groups.

    """
    codes, result = patient_codes(patients), np.array(groups, dtype=np.int64)
    known = np.flatnonzero(result >= 0)
    if len(known) == 0:
        return result
    size = int(codes.max()) + 1
    low, high = np.full(size, np.iinfo(np.int64).max), np.full(size, -1, dtype=np.int64)
    np.minimum.at(low, codes[known], result[known])
    np.maximum.at(high, codes[known], result[known])
    whole = np.flatnonzero(low == high)
    handed = high.copy()
    handed[whole] = high[rng.permutation(whole)]
    mixed = known[low[codes[known]] != high[codes[known]]]
    plain = known[low[codes[known]] == high[codes[known]]]
    result[plain] = handed[codes[plain]]
    result[mixed] = _shuffle_within(result[mixed], codes[mixed], rng)
    return result


def _shuffle_within(values: Rows, codes: Rows, rng: np.random.Generator) -> Rows:
    """Shuffle values among the rows that share a code."""
    result = np.empty_like(values)
    result[np.argsort(codes, kind="stable")] = values[np.lexsort((rng.random(len(codes)), codes))]
    return result


def subsample(n_rows: int, n: int, rng: np.random.Generator) -> Rows:
    """Draw n of ``n_rows`` row indices without replacement.

    Raises InputError when n is more than there are, or negative.
    """
    if not 0 <= n <= n_rows:
        problem = Problem(f"{n} rows asked for, {n_rows} are there", "ask for fewer")
        raise InputError("A subsample cannot be larger than the sample.", [problem])
    return rng.choice(n_rows, size=n, replace=False).astype(np.int64)


def split_halves(patients: NDArray[Any], rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Split rows at random into two halves that share no patient, of as many patients each (one more in the first).

    Returns:
        Row indices of the first and of the second half, each sorted. With one patient one half is empty.

    """
    codes = patient_codes(patients)
    count = int(codes.max()) + 1 if len(codes) else 0
    first = np.zeros(count, dtype=bool)
    first[rng.permutation(count)[: -(-count // 2)]] = True
    inside = first[codes]
    return np.flatnonzero(inside).astype(np.int64), np.flatnonzero(~inside).astype(np.int64)
