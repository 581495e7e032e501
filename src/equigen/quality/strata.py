"""Restriction of an evaluation to images with given labels (stratification).

Groups differ in their diagnoses, and generators draw some diagnoses better than others, so a gap between groups may be
one between diagnoses. Within one diagnosis that cause is absent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.errors import InputError, Problem, suggestion
from equigen.quality.image_sets import ImageSet
from equigen.quality.judge.questions import JOIN
from equigen.quality.rows import join_notes

LabelFilter: TypeAlias = Mapping[str, Sequence[str]]  # label -> levels; an image needs one of them in each label


def filter_by_labels(sets: Mapping[str, ImageSet], only: LabelFilter) -> dict[str, ImageSet]:
    """Images of each set that have one of the given levels in each label; of several findings, one suffices.

    An image whose label is unknown is left out.

    Args:
        sets: the real images, named "real", and the sets to compare with them.
        only: label to levels; an empty filter leaves out nothing. The remark of the real set counts the images.

    Raises:
        InputError: a label that a set lacks, a level that no real image has, a label without levels, no image left.

    """
    problems = [
        Problem(
            f"the images of {name} have no label '{label}'", suggestion(label, images.labels), column=f"label.{label}"
        )
        for name, images in sets.items()
        for label in only
        if label not in images.labels
    ]
    real = sets["real"].frame
    if not problems:
        levels = {
            label: sorted(
                {level for cell in real[f"label.{label}"].dropna().unique() for level in str(cell).split(JOIN) if level}
            )
            for label in only
        }
        problems = label_filter_problems(levels, only)
    if problems:
        raise InputError("The comparison cannot be kept within these diagnoses.", problems)
    if not only:
        return dict(sets)
    subsets = {name: images.take(np.flatnonzero(label_mask(images.frame, only))) for name, images in sets.items()}
    mend = "name other levels, or generate images that have it"
    problems = [
        Problem(f"{name}: no image has {describe_label_filter(only)}", mend)
        for name, images in subsets.items()
        if not len(images)
    ]
    if problems:
        raise InputError("The comparison cannot be kept within these diagnoses.", problems)
    if len(subsets["real"]) == len(real):
        return subsets
    remark = f"only {describe_label_filter(only)}: {len(subsets['real']):,} of {len(real):,} real images"
    return {**subsets, "real": replace(subsets["real"], remark=join_notes(subsets["real"].remark, remark))}


def label_filter_problems(
    levels: LabelFilter, only: LabelFilter, key: str = "", source: str | None = None
) -> list[Problem]:
    """Problems of the labels and levels in ``only`` that are not in ``levels``, each with the nearest that is.

    ``key`` is written before each message; ``source`` is the file that holds the filter.
    """
    problems = []
    for name, selection in only.items():
        if name not in levels:
            problems.append(Problem(f"{key}'{name}' is no label", suggestion(name, levels), file=source))
        elif not selection:
            mend = f"name one or more of {', '.join(levels[name])}"
            problems.append(Problem(f"{key}no level of '{name}' is named", mend, file=source))
        else:
            problems += [
                Problem(f"{key}'{level}' is no level of '{name}'", suggestion(level, levels[name]), file=source)
                for level in selection
                if level not in levels[name]
            ]
    return problems


def label_mask(frame: pd.DataFrame, only: LabelFilter) -> NDArray[np.bool_]:
    """[N] whether each row has one of the levels in each label."""
    mask = np.ones(len(frame), dtype=bool)
    for name, levels in only.items():
        cells = frame[f"label.{name}"]
        mask &= [pd.notna(cell) and not set(levels).isdisjoint(str(cell).split(JOIN)) for cell in cells]
    return mask


def describe_label_filter(only: LabelFilter) -> str:
    """Text of a filter: ``dx nv or mel, stage 1``."""
    return ", ".join(f"{name} {' or '.join(levels)}" for name, levels in only.items())
