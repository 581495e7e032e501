"""A page of a report: its content, and its rendering as HTML and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from equigen.report.frames import json_table, json_value
from equigen.report.images import ClosePairs, Grid
from equigen.report.layout import Section, Sentence

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


@dataclass(frozen=True)
class Page:
    """One page: findings as sentences, then sections; ``phantom`` adds the note that no patients are concerned."""

    title: str
    facts: Mapping[str, str]
    sentences: Sequence[Sentence]
    sections: Sequence[Section]
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    phantom: bool = False

    @property
    def software(self) -> str:
        """Name and version of the software that made the page."""
        return software(self.versions)

    def topics(self) -> dict[str, list[Sentence]]:
        """The sentences by topic, in order."""
        topics: dict[str, list[Sentence]] = {}
        for sentence in self.sentences:
            topics.setdefault(sentence.topic, []).append(sentence)
        return topics

    def html(self) -> str:
        """The page as HTML: everything but SVG is escaped, and no external resources are loaded."""
        environment = Environment(
            loader=PackageLoader("equigen.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True, keep_trailing_newline=True,
        )  # fmt: skip
        style = (Path(__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
        return environment.get_template("page.html").render(
            content=self, phantom=PHANTOM if self.phantom else "", topics=self.topics(), sections=self.sections,
            style=Markup(style),
        )  # fmt: skip

    def data(self) -> dict[str, Any]:
        """Summary and provenance of the page as JSON-like data, without its tables."""
        return {**summary_data(self), **provenance_data(self)}


def software(versions: Mapping[str, str]) -> str:
    """Name and version of this package: from ``versions``, else of the installed package."""
    if "equigen" in versions:
        return f"equigen {versions['equigen']}"
    try:
        return f"equigen {version('equigen')}"
    except PackageNotFoundError:
        return "equigen (version unknown: not installed as a package)"
