"""Whom a generator was trained on, as digests beside it, and the refusal of a cohort that holds these people out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from equigen.cohort.cohort import Cohort
from equigen.cohort.manifest import Manifest
from equigen.errors import InputError, Problem
from equigen.files import read_parquet, write_parquet

FILE = "trained_on.parquet"
COLUMNS = ["kind", "salt", "digest"]
_HELD_OUT = {"val", "test"}


def digest(salt: str, value: str) -> str:
    """The first 16 hex digits of SHA-256 over salt and value, so that neither ids nor hashes stand in clear."""
    return hashlib.sha256(f"{salt}/{value}".encode()).hexdigest()[:16]


def write_trained_on(folder: Path, cohort: Cohort | Manifest, salt: str, origin: str | Path | None = None) -> Path:
    """Write ``trained_on.parquet``: a digest of each training patient and image; returns the file.

    Patients count by the cohort's name and their id, so that equal ids of two data sets are two people; images by their
    bytes. ``salt``: of this training; ``origin``: the generator that training went on from, whose digests are kept too.
    """
    part = cohort.split("train", domain="id")
    found = {("patient", digest(salt, _person(cohort.name, patient))) for patient in _cells(part, "patient")}
    found |= {("image", digest(salt, sha256)) for sha256 in _cells(part, "sha256") if sha256}
    table = pd.DataFrame([(kind, salt, value) for kind, value in sorted(found)], columns=COLUMNS)
    write_parquet(folder / FILE, pd.concat([table, read_trained_on(origin)], ignore_index=True))
    return folder / FILE


def _cells(part: Cohort | Manifest, column: str) -> Iterator[str]:
    if isinstance(part, Cohort):
        yield from part.frame[column]
        return
    for batch in part._batches([column]):
        yield from batch.column(column).to_pylist()


def _person(name: str, patient: str) -> str:
    return f"{name}/{patient}"


def read_trained_on(place: str | Path | None) -> pd.DataFrame:
    """Digests (kind, salt, digest) beside a generator, a snapshot of one or a set made by it; empty where none are."""
    if place is not None:
        here = Path(place).absolute()
        for folder in [here, *([here.parent.parent] if here.parent.name == "snapshots" else [])]:
            if (folder / FILE).is_file():
                return read_parquet(folder / FILE, COLUMNS)
    return pd.DataFrame([], columns=COLUMNS, dtype=object)


def carry_trained_on(generator: str | Path, made: str | Path) -> None:
    """Keep a generator's digests beside the images that it made."""
    table = read_trained_on(generator)
    if len(table):
        write_parquet(Path(made) / FILE, table)


def check_unseen(real: Cohort | pd.DataFrame, sets: Iterable[tuple[str, str | Path]], what: str) -> None:
    """Raise InputError where held-out patients are among those that a generator was trained on, and say how many.

    A patient is when an image's bytes are a training image's, or when the id and the cohort's name are; a phantom's ids
    say nothing, nor do those of a table that is no cohort. Rows of the training split do not count.

    Args:
        real: the real images that are measured against.
        sets: (name, folder) of each generator or set made by one.
        what: of the error's title: what cannot be done.

    """
    frame = real if isinstance(real, pd.DataFrame) else real.frame
    held_out = frame[frame["split"].isin(_HELD_OUT)] if "split" in frame.columns else frame
    owner = "patient" if "patient" in frame.columns else None
    name = real.name if isinstance(real, Cohort) and not real.phantom and real.spec.patient is not None else None
    problems = []
    for label, folder in sets:
        rows = _known(held_out, read_trained_on(folder), owner, name)
        if rows.any():
            many = held_out.loc[rows, owner].nunique() if owner else int(rows.sum())
            total = held_out[owner].nunique() if owner else len(held_out)
            message = f"{label} was trained on {many} of the {total} held-out {'patients' if owner else 'images'}"
            mend = "train it again on this cohort's training split, or measure on the cohort that it was trained on"
            problems.append(Problem(message, mend, file=str(folder)))
    if problems:
        raise InputError(f"{what}: the generator has seen these patients.", problems)


def _known(frame: pd.DataFrame, table: pd.DataFrame, owner: str | None, name: str | None) -> pd.Series:
    """[N] rows whose image, or whose patient of the cohort ``name``, is in a table of digests."""
    known = pd.Series(False, index=frame.index)
    for salt, part in table.groupby("salt"):
        digests = {kind: set(own["digest"]) for kind, own in part.groupby("kind")}
        if "sha256" in frame.columns:
            known |= _among(frame["sha256"], str(salt), "", digests.get("image", set()))
        if owner is not None and name is not None:
            known |= _among(frame[owner], str(salt), _person(name, ""), digests.get("patient", set()))
    return known


def _among(cells: Sequence[str | None] | pd.Series, salt: str, start: str, digests: set[str]) -> pd.Series:
    return pd.Series(cells).map(lambda cell: bool(cell) and digest(salt, f"{start}{cell}") in digests).astype(bool)
