"""Captions for a plan: prompts that stand in the table cannot be written anew, so they are taken from images alike."""

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
    if len(frame.columns) == 0:  # itertuples would give no row at all
        return [()] * len(frame)
    return [
        tuple(None if pd.isna(value) else str(value) for value in row)
        for row in frame.itertuples(index=False)
    ]


def deal_captions(source: pd.DataFrame, asked: pd.DataFrame, seed: int) -> list[str | None]:
    """A caption for each row [N] of ``asked``; None where no image alike has one.

    ``asked``: labels and attributes; ``source``: the same columns and ``prompt``. A caption is of an image with the
    same labels and attributes, unknown ones included. Those of one cell are dealt out in an order that (seed, cell)
    decides, and from its start again when all are given: each is used as often as the others, to within one.
    """
    found: dict[Cell, list[str]] = defaultdict(list)
    for cell, value in zip(cell_keys(source[list(asked.columns)]), source["prompt"], strict=True):
        text = optional_text(value)
        if text is not None:
            found[cell].append(text)
    dealt = {cell: _shuffled(texts, cell, seed) for cell, texts in found.items()}
    given: dict[Cell, int] = defaultdict(int)
    made: list[str | None] = []
    for cell in cell_keys(asked):
        own = dealt.get(cell, [])
        made.append(own[given[cell] % len(own)] if own else None)
        given[cell] += 1
    return made


def _shuffled(texts: Sequence[str], cell: Cell, seed: int) -> list[str]:
    """Texts in random order, whatever order they came in."""
    ordered = sorted(texts)
    purpose = f"captions/{json.dumps(cell, ensure_ascii=False)}"
    return [ordered[place] for place in numpy_generator(seed, purpose).permutation(len(ordered))]


def check_captions(asked: pd.DataFrame, prompts: Sequence[str | None]) -> None:
    """InputError that names each cell of ``asked`` for which there is no caption."""
    lacking = list(dict.fromkeys(
        cell for cell, prompt in zip(cell_keys(asked), prompts, strict=True) if prompt is None
    ))  # fmt: skip
    mend = "use the policy match, or prompts by a template, which can be written for any cell"
    problems = [Problem(f"no training image with {_named(asked, cell)} has a caption", mend) for cell in lacking]
    if problems:
        raise InputError("No plan can be made: prompts are a column of the table.", problems)


def _named(asked: pd.DataFrame, cell: Cell) -> str:
    """``label.dx = ill, attr.sex unknown``."""
    return ", ".join(
        f"{column} unknown" if value is None else f"{column} = {value or 'no finding'}"
        for column, value in zip(asked.columns, cell, strict=True)
    )
