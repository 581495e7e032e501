"""From sections to one self-contained page, in the layout that all reports share."""

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
    """One page: findings in words first, then its sections; ``phantom`` marks it as being about no patients."""

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
        """Name and version of what made the page."""
        return software(self.versions)

    def topics(self) -> dict[str, list[Sentence]]:
        """The sentences by topic, in order."""
        topics: dict[str, list[Sentence]] = {}
        for sentence in self.sentences:
            topics.setdefault(sentence.topic, []).append(sentence)
        return topics

    def html(self) -> str:
        """The page; everything but drawings is escaped, and nothing is fetched from elsewhere."""
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
        """What the page says of itself as JSON-like data, without its tables."""
        return {**summary_data(self), **provenance_data(self)}


def software(versions: Mapping[str, str]) -> str:
    """Name and version of what makes a page: as its versions say, else as it is installed."""
    if "equigen" in versions:
        return f"equigen {versions['equigen']}"
    try:
        return f"equigen {version('equigen')}"
    except PackageNotFoundError:
        return "equigen (version unknown: not installed as a package)"
