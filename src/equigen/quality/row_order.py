"""Rows in an order that follows from what they hold, so that no figure depends on the order of a table."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from equigen.quality.features import Features
from equigen.quality.measurement import EncodedImages

REQUEST_COLUMNS = {"patient", "seed", "prompt"}


def sort_by_content(side: EncodedImages, name: str | None = None) -> EncodedImages:
    """The side with its rows ordered by what they ask for, their patient, their groups and their features.

    Every random draw is one of positions, so the order decides which images a seed draws. Rows that are the same in
    all of this are interchangeable. The table keeps its index, which says where each row stood.

    Args:
        side: rows in any order.
        name: of the side, where an image without a patient is named after its position (``ImageSet.patients``): it is
            then named after its place in the new order. None leaves all names as they are.

    """
    patients = np.asarray(side.patients).astype(str)
    if name is not None:
        nameless = np.ones(len(patients), dtype=bool)
        if "patient" in side.frame:
            nameless = side.frame["patient"].isna().to_numpy(dtype=bool)
        patients = np.where(nameless, "", patients)
    groups = [side.groups[attribute] for attribute in sorted(side.groups)]
    codes = np.stack(groups, axis=1) if groups else np.zeros((len(patients), 0), dtype=np.int64)
    asked = request_table(side.frame).to_numpy(dtype=object) if len(side.frame) == len(patients) else None
    keys = [(tuple(asked[row]) if asked is not None else (), patients[row], tuple(codes[row].tolist()),
             _digest(side.features, row)) for row in range(len(patients))]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
    features, patients = side.features, patients[order]
    if name is not None:
        places = np.array([f"{name} image {place:09d}" for place in range(len(patients))], dtype=str)
        patients = np.where(nameless[order], places, patients)
    elif np.array_equal(order, np.arange(len(order))):
        return side
    chances = None if features.probabilities is None else features.probabilities[order]
    thumbnails = None if side.thumbnails is None else side.thumbnails[order]
    return EncodedImages(patients, {key: codes[order] for key, codes in side.groups.items()},
                       Features(features.values[order], chances), side.frame.iloc[order], thumbnails)


def request_table(frame: pd.DataFrame) -> pd.DataFrame:
    """What each row of a table asks for, as text: its patient, seed, prompt, attributes and labels."""
    asked = sorted((column for column in frame.columns
                    if str(column) in REQUEST_COLUMNS or str(column).startswith(("attr.", "label."))), key=str)
    if not asked:
        return pd.DataFrame(index=np.arange(len(frame)))
    strings = frame[asked].astype(object).where(frame[asked].notna(), None)
    return strings.map(str).reset_index(drop=True)


def _digest(features: Features, row: int) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(features.values[row]).tobytes(), digest_size=16).digest()
