"""The report of a study: one self-contained HTML page, the same content as JSON, and the two cards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

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
from equigen.report.render import Content, Page, software
from equigen.report.study.cards import dataset_card, model_card
from equigen.report.study.diagnosis import diagnosis_section, fairness_sentences
from equigen.report.study.differences import difference_sentences, differences_section
from equigen.report.study.memorisation import memorisation_section, memorisation_sentences, power_sentences
from equigen.report.study.privacy import hide_names, privacy_notices, remove_real_images
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

    Tables may lack optional columns; None or an empty table means: not evaluated.

    * ``counts``: label, level, attribute, group, split, images, patients, small
    * ``quality`` and ``fairness``: as their Parquet files
    * ``history``, one for each generator: images_seen, kind, attribute, group, value
    * ``differences``, paired differences between sets of generated images: run, difference_to, encoder, metric,
      attribute, group, estimate, reference, difference, ci_low, ci_high, p_value, note
    * ``copies_table``, the pairs whose images ``copies`` holds: run, rank, generated, training, distance, ratio,
      near_copy, view, attr.*
    * ``copy_power``, the share of planted copies that the copy check finds: change, attribute, group, n, share,
      ci_low, ci_high, false_alarm, note
    * ``screening``: the screening.parquet of each set that was screened, by its name

    ``pages`` maps the text of a link to the address of another page of the report, relative to it. ``summary_facts``
    stand under the title, ``timings`` are in seconds. ``blind`` leaves out real images and file names; ``names`` shows
    file names (True), leaves them out (False), or leaves them out where they could be names of persons (None).
    ``phantom`` marks every output. The same arguments give the same bytes.

    Returns:
        The path of ``index.html``.

    Raises:
        InputError: when a table lacks a column that it must have; nothing is written then.

    """
    copies_table, hidden = hide_names(copies_table, blind, names)
    if blind:
        grids, copies = remove_real_images(grids, copies)
    has_names = copies_table is not None and not copies_table.empty and not hidden
    notices = privacy_notices(grids, copies, has_names, blind=blind, phantom=phantom, hidden=hidden)
    inputs = {
        "counts": counts, "quality": quality, "fairness": fairness, "differences": differences, "copies": copies_table,
        "copy_power": copy_power,
    }  # fmt: skip
    tables = {name: _FRAMES[name](frame) for name, frame in inputs.items()}
    screening = dict(screening or {})
    check_screening(screening)
    sentences = [
        *screening_sentences(screening),
        *quality_sentences(tables["quality"]),
        *memorisation_sentences(tables["quality"]),
        *power_sentences(tables["copy_power"]),
        *semantic_sentences(tables["quality"]),
        *difference_sentences(tables["differences"]),
        *fairness_sentences(tables["fairness"]),
    ]
    content = Content(
        title=title, phantom=phantom, software=software(versions or {}), facts=dict(summary_facts),
        warnings=[*warnings, *notices], settings=settings or {}, timings=timings or {}, versions=versions or {},
        **tables, history={name: history_frame(frame) for name, frame in (history or {}).items()}, grids=list(grids),
        pairs=list(copies), inputs=inputs, screening=screening, pages=dict(pages or {}), sentences=sentences,
    )  # fmt: skip
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
    page = Page(
        content.title, content.facts, content.sentences, [section for section in sections if section is not None],
        versions=content.versions, warnings=content.warnings, phantom=phantom,
    )  # fmt: skip
    html, data, cards = page.html(), content.data(), (model_card(content), dataset_card(content))
    out = Path(folder)
    files.write_json(out / "report.json", data)
    files.write_text(out / "model_card.md", cards[0])
    files.write_text(out / "dataset_card.md", cards[1])
    files.write_text(out / "index.html", html)
    return out / "index.html"


class Result(Protocol):
    """A result that holds its rows in ``table``, such as those of ``evaluate`` and ``audit``."""

    @property
    def table(self) -> pd.DataFrame:
        """Rows of the Parquet file."""


def _rows(result: pd.DataFrame | Result | None) -> pd.DataFrame | None:
    return result if result is None or isinstance(result, pd.DataFrame) else result.table


def report(
    quality: pd.DataFrame | Result | None = None,
    fairness: pd.DataFrame | Result | None = None,
    *,
    path: str | Path,
    title: str = "equigen report",
    summary_facts: Mapping[str, str] | None = None,
    counts: pd.DataFrame | None = None,
    differences: pd.DataFrame | None = None,
    **options: Any,
) -> Path:
    """Write a report on results of ``evaluate`` and ``audit``, or their tables, into ``path``.

    Paired ``differences`` are those of ``quality`` where none are given. The rest is as in ``write_report``.
    """
    facts = summary_facts or {}
    if differences is None:
        differences = getattr(quality, "differences", None) if not isinstance(quality, pd.DataFrame) else None
    return write_report(
        path, title=title, summary_facts=facts, counts=counts, quality=_rows(quality), fairness=_rows(fairness),
        differences=differences, **options,
    )  # fmt: skip


_FRAMES: dict[str, Callable[[pd.DataFrame | None], pd.DataFrame]] = {
    "counts": counts_frame,
    "quality": quality_frame,
    "fairness": fairness_frame,
    "differences": differences_frame,
    "copies": copies_frame,
    "copy_power": power_frame,
}
