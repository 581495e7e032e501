"""Bootstrap, permutation and splitting by patient: all rows of a patient stay together."""

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

    Raises InputError where a patient is missing, since rows without one could be in both halves of a split.
    """
    names = np.asarray(patients)
    absent = np.asarray(pd.isna(names), dtype=bool)
    if bool(np.any(absent)):
        first = int(np.flatnonzero(absent)[0])
        problem = Problem(
            f"{int(np.sum(absent))} rows have no patient, the first at index {first}",
            "give each row a patient, or its own image's name",
            column="patient",
        )
        raise InputError("Resampling by patient needs a patient in every row.", [problem])
    names = names.astype(str) if names.dtype == object else names
    codes: Rows = np.unique(names, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return codes


def patient_bootstrap(patients: NDArray[Any], replicates: int, rng: np.random.Generator) -> Iterator[Rows]:
    """Yield row indices of cluster-bootstrap replicates: patients are drawn with replacement, with all of their rows.

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
        sample = rng.integers(0, len(counts), len(counts))
        lengths = counts[sample]
        ends = np.cumsum(lengths)
        offsets = np.arange(int(ends[-1])) - np.repeat(ends - lengths, lengths)
        yield order[np.repeat(starts[sample], lengths) + offsets]


def permute_groups(groups: Rows, patients: NDArray[Any], rng: np.random.Generator) -> Rows:
    """Permute group labels between patients, under the hypothesis that they are exchangeable.

    The groups of patients whose labelled rows are all of one group are permuted between these patients, for all of
    their labelled rows: the number of *patients* of each group stays, the number of rows may not. For a patient with
    rows of several groups (an age that crosses the edge of a bin, a view) the labels are permuted among the patient's
    labelled rows. Unknown labels (-1) stay where they are.

    Args:
        groups: [N] index of the group, -1 unknown.
        patients: [N] patient of each row.
        rng: source of the permutation.

    Returns:
        [N] permuted groups.

    """
    codes, result = patient_codes(patients), np.array(groups, dtype=np.int64)
    labelled = np.flatnonzero(result >= 0)
    if len(labelled) == 0:
        return result
    size = int(codes.max()) + 1
    low, high = np.full(size, np.iinfo(np.int64).max), np.full(size, -1, dtype=np.int64)
    np.minimum.at(low, codes[labelled], result[labelled])
    np.maximum.at(high, codes[labelled], result[labelled])
    pure = np.flatnonzero(low == high)
    permuted = high.copy()
    permuted[pure] = high[rng.permutation(pure)]
    mixed_rows = labelled[low[codes[labelled]] != high[codes[labelled]]]
    pure_rows = labelled[low[codes[labelled]] == high[codes[labelled]]]
    result[pure_rows] = permuted[codes[pure_rows]]
    patients_of_rows, values = codes[mixed_rows], result[mixed_rows]
    shuffled = np.empty_like(values)  # within each patient
    shuffled[np.argsort(patients_of_rows, kind="stable")] = values[
        np.lexsort((rng.random(len(patients_of_rows)), patients_of_rows))
    ]
    result[mixed_rows] = shuffled
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
    mask = first[codes]
    return np.flatnonzero(mask).astype(np.int64), np.flatnonzero(~mask).astype(np.int64)
