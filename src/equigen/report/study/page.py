"""One self-contained HTML page, the same content as JSON, and the two cards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from equigen import files
from equigen.report.frames import (
    copies_frame,
    counts_frame,
    differences_frame,
    fairness_frame,
    history_frame,
    power_frame,
    quality_frame,
)
from equigen.report.images import ClosePairs, Grid
from equigen.report.layout import Section, Sentence
from equigen.report.render import Page, software
from equigen.report.study.cards import dataset_card, model_card
from equigen.report.study.content import Content
from equigen.report.study.diagnosis import diagnosis_section, fairness_sentences
from equigen.report.study.differences import difference_sentences, differences_section
from equigen.report.study.memorisation import memorisation_section, memorisation_sentences, power_sentences
from equigen.report.study.privacy import notices, without_names, without_real_images
from equigen.report.study.quality import quality_section, quality_sentences
from equigen.report.study.screening import check_screening, screening_section, screening_sentences
from equigen.report.study.sections import (
    counts_section,
    images_section,
    pages_section,
    reading_section,
    settings_section,
    training_section,
)
from equigen.report.study.semantic import semantic_section, semantic_sentences


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
    differences: pd.DataFrame | None = None,
    copies: Sequence[ClosePairs] = (),
    copies_table: pd.DataFrame | None = None,
    copy_power: pd.DataFrame | None = None,
    screening: Mapping[str, pd.DataFrame] | None = None,
    pages: Mapping[str, str] | None = None,
    blind: bool = False,
    names: bool | None = None,
) -> Path:
    """Write ``index.html``, ``report.json``, ``model_card.md`` and ``dataset_card.md`` into ``folder``.

    Tables are those of the contract (optional columns may be missing; None or empty means: not evaluated):
    ``counts`` (label, level, attribute, group, split, images, patients, small), ``quality``, ``fairness`` and
    one ``history`` per generator (images_seen, kind, attribute, group, value); ``comparison`` (run,
    difference_to, encoder, metric, attribute, group, estimate, reference, difference, ci_low, ci_high, p_value,
    note) holds paired differences between sets of generated images, and ``copies_table`` (run, rank, generated,
    training, distance, ratio, near_copy, view, attr.*) the pairs whose images ``copies`` shows; ``copy_power``
    (change, attribute, group, n, share, ci_low, ci_high, false_alarm, note) is the share of planted copies that the
    copy check finds; ``screening`` has the screening.parquet of each set that was screened, by its name; ``pages``
    the address of each page that
    belongs to the report, relative to it, by the words of its link. ``summary_facts`` stand under the title,
    ``timings`` are in seconds. ``blind`` leaves out real images and file names; ``names`` shows file names (True),
    leaves them out (False), or leaves them out where they could be names of persons (None). ``phantom`` marks every
    output. The same arguments give the same bytes.

    Returns:
        The path of ``index.html``.

    Raises:
        InputError: when a table lacks a column that it must have; nothing is written then.

    """
    copies_table, hidden = without_names(copies_table, blind, names)
    if blind:
        grids, copies = without_real_images(grids, copies)
    named = copies_table is not None and not copies_table.empty and not hidden
    warnings = [*warnings, *notices(grids, copies, named, blind=blind, phantom=phantom, hidden=hidden)]
    given = {
        "counts": counts, "quality": quality, "fairness": fairness, "differences": differences, "copies": copies_table,
        "copy_power": copy_power,
    }  # fmt: skip
    tables = {name: _FRAMES[name](frame) for name, frame in given.items()}
    screened = dict(screening or {})
    check_screening(screened)
    content = Content(
        title=title, phantom=phantom, software=software(versions or {}), facts=dict(summary_facts),
        warnings=list(warnings), settings=settings or {}, timings=timings or {}, versions=versions or {},
        **tables, history={name: history_frame(frame) for name, frame in (history or {}).items()},
        grids=list(grids), pairs=list(copies), inputs=given, screening=screened, pages=dict(pages or {}),
        sentences=_sentences(tables, screened),
    )  # fmt: skip
    page = Page(
        content.title, content.facts, content.sentences, _sections(content), versions=content.versions,
        warnings=content.warnings, phantom=phantom,
    )  # fmt: skip
    html, data, cards = page.html(), content.data(), (model_card(content), dataset_card(content))
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
    differences: pd.DataFrame | None = None,
    **rest: Any,
) -> Path:
    """Write a report on a quality and a fairness table into ``path``; see ``write_report`` for the rest."""
    facts = summary_facts or {}
    return write_report(
        path, title=title, summary_facts=facts, counts=counts, quality=quality, fairness=fairness,
        differences=differences, **rest,
    )  # fmt: skip


_FRAMES: dict[str, Callable[[pd.DataFrame | None], pd.DataFrame]] = {
    "counts": counts_frame,
    "quality": quality_frame,
    "fairness": fairness_frame,
    "differences": differences_frame,
    "copies": copies_frame,
    "copy_power": power_frame,
}


def _sentences(tables: Mapping[str, pd.DataFrame], screened: Mapping[str, pd.DataFrame]) -> list[Sentence]:
    """What the tables say, topic by topic."""
    quality = tables["quality"]
    return [
        *screening_sentences(screened),
        *quality_sentences(quality),
        *memorisation_sentences(quality),
        *power_sentences(tables["copy_power"]),
        *semantic_sentences(quality),
        *difference_sentences(tables["differences"]),
        *fairness_sentences(tables["fairness"]),
    ]


def _sections(content: Content) -> list[Section]:
    """The page from top to bottom."""
    sections = [
        counts_section(content.counts),
        images_section(content.grids),
        training_section(content.history),
        screening_section(content.screening),
        quality_section(content.quality),
        memorisation_section(content.quality, content.pairs, content.copies, content.copy_power),
        semantic_section(content.quality),
        differences_section(content.differences),
        diagnosis_section(content.fairness),
        pages_section(content.pages),
        reading_section(content.quality, content.fairness, content.differences),
        settings_section(content.settings, content.versions, content.timings),
    ]
    return [section for section in sections if section is not None]
