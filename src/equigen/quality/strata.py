"""Comparison within diagnoses: groups that have them in different shares are compared where they have the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.cohort import suggestion
from equigen.errors import InputError, Problem
from equigen.quality.image_sets import ImageSet
from equigen.quality.judge.questions import JOIN
from equigen.quality.rows import join_notes

LabelFilter: TypeAlias = Mapping[str, Sequence[str]]  # label -> levels of which images are kept


def filter_by_labels(sides: Mapping[str, ImageSet], only: LabelFilter) -> dict[str, ImageSet]:
    """Of every side the images that have one of the named levels in each label; of several findings, one suffices.

    Groups differ in their diagnoses, and diagnoses in how well they are drawn, so a gap between groups may be one
    between diagnoses. Within one diagnosis that cause is away. An image whose label is unknown is left out.

    Args:
        sides: the real images, named "real", and those held against them.
        only: label to levels; empty keeps all. The remark of the real side says what was kept.

    Raises:
        InputError: a label that a side lacks, a level that no real image has, no level named, no image left.

    """
    problems = [problem for side, images in sides.items() for problem in _lacking(images, only, side)]
    real = sides["real"].frame
    problems = problems or label_filter_problems({name: _levels(real[f"label.{name}"]) for name in only}, only)
    kept = {} if problems else {side: _kept(images, only) for side, images in sides.items()}
    mend = "name other levels, or generate images that have it"
    problems += [Problem(f"{side}: no image has {describe_label_filter(only)}", mend)
                 for side, images in kept.items() if not len(images)]
    if problems:
        raise InputError("The comparison cannot be kept within these diagnoses.", problems)
    if len(kept["real"]) == len(real):
        return kept
    words = f"only {describe_label_filter(only)}: {len(kept['real']):,} of {len(real):,} real images"
    return {**kept, "real": replace(kept["real"], remark=join_notes(kept["real"].remark, words))}


def label_filter_problems(
    known: LabelFilter, only: LabelFilter, key: str = "", source: str | None = None
) -> list[Problem]:
    """Labels and levels that are not known, each with the nearest that is. ``key``: what to write before them."""
    problems = []
    for name, levels in only.items():
        if name not in known:
            problems.append(Problem(f"{key}'{name}' is no label", suggestion(name, known), file=source))
        elif not levels:
            mend = f"name one or more of {', '.join(known[name])}"
            problems.append(Problem(f"{key}no level of '{name}' is named", mend, file=source))
        else:
            problems += [Problem(f"{key}'{level}' is no level of '{name}'", suggestion(level, known[name]), file=source)
                         for level in levels if level not in known[name]]
    return problems


def label_mask(frame: pd.DataFrame, only: LabelFilter) -> NDArray[np.bool_]:
    """[N] which rows have one of the levels in each label."""
    kept = np.ones(len(frame), dtype=bool)
    for name, levels in only.items():
        cells = frame[f"label.{name}"]
        kept &= [pd.notna(cell) and not set(levels).isdisjoint(str(cell).split(JOIN)) for cell in cells]
    return kept


def describe_label_filter(only: LabelFilter) -> str:
    """In words: ``dx nv or mel, stage 1``."""
    return ", ".join(f"{name} {' or '.join(levels)}" for name, levels in only.items())


def _lacking(images: ImageSet, only: LabelFilter, side: str) -> list[Problem]:
    return [Problem(f"the images of {side} have no label '{name}'", suggestion(name, images.labels),
                    column=f"label.{name}") for name in only if name not in images.labels]


def _kept(images: ImageSet, only: LabelFilter) -> ImageSet:
    return images.take(np.flatnonzero(label_mask(images.frame, only))) if only else images


def _levels(cells: pd.Series) -> list[str]:
    return sorted({level for cell in cells.dropna().unique() for level in str(cell).split(JOIN) if level})
