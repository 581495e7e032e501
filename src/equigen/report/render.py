"""Rendering of sections as one self-contained HTML page, in the layout of all reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from equigen.report.layout import Section, Sentence
from equigen.report.study.content import PHANTOM, provenance_data, summary_data


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
