"""Contradictions in what a cohort says of one person, and files that are the same byte for byte."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations

import pandas as pd

from equigen.cohort.levels import AttributeSpec
from equigen.errors import Problem

EXAMPLES = 3  # named in a message
APART = 1     # groups of an attribute of ordered numbers that one person may move by: years pass
SPAN = 20.0   # years between two images of one person: more is a mistaken id rather than a follow-up
OLDEST = 130.0  # years; numbers cut into bins above this are no ages


def contradictions(
    frame: pd.DataFrame, attributes: Mapping[str, AttributeSpec], ordered: Iterable[str] = (),
    ages: Mapping[str, pd.Series] | None = None,
) -> list[Problem]:
    """A problem to tell for each attribute, and for the site, that differs within one patient.

    Of the ``ordered`` attributes (numbers cut into bins, such as an age) only groups more than one apart count.
    Unknown values contradict nothing. ``ages``: for attributes made from an age in years, the ages [N] of the frame's
    rows, NaN where unknown; those of one patient that span more than ``SPAN`` years are told, where the groups have not
    told it already.
    """
    loose = set(ordered)
    found = []
    for name, spec in attributes.items():
        ranks = {level: rank for rank, level in enumerate(spec.levels)} if name in loose else None
        found += _differing(frame, f"attr.{name}", f"different {name}", ranks)
        if ages is not None and name in ages:
            found += _spanning(frame.assign(age=ages[name]), name, ranks)
    return found + _differing(frame, "site", "different sites", None)


def _differing(frame: pd.DataFrame, column: str, what: str, ranks: dict[str, int] | None) -> list[Problem]:
    known = frame[frame["patient"].notna() & frame[column].notna()]
    values = known.groupby("patient", sort=True)[column].agg(lambda cells: list(dict.fromkeys(cells)))
    bad = values[values.map(lambda cells: _contradict(cells, ranks))]
    return _told({str(patient): " and ".join(cells) for patient, cells in bad.items()}, what)


def _spanning(frame: pd.DataFrame, name: str, ranks: dict[str, int] | None) -> list[Problem]:
    """Patients whose ages span more than ``SPAN`` years, without those of contradicting groups."""
    known = frame[frame["patient"].notna() & frame["age"].notna()]
    people = known.groupby("patient", sort=True)
    span = people["age"].agg(["min", "max"])
    cells = people[f"attr.{name}"].agg(lambda values: list(dict.fromkeys(values.dropna())))
    bad = span[(span["max"] - span["min"] > SPAN) & ~cells.map(lambda groups: _contradict(groups, ranks)).astype(bool)]
    ranges = {str(patient): f"{row['min']:g} to {row['max']:g}" for patient, row in bad.iterrows()}
    return _told(ranges, f"values of {name} more than {SPAN:g} years apart")


def _told(values: Mapping[str, str], what: str) -> list[Problem]:
    """A problem that counts patients and names the first with their values; none without patients."""
    if not values:
        return []
    bad = list(values.items())
    shown = ", ".join(f"'{patient}' ({cells})" for patient, cells in bad[:EXAMPLES])
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
