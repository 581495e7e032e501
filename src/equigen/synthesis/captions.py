"""Captions for a plan of a cohort whose prompts are a column: those of images with the same conditions."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence

import pandas as pd

from equigen.cohort import optional_text
from equigen.errors import InputError, Problem
from equigen.seeds import numpy_generator

Cell = tuple[str | None, ...]


def cell_keys(frame: pd.DataFrame) -> list[Cell]:
    """Rows as tuples in which every missing value is None."""
    if len(frame.columns) == 0:  # itertuples yields no rows
        return [()] * len(frame)
    return [tuple(None if pd.isna(value) else str(value) for value in row) for row in frame.itertuples(index=False)]


def deal_captions(source: pd.DataFrame, conditions: pd.DataFrame, seed: int) -> list[str | None]:
    """A caption for each row [N] of ``conditions``; None where no image with these conditions has one.

    ``conditions``: labels and attributes; ``source``: the same columns and ``prompt``. A caption is of an image with
    the same labels and attributes, unknown ones included. Those of one cell are used cyclically in an order that
    depends on (seed, cell), so their numbers of uses differ by at most one.
    """
    texts: dict[Cell, list[str]] = defaultdict(list)
    for cell, value in zip(cell_keys(source[list(conditions.columns)]), source["prompt"], strict=True):
        text = optional_text(value)
        if text is not None:
            texts[cell].append(text)
    captions: dict[Cell, list[str]] = {}
    for cell, unordered in texts.items():
        ordered = sorted(unordered)  # independent of the order of the source
        rng = numpy_generator(seed, f"captions/{json.dumps(cell, ensure_ascii=False)}")
        captions[cell] = [ordered[index] for index in rng.permutation(len(ordered))]
    counts: dict[Cell, int] = defaultdict(int)
    prompts: list[str | None] = []
    for cell in cell_keys(conditions):
        choices = captions.get(cell, [])
        prompts.append(choices[counts[cell] % len(choices)] if choices else None)
        counts[cell] += 1
    return prompts


def check_captions(conditions: pd.DataFrame, prompts: Sequence[str | None]) -> None:
    """Raise InputError that names each cell of ``conditions`` without a caption."""
    lacking = list(dict.fromkeys(
        cell for cell, prompt in zip(cell_keys(conditions), prompts, strict=True) if prompt is None
    ))  # fmt: skip
    mend = "use the policy match, or prompts by a template, which can be written for any cell"
    problems = []
    for cell in lacking:
        levels = ", ".join(
            f"{column} unknown" if value is None else f"{column} = {value or 'no finding'}"
            for column, value in zip(conditions.columns, cell, strict=True)
        )
        problems.append(Problem(f"no training image with {levels} has a caption", mend))
    if problems:
        raise InputError("No plan can be made: prompts are a column of the table.", problems)
