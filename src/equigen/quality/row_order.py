"""Order of rows by their content, so that no result depends on the order of a table."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from equigen.quality.features import Features
from equigen.quality.measurement import EncodedImages

REQUEST_COLUMNS = {"patient", "seed", "prompt"}


def sort_by_content(images: EncodedImages, name: str | None = None) -> EncodedImages:
    """The images in the order of their requests, patients, groups and features.

    Every random draw is one of positions, so the order decides which images a seed draws. Rows that are equal in
    all of this are interchangeable. The table keeps its index, the original position of each row.

    Args:
        images: rows in any order.
        name: of the set, where an image without a patient is named after its position (``ImageSet.patients``): it is
            then named after its position in the new order. None leaves all names as they are.

    """
    patients = np.asarray(images.patients).astype(str)
    if name is not None:
        nameless = np.ones(len(patients), dtype=bool)
        if "patient" in images.frame:
            nameless = images.frame["patient"].isna().to_numpy(dtype=bool)
        patients = np.where(nameless, "", patients)
    groups = [images.groups[attribute] for attribute in sorted(images.groups)]
    codes = np.stack(groups, axis=1) if groups else np.zeros((len(patients), 0), dtype=np.int64)
    requests = request_table(images.frame).to_numpy(dtype=object) if len(images.frame) == len(patients) else None
    digests = [
        hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=16).digest() for row in images.features.values
    ]
    keys = [
        (tuple(requests[row]) if requests is not None else (), patients[row], tuple(codes[row].tolist()), digests[row])
        for row in range(len(patients))
    ]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
    patients = patients[order]
    if name is not None:
        positions = np.array([f"{name} image {position:09d}" for position in range(len(patients))], dtype=str)
        patients = np.where(nameless[order], positions, patients)
    elif np.array_equal(order, np.arange(len(order))):
        return images
    features, thumbnails = images.features, images.thumbnails
    probabilities = None if features.probabilities is None else features.probabilities[order]
    return EncodedImages(
        patients,
        {key: codes[order] for key, codes in images.groups.items()},
        Features(features.values[order], probabilities),
        images.frame.iloc[order],
        None if thumbnails is None else thumbnails[order],
    )


def request_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Request of each row as text: its patient, seed, prompt, attributes and labels."""
    columns = sorted(
        (
            column
            for column in frame.columns
            if str(column) in REQUEST_COLUMNS or str(column).startswith(("attr.", "label."))
        ),
        key=str,
    )
    if not columns:
        return pd.DataFrame(index=np.arange(len(frame)))
    strings = frame[columns].astype(object).where(frame[columns].notna(), None)
    return strings.map(str).reset_index(drop=True)
