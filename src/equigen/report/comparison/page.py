"""The page of a comparison between mechanisms: verdict, planes, differences, tables, convergence, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from equigen import files
from equigen.errors import InputError, Problem
from equigen.report.comparison.autoencoder import autoencoder_sentences
from equigen.report.comparison.convergence import CHANGE_COLUMNS, convergence_sentences, curve_section
from equigen.report.comparison.findings import comparison_sentences
from equigen.report.comparison.notes import calibration_section, reading_section
from equigen.report.comparison.sections import (
    difference_section,
    plane_section,
    seeds_section,
    table_section,
)
from equigen.report.comparison.view import ALONE, views
from equigen.report.frames import json_table, json_value
from equigen.report.render import Page
from equigen.report.study.sections import settings_section

SEED_COLUMNS = ["setting", "mechanism", "seed", "plan", "guidance", "metric", "attribute", "figure", "estimate"]


class ComparisonTables(Protocol):
    """The two tables of ``equigen.quality.Comparison``."""

    @property
    def seeds(self) -> pd.DataFrame:
        """A row for each sample and figure."""

    @property
    def summary(self) -> pd.DataFrame:
        """A row for each mechanism, plan, guidance and figure, over seeds."""


@dataclass(frozen=True)
class Calibrated:
    """What a page shows of one calibration.

    ``name`` says of which generator ("none, seed 0"). ``chosen`` is what ``calibration.json`` holds: ``attribute``,
    ``groups`` (guidance of each), ``common``, ``default`` and ``objective`` are shown. ``gain`` is the table
    ``gain.parquet``, None where the gain was not measured.
    """

    name: str
    chosen: Mapping[str, Any]
    gain: pd.DataFrame | None = None


def write_comparison_page(
    folder: str | Path,
    comparison: ComparisonTables,
    *,
    title: str,
    facts: Mapping[str, str],
    curve: pd.DataFrame | None = None,
    curve_change: pd.DataFrame | None = None,
    reconstruction: pd.DataFrame | None = None,
    calibrations: Sequence[Calibrated] = (),
    settings: Mapping[str, Any] | None = None,
    versions: Mapping[str, str] | None = None,
    timings: Mapping[str, float] | None = None,
    phantom: bool = False,
    warnings: Sequence[str] = (),
    reference: str = "none",
) -> Path:
    """Write ``index.html``, understood without any manual, and ``report.json`` with the same content into ``folder``.

    Args:
        folder: where both files go.
        comparison: the tables of ``evaluate_comparison``; values are read from them alone.
        title: of the page.
        facts: what stands under the title.
        curve: quality over training: ``images_seen, seed, figure, estimate`` and, where there are several,
            ``attribute`` and ``setting``; of the comparison's first metric. Groups are not drawn.
        curve_change: over the seeds, what training on from each of its points to the end has changed:
            ``setting, images_seen, end, attribute, figure, seeds, estimate, estimate_end, change, change_low,
            change_high``. Whether training had stopped improving is judged by it.
        reconstruction: held-out images through the autoencoder and back, against themselves, of each setting:
            ``setting, metric, attribute, figure, estimate, ci_low, ci_high, null_gap, note``. Where perfect training
            of the diffusion model would lead, shown beside the mechanisms.
        calibrations: the guidance that was found for each calibrated generator.
        settings: of the whole comparison, shown as they are.
        versions: of the software.
        timings: seconds by stage.
        phantom: mark everything as being about an artificial image model.
        warnings: sentences of their own.
        reference: name of the mechanism that the others are compared with.

    Returns:
        The path of ``index.html``. The same arguments give the same bytes.

    Raises:
        InputError: a table lacks a column; nothing is written then.

    """
    parts = views(comparison.summary, reconstruction)
    _check(comparison.seeds, SEED_COLUMNS, "seeds")
    if curve is not None:
        _check(curve, ["images_seen", "seed", "figure", "estimate"], "curve")
    if curve_change is not None:
        _check(curve_change, CHANGE_COLUMNS, "curve_change")
    if reconstruction is not None:
        _check(reconstruction, ALONE, "reconstruction")
    main = parts[0].words.name if parts else "kd"
    sections = [
        plane_section(parts), difference_section(parts, reference), table_section(parts, reference),
        calibration_section(calibrations, main), curve_section(curve, curve_change, main, reconstruction),
        seeds_section(comparison.seeds), reading_section(comparison.summary, reference),
        settings_section(settings or {}, versions or {}, timings or {}),
    ]  # fmt: skip
    said = [*comparison_sentences(comparison.summary, reference), *convergence_sentences(curve_change, main),
            *autoencoder_sentences(parts, reference)]
    page = Page(title, facts, said, sections, settings or {}, versions or {}, timings or {}, warnings, phantom)
    html = page.html()
    tables = {"summary": comparison.summary, "seeds": comparison.seeds, "curve": curve,
              "curve_change": curve_change, "reconstruction": reconstruction}
    shown = [{"name": own.name, "chosen": json_value(own.chosen), "gain": json_table(own.gain)} for own in calibrations]
    data = {**page.data(), **{name: json_table(table) for name, table in tables.items()}, "calibrations": shown}
    files.write_json(Path(folder) / "report.json", data)
    files.write_text(Path(folder) / "index.html", html)
    return Path(folder) / "index.html"


def _check(frame: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    problems = [Problem("column is missing", f"give the {name} table with it", column=column)
                for column in columns if column not in frame.columns]
    if problems:
        raise InputError("The comparison cannot be reported.", problems)
