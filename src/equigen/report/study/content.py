"""All that a report holds, checked once: the page, the JSON and the cards are three views of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from equigen.report.frames import json_table, json_value
from equigen.report.images import ClosePairs, Grid
from equigen.report.layout import Sentence

FORMAT = 1
PHANTOM = "Numbers about an artificial image model, not about patients."


_JSON_NAMES = {"differences": "comparison"}  # a table is named in the JSON as its file is


@dataclass(frozen=True)
class Content:
    """What is reported; tables are completed ones.

    ``inputs`` holds the tables as they came (None for one that was not given), for the JSON.
    """

    title: str
    phantom: bool
    software: str
    facts: dict[str, str]
    warnings: list[str]
    settings: Mapping[str, Any]
    timings: Mapping[str, float]
    versions: Mapping[str, str]
    counts: pd.DataFrame
    quality: pd.DataFrame
    fairness: pd.DataFrame
    differences: pd.DataFrame
    copies: pd.DataFrame
    copy_power: pd.DataFrame
    history: dict[str, pd.DataFrame]
    grids: list[Grid]
    pairs: list[ClosePairs]
    sentences: list[Sentence]
    inputs: dict[str, pd.DataFrame | None]
    screening: dict[str, pd.DataFrame] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """The report as JSON-like data: tables as they came, unknown values as None."""
        return {
            **summary_data(self),
            **{_JSON_NAMES.get(name, name): json_table(frame) for name, frame in self.inputs.items()},
            "screening": {name: json_table(frame) for name, frame in self.screening.items()},
            "history": {name: json_table(frame) for name, frame in self.history.items()},
            "grids": [_grid(grid) for grid in self.grids],
            "pairs": [_pairs(pairs) for pairs in self.pairs],
            "pages": self.pages,
            **provenance_data(self),
        }


def summary_data(page: Any) -> dict[str, Any]:
    """What the JSON of a page (``Content``, ``Page``) begins with: what it is, and what it found in words."""
    return {
        "format": FORMAT,
        "software": page.software,
        "title": page.title,
        "phantom": page.phantom,
        "note": PHANTOM if page.phantom else None,
        "facts": json_value(page.facts),
        "in_short": [vars(sentence) | {"parts": list(sentence.parts)} for sentence in page.sentences],
        "warnings": json_value(page.warnings),
    }


def provenance_data(page: Any) -> dict[str, Any]:
    """The end of a page's JSON: settings, stage times in seconds and software versions."""
    return {name: json_value(getattr(page, name)) for name in ("settings", "timings", "versions")}


def _grid(grid: Grid) -> dict[str, Any]:
    """A grid without its pixels, which are in the page."""
    shape = list(next(iter(grid.sources().values())).shape)
    words = {"title": grid.title, "caption": grid.caption, "rows": list(grid.rows)}
    return words | {"sources": list(grid.sources()), "shape": shape}


def _pairs(pairs: ClosePairs) -> dict[str, Any]:
    """Closest pairs without their pixels."""
    words = {"run": pairs.run, "captions": list(pairs.captions), "threshold": json_value(pairs.threshold)}
    return words | {"shape": list(pairs.generated.shape)}
