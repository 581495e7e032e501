"""One self-contained HTML page, the same content as JSON, and the two cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from equigen import files
from equigen.report.cards import dataset_card, model_card
from equigen.report.content import PHANTOM, Content
from equigen.report.frames import counts_frame, fairness_frame, history_frame, quality_frame
from equigen.report.images import Grid
from equigen.report.layout import Section
from equigen.report.results import diagnosis_section, oracle_section, quality_section
from equigen.report.sections import (
    counts_section,
    images_section,
    reading_section,
    settings_section,
    training_section,
)
from equigen.report.words_fairness import fairness_sentences
from equigen.report.words_quality import quality_sentences


def write_report(
    folder: str | Path,
    *,
    title: str,
    summary_facts: Mapping[str, str],
    counts: pd.DataFrame | None,
    quality: pd.DataFrame | None,
    fairness: pd.DataFrame | None,
    history: Mapping[str, pd.DataFrame] | None = None,
    grids: Sequence[Grid] = (),
    settings: Mapping[str, Any] | None = None,
    phantom: bool = False,
    warnings: Sequence[str] = (),
    timings: Mapping[str, float] | None = None,
    versions: Mapping[str, str] | None = None,
) -> Path:
    """Write ``index.html``, ``report.json``, ``model_card.md`` and ``dataset_card.md`` into ``folder``.

    Tables are those of the contract (optional columns may be missing; None or empty means: not evaluated):
    ``counts`` (label, level, attribute, group, split, images, patients, small), ``quality``, ``fairness`` and
    one ``history`` per generator (images_seen, kind, attribute, group, value). ``summary_facts`` stand under
    the title, ``timings`` are in seconds. ``phantom`` marks every output. The same arguments give the same
    bytes.

    Returns:
        The path of ``index.html``.

    Raises:
        InputError: when a table lacks a column that it must have; nothing is written then.

    """
    tables = {"counts": counts_frame(counts), "quality": quality_frame(quality)}
    tables["fairness"] = fairness_frame(fairness)
    content = Content(
        title=title, phantom=phantom, software=_software(versions or {}), facts=dict(summary_facts),
        warnings=list(warnings), settings=settings or {}, timings=timings or {}, versions=versions or {},
        **tables, history={name: history_frame(frame) for name, frame in (history or {}).items()},
        grids=list(grids), given={"counts": counts, "quality": quality, "fairness": fairness},
        sentences=quality_sentences(tables["quality"]) + fairness_sentences(tables["fairness"]),
    )  # fmt: skip
    html, data, cards = _html(content), content.data(), (model_card(content), dataset_card(content))
    out = Path(folder)
    files.write_json(out / "report.json", data)
    files.write_text(out / "model_card.md", cards[0])
    files.write_text(out / "dataset_card.md", cards[1])
    files.write_text(out / "index.html", html)
    return out / "index.html"


def report(
    quality: pd.DataFrame | None = None,
    fairness: pd.DataFrame | None = None,
    *,
    path: str | Path,
    title: str = "equigen report",
    summary_facts: Mapping[str, str] | None = None,
    counts: pd.DataFrame | None = None,
    **rest: Any,
) -> Path:
    """Write a report on a quality and a fairness table into ``path``; see ``write_report`` for the rest."""
    facts = summary_facts or {}
    return write_report(
        path, title=title, summary_facts=facts, counts=counts, quality=quality, fairness=fairness, **rest
    )


def _html(content: Content) -> str:
    environment = Environment(
        loader=PackageLoader("equigen.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    style = (Path(__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        content=content,
        phantom=PHANTOM if content.phantom else "",
        topics=content.topics(),
        sections=_sections(content),
        style=Markup(style),
    )


def _sections(content: Content) -> list[Section]:
    """The page from top to bottom."""
    oracle = oracle_section(content.quality)
    return [
        counts_section(content.counts),
        images_section(content.grids),
        training_section(content.history),
        quality_section(content.quality),
        *([oracle] if oracle else []),
        diagnosis_section(content.fairness),
        reading_section(content.quality, content.fairness),
        settings_section(content.settings, content.versions, content.timings),
    ]


def _software(versions: Mapping[str, str]) -> str:
    if "equigen" in versions:
        return f"equigen {versions['equigen']}"
    try:
        return f"equigen {version('equigen')}"
    except PackageNotFoundError:
        return "equigen (version unknown: not installed as a package)"
