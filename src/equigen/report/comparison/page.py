"""Writing the page of a comparison: verdict, planes, differences, tables, convergence and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from equigen import files
from equigen.errors import InputError, Problem
from equigen.report.comparison.convergence import CHANGE_COLUMNS, convergence_sentences, curve_section
from equigen.report.comparison.findings import comparison_sentences
from equigen.report.comparison.notes import calibration_section, reading_section
from equigen.report.comparison.sections import (
    difference_section,
    plane_section,
    seeds_section,
    table_section,
)
from equigen.report.comparison.view import RECONSTRUCTION_COLUMNS, autoencoder_sentences, comparison_views
from equigen.report.frames import json_table, json_value
from equigen.report.render import Page
from equigen.report.study.sections import settings_section

SEED_COLUMNS = ["setting", "mechanism", "seed", "plan", "guidance", "metric", "attribute", "figure", "estimate"]
CURVE_COLUMNS = ["images_seen", "seed", "figure", "estimate"]


class ComparisonTables(Protocol):
    """The two tables of ``equigen.quality.Comparison``."""

    @property
    def seeds(self) -> pd.DataFrame:
        """A row for each image set and quantity."""

    @property
    def summary(self) -> pd.DataFrame:
        """A row for each mechanism, plan, guidance and quantity, over seeds."""


@dataclass(frozen=True)
class CalibrationSummary:
    """The guidance and gain of one calibrated generator, as a page shows them.

    ``name`` is that of the generator ("none, seed 0"). ``guidance`` is the content of ``calibration.json``, of which
    ``attribute``, ``groups`` (guidance of each), ``common``, ``default`` and ``objective`` are shown. ``gain`` is the
    table ``gain.parquet``, None where the gain was not measured.
    """

    name: str
    guidance: Mapping[str, Any]
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
    calibrations: Sequence[CalibrationSummary] = (),
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
        facts: shown under the title.
        curve: quality over training: ``images_seen, seed, figure, estimate`` and, where there are several,
            ``attribute`` and ``setting``; of the comparison's first metric. Groups are not drawn.
        curve_change: over the seeds, the change from each of its points to the end of training:
            ``setting, images_seen, end, attribute, figure, seeds, estimate, estimate_end, change, change_low,
            change_high``. The verdict on convergence follows from it.
        reconstruction: held-out images through the autoencoder and back, against themselves, of each setting:
            ``setting, metric, attribute, figure, estimate, ci_low, ci_high, null_gap, note``. Where perfect training
            of the diffusion model would lead, shown beside the mechanisms.
        calibrations: guidance and gain of each calibrated generator.
        settings: of the whole comparison, shown as they are.
        versions: of the software.
        timings: seconds by stage.
        phantom: mark everything as being about an artificial image model.
        warnings: sentences for the section of warnings.
        reference: name of the mechanism that the others are compared with.

    Returns:
        The path of ``index.html``. The same arguments give the same bytes.

    Raises:
        InputError: a table lacks a column; nothing is written then.

    """
    views = comparison_views(comparison.summary, reconstruction)
    for name, frame, columns in (
        ("seeds", comparison.seeds, SEED_COLUMNS), ("curve", curve, CURVE_COLUMNS),
        ("curve_change", curve_change, CHANGE_COLUMNS), ("reconstruction", reconstruction, RECONSTRUCTION_COLUMNS),
    ):  # fmt: skip
        problems = [Problem("column is missing", f"give the {name} table with it", column=column)
                    for column in columns if frame is not None and column not in frame.columns]  # fmt: skip
        if problems:
            raise InputError("The comparison cannot be reported.", problems)
    metric = views[0].metric.name if views else "kd"
    sections = [
        plane_section(views), difference_section(views, reference), table_section(views, reference),
        calibration_section(calibrations, metric), curve_section(curve, curve_change, metric, reconstruction),
        seeds_section(comparison.seeds), reading_section(comparison.summary, reference),
        settings_section(settings or {}, versions or {}, timings or {}),
    ]  # fmt: skip
    findings = [
        *comparison_sentences(comparison.summary, reference),
        *convergence_sentences(curve_change, metric),
        *autoencoder_sentences(views, reference),
    ]
    page = Page(title, facts, findings, sections, settings or {}, versions or {}, timings or {}, warnings, phantom)
    html = page.html()
    tables = {
        "summary": comparison.summary,
        "seeds": comparison.seeds,
        "curve": curve,
        "curve_change": curve_change,
        "reconstruction": reconstruction,
    }
    guidances = [{"name": calibration.name, "chosen": json_value(calibration.guidance),
                  "gain": json_table(calibration.gain)} for calibration in calibrations]  # fmt: skip
    data = {**page.data(), **{name: json_table(table) for name, table in tables.items()}, "calibrations": guidances}
    files.write_json(Path(folder) / "report.json", data)
    files.write_text(Path(folder) / "index.html", html)
    return Path(folder) / "index.html"
