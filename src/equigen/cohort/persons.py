"""Contradictions in what a cohort says of one person, and files that are the same byte for byte."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations

import pandas as pd

from equigen.cohort.levels import AttributeSpec
from equigen.errors import Problem

EXAMPLES = 3  # named in a message
APART = 1     # groups of an attribute of ordered numbers that one person may move by: years pass


def contradictions(
    frame: pd.DataFrame, attributes: Mapping[str, AttributeSpec], ordered: Iterable[str] = ()
) -> list[Problem]:
    """A problem to tell for each attribute, and for the site, that differs within one patient.

    Of the ``ordered`` attributes (numbers cut into bins, such as an age) only groups more than one apart count.
    Unknown values contradict nothing.
    """
    loose = set(ordered)
    found = []
    for name, spec in attributes.items():
        ranks = {level: rank for rank, level in enumerate(spec.levels)} if name in loose else None
        found += _differing(frame, f"attr.{name}", f"different {name}", ranks)
    return found + _differing(frame, "site", "different sites", None)


def _differing(frame: pd.DataFrame, column: str, what: str, ranks: dict[str, int] | None) -> list[Problem]:
    known = frame[frame["patient"].notna() & frame[column].notna()]
    values = known.groupby("patient", sort=True)[column].agg(lambda cells: list(dict.fromkeys(cells)))
    bad = values[values.map(lambda cells: _contradict(cells, ranks))]
    if bad.empty:
        return []
    shown = ", ".join(f"'{patient}' ({' and '.join(cells)})" for patient, cells in bad.iloc[:EXAMPLES].items())
    more = f" and {len(bad) - EXAMPLES} more" if len(bad) > EXAMPLES else ""
    people = "1 patient has" if len(bad) == 1 else f"{len(bad)} patients have"
    mend = "check whether one id stands for several people, or a cell is wrong; each row counts in the group it names"
    return [Problem(f"{people} {what}: {shown}{more}", mend)]


def _contradict(cells: list[str], ranks: dict[str, int] | None) -> bool:
    if ranks is None:
        return len(cells) > 1
    return any(abs(ranks[one] - ranks[two]) > APART for one, two in combinations(cells, 2))


def same_files(one: pd.DataFrame, two: pd.DataFrame) -> pd.DataFrame:
    """Rows of ``one`` whose file is byte for byte one of ``two``'s, with that one's ``image`` as ``same_as``.

    Both have ``image`` (or ``path``) and ``sha256``; empty hashes are no file.
    """
    names = {sha256: image for sha256, image in zip(two["sha256"], _names(two), strict=True) if sha256}
    mask = one["sha256"].map(lambda sha256: bool(sha256) and sha256 in names).astype(bool)
    found = one[mask]
    return found.assign(same_as=[names[sha256] for sha256 in found["sha256"]])


def _names(frame: pd.DataFrame) -> pd.Series:
    return frame["image" if "image" in frame.columns else "path"]


def same_files_note(one: pd.DataFrame, two: pd.DataFrame, what: str, whose: str) -> str:
    """How many files of ``one`` are byte for byte files of ``two``, with three examples; "" where none is.

    ``what`` and ``whose`` name the two: "generated images", "real images".
    """
    found = same_files(one, two)
    if found.empty:
        return ""
    pairs = list(zip(_names(found), found["same_as"], strict=True))[:EXAMPLES]
    shown = ", ".join(f"'{name}' is '{other}'" for name, other in pairs)
    more = f" and {len(found) - EXAMPLES} more" if len(found) > EXAMPLES else ""
    return f"{len(found)} of {len(one)} {what} are byte for byte {whose}: {shown}{more}"
