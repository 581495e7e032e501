"""The content of a report: page, JSON and cards are made from it."""

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
    """Everything that a report holds; tables have all of their columns.

    ``inputs`` holds the tables as they were passed (None for one that was not), for the JSON.
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
        """The report as JSON-like data: tables as they were passed, unknown values as None; images without pixels."""
        return {
            **summary_data(self),
            **{_JSON_NAMES.get(name, name): json_table(frame) for name, frame in self.inputs.items()},
            "screening": {name: json_table(frame) for name, frame in self.screening.items()},
            "history": {name: json_table(frame) for name, frame in self.history.items()},
            "grids": [
                {"title": grid.title, "caption": grid.caption, "rows": list(grid.rows), "sources": list(grid.sources()),
                 "shape": list(next(iter(grid.sources().values())).shape)} for grid in self.grids
            ],
            "pairs": [
                {"run": pairs.run, "captions": list(pairs.captions), "threshold": json_value(pairs.threshold),
                 "shape": list(pairs.generated.shape)} for pairs in self.pairs
            ],
            "pages": self.pages,
            **provenance_data(self),
        }  # fmt: skip


def summary_data(page: Any) -> dict[str, Any]:
    """The head of the JSON of a page (``Content`` or ``Page``): title, facts, sentences and warnings."""
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
