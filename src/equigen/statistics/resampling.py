"""Bootstrap, permutation and splitting by patient: all rows of a patient stay together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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


def patient_draws(size: int, replicates: int, rng: np.random.Generator) -> Iterator[Rows]:
    """Yield the patients of each replicate of the cluster bootstrap: ``size`` codes 0 .. size-1, with replacement.

    Source: Field and Welsh, J. R. Stat. Soc. B 69, 2007. All bootstraps of this package draw by this function.
    """
    for _ in range(replicates):
        yield rng.integers(0, size, size) if size else np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Multiplicities:
    """Number of times [R, P] that each bootstrap replicate draws each patient, and [N] the patient of each row."""

    counts: NDArray[np.uint16]
    patients: Rows

    def row_weights(self, rows: Rows) -> NDArray[np.float64]:
        """[R, n] multiplicities of these rows."""
        return np.asarray(self.counts[:, self.patients[rows]], dtype=np.float64)


def draw_multiplicities(patients: Rows, replicates: int, rng: np.random.Generator) -> Multiplicities:
    """Draw replicates of the cluster bootstrap (``patient_draws``) for patient codes [N] as counts of each patient."""
    size = int(patients.max()) + 1 if len(patients) else 0
    counts = np.zeros((replicates, size), dtype=np.uint16)
    for row, sample in zip(counts, patient_draws(size, replicates, rng), strict=True):
        row[:] = np.bincount(sample, minlength=size)
    return Multiplicities(counts, patients)


def patient_bootstrap(patients: NDArray[Any], replicates: int, rng: np.random.Generator) -> Iterator[Rows]:
    """Yield row indices of replicates of the cluster bootstrap (``patient_draws``): patients with all of their rows.

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
    for sample in patient_draws(len(counts), replicates, rng):
        lengths = counts[sample]
        ends = np.cumsum(lengths)
        offsets = np.arange(int(ends[-1])) - np.repeat(ends - lengths, lengths)
        yield order[np.repeat(starts[sample], lengths) + offsets]


def group_permutations(
    groups: Rows, patients: NDArray[Any], replicates: int, rng: np.random.Generator
) -> Iterator[Rows]:
    """Yield group labels permuted between patients, under the hypothesis that patients are exchangeable.

    The groups of patients whose labelled rows are all of one group are permuted between these patients, for all of
    their labelled rows: the number of *patients* of each group stays, the number of rows may not. For a patient with
    rows of several groups (an age that crosses the edge of a bin, a view) the labels are permuted among the patient's
    labelled rows. Unknown labels (-1) stay where they are.

    Args:
        groups: [N] index of the group, -1 unknown.
        patients: [N] patient of each row.
        replicates: how many permutations to yield.
        rng: source of the permutations.

    Yields:
        [N] permuted groups.

    """
    codes, original = patient_codes(patients), np.array(groups, dtype=np.int64)
    labelled = np.flatnonzero(original >= 0)
    size = int(codes.max(initial=-1)) + 1
    low, high = np.full(size, np.iinfo(np.int64).max), np.full(size, -1, dtype=np.int64)
    np.minimum.at(low, codes[labelled], original[labelled])
    np.maximum.at(high, codes[labelled], original[labelled])
    pure = np.flatnonzero(low == high)
    is_mixed = low[codes[labelled]] != high[codes[labelled]]
    mixed_rows, pure_rows = labelled[is_mixed], labelled[~is_mixed]
    mixed_patients = codes[mixed_rows]
    slots = np.argsort(mixed_patients, kind="stable")
    for _ in range(replicates):
        permuted, result = high.copy(), original.copy()
        permuted[pure] = high[rng.permutation(pure)]
        result[pure_rows] = permuted[codes[pure_rows]]
        shuffled = np.lexsort((rng.random(len(mixed_rows)), mixed_patients))  # within each patient
        result[mixed_rows[slots]] = original[mixed_rows[shuffled]]
        yield result


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
