"""Digests of the patients a generator was trained on, and the check that held-out patients are not among them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from equigen.cohort.cohort import Cohort
from equigen.cohort.manifest import Manifest
from equigen.errors import InputError, Problem
from equigen.parquet import read_parquet, write_parquet

FILE = "trained_on.parquet"
COLUMNS = ["kind", "salt", "digest"]
_HELD_OUT = {"val", "test"}


def digest(salt: str, value: str) -> str:
    """Return the first 16 hex digits of SHA-256 over salt and value, so that no id or hash is stored in clear."""
    return hashlib.sha256(f"{salt}/{value}".encode()).hexdigest()[:16]


def write_trained_on(folder: Path, cohort: Cohort | Manifest, salt: str, origin: str | Path | None = None) -> Path:
    """Write ``trained_on.parquet``: a digest of each training patient and image; returns the file.

    A patient is identified by the cohort's name and the id, so that equal ids of two data sets are two patients; an
    image by its bytes. ``salt``: of this training; ``origin``: the base generator, whose digests are copied too.
    """
    train = cohort.split("train", domain="id")
    digests = {("patient", digest(salt, f"{cohort.name}/{patient}")) for patient in _cells(train, "patient")}
    digests |= {("image", digest(salt, sha256)) for sha256 in _cells(train, "sha256") if sha256}
    table = pd.DataFrame([(kind, salt, value) for kind, value in sorted(digests)], columns=COLUMNS)
    write_parquet(folder / FILE, pd.concat([table, read_trained_on(origin)], ignore_index=True))
    return folder / FILE


def _cells(subset: Cohort | Manifest, column: str) -> Iterator[str]:
    if isinstance(subset, Cohort):
        yield from subset.frame[column]
        return
    for batch in subset._batches([column]):
        yield from batch.column(column).to_pylist()


def read_trained_on(path: str | Path | None) -> pd.DataFrame:
    """Read the digests (kind, salt, digest) of a generator, a snapshot or a generated set; empty if there are none."""
    if path is not None:
        folder_path = Path(path).absolute()
        for folder in [folder_path, *([folder_path.parent.parent] if folder_path.parent.name == "snapshots" else [])]:
            if (folder / FILE).is_file():
                return read_parquet(folder / FILE, COLUMNS)
    return pd.DataFrame([], columns=COLUMNS, dtype=object)


def carry_trained_on(generator: str | Path, folder: str | Path) -> None:
    """Copy a generator's digests to the folder of its images."""
    table = read_trained_on(generator)
    if len(table):
        write_parquet(Path(folder) / FILE, table)


def check_unseen(real: Cohort | pd.DataFrame, sets: Iterable[tuple[str, str | Path]], action: str) -> None:
    """Raise InputError if held-out patients are among those that a generator was trained on, with their number.

    Patients match by the bytes of an image, or by the id and the cohort's name; ids of phantoms, and of a table that is
    no cohort, are not compared. Rows of the training split do not count.

    Args:
        real: the real images of the measurement.
        sets: (name, folder) of each generator or set made by one.
        action: what cannot be done, for the title of the error.

    """
    frame = real if isinstance(real, pd.DataFrame) else real.frame
    held_out = frame[frame["split"].isin(_HELD_OUT)] if "split" in frame.columns else frame
    owner = "patient" if "patient" in frame.columns else None
    name = real.name if isinstance(real, Cohort) and not real.phantom and real.spec.patient is not None else None
    problems = []
    for label, folder in sets:
        rows = pd.Series(False, index=held_out.index)
        for salt, table in read_trained_on(folder).groupby("salt"):
            digests = {kind: set(subset["digest"]) for kind, subset in table.groupby("kind")}
            if "sha256" in held_out.columns:
                rows |= _digest_mask(held_out["sha256"], str(salt), "", digests.get("image", set()))
            if owner is not None and name is not None:
                rows |= _digest_mask(held_out[owner], str(salt), f"{name}/", digests.get("patient", set()))
        if rows.any():
            count = held_out.loc[rows, owner].nunique() if owner else int(rows.sum())
            total = held_out[owner].nunique() if owner else len(held_out)
            message = f"{label} was trained on {count} of the {total} held-out {'patients' if owner else 'images'}"
            mend = "train it again on this cohort's training split, or measure on the cohort that it was trained on"
            problems.append(Problem(message, mend, file=str(folder)))
    if problems:
        raise InputError(f"{action}: the generator has seen these patients.", problems)


def _digest_mask(cells: pd.Series, salt: str, prefix: str, digests: set[str]) -> pd.Series:
    """Return [N] whether the digest of a cell, after ``prefix``, is one of ``digests``."""
    return pd.Series(cells).map(lambda cell: bool(cell) and digest(salt, f"{prefix}{cell}") in digests).astype(bool)
