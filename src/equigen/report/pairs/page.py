"""Writing the page of counterfactual pairs: images side by side, distances, readings of a classifier and flips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen import files
from equigen.errors import InputError, Problem
from equigen.report.frames import json_table
from equigen.report.pairs.findings import pairs_sentences
from equigen.report.pairs.sections import (
    changes_section,
    flips_section,
    pairs_section,
    readings_section,
    terms_section,
)
from equigen.report.render import Page
from equigen.report.study.sections import settings_section

METRIC_COLUMNS = [
    "metric", "field", "attribute", "group", "n", "estimate", "ci_low", "ci_high", "reference_to", "reference",
    "reference_low", "reference_high", "ratio", "ratio_low", "ratio_high", "note",
]  # fmt: skip
IMAGE_COLUMNS = ["pair", "level", "prompt", "pixel_difference", "feature_distance"]


class PairResults(Protocol):
    """Images and metrics of counterfactual pairs, such as ``equigen.synthesis.PairComparison``."""

    @property
    def attribute(self) -> str:
        """The attribute that is changed."""

    @property
    def levels(self) -> list[str]:
        """The levels of the attribute, in the order of a pair's images."""

    @property
    def metrics(self) -> pd.DataFrame:
        """``pair_measures.parquet``."""

    @property
    def image_table(self) -> pd.DataFrame:
        """``pairs.parquet``: one row an image, pair by pair, in each the levels in order."""

    @property
    def warnings(self) -> list[str]:
        """Sentences for the section of warnings."""

    @property
    def methods(self) -> list[str]:
        """Encoder and classifier of the metrics."""

    def images(self, count: int) -> NDArray[np.uint8]:
        """[K, L, H, W, 3] uint8 of the first ``count`` pairs, or of all there are."""


def write_pairs_page(
    folder: str | Path,
    pairs: PairResults,
    *,
    title: str,
    facts: Mapping[str, str] | None = None,
    max_pairs: int = 24,
    settings: Mapping[str, Any] | None = None,
    versions: Mapping[str, str] | None = None,
    timings: Mapping[str, float] | None = None,
    phantom: bool = False,
    warnings: Sequence[str] = (),
) -> Path:
    """Write ``index.html``, understood without any manual, and ``report.json`` with the same content into ``folder``.

    Args:
        folder: where both files go.
        pairs: the result of ``compare_pairs``.
        title: of the page.
        facts: shown under the title, after attribute, number of pairs and methods.
        max_pairs: number of pairs whose images are shown, the first ones.
        settings: shown as they are.
        versions: of the software.
        timings: seconds by stage.
        phantom: mark everything as being about an artificial image model.
        warnings: sentences for the section of warnings, after those of the pairs.

    Returns:
        The path of ``index.html``. The same arguments give the same bytes.

    Raises:
        InputError: a table lacks a column, or images and table differ in number; nothing is written then.

    """
    images, count, table = pairs.images(max_pairs), len(pairs.levels), pairs.image_table
    problems = [
        Problem("column is missing", f"give the {name} table with it", column=column)
        for name, frame, columns in (("measured", pairs.metrics, METRIC_COLUMNS), ("pairs", table, IMAGE_COLUMNS))
        for column in columns if column not in frame.columns
    ]  # fmt: skip
    fits = images.dtype == np.uint8 and images.ndim == 5 and images.shape[1] == count and images.shape[-1] == 3
    if not fits or len(images) * count > len(table) or len(table) % count:
        message = f"images are {images.dtype} {list(images.shape)}, the table has {len(table)} rows"
        problems.append(Problem(message, f"give uint8 [K, {count}, H, W, 3], and {count} rows for each pair"))
    if problems:
        raise InputError("These pairs cannot be shown.", problems)
    summary = {
        "Changed": f"{pairs.attribute}: {', '.join(pairs.levels)}", "Pairs": f"{len(table) // count:,}",
        "Measured with": "; ".join(pairs.methods),
    }  # fmt: skip
    sections = [
        pairs_section(images, table.head(len(images) * count), pairs.levels, pairs.attribute),
        changes_section(pairs.metrics), readings_section(pairs.metrics), flips_section(pairs.metrics),
        terms_section(pairs.metrics), settings_section(settings or {}, versions or {}, timings or {}),
    ]  # fmt: skip
    findings = pairs_sentences(pairs.metrics, pairs.attribute)
    page = Page(title, {**summary, **(facts or {})}, findings, sections, settings or {}, versions or {}, timings or {},
                [*pairs.warnings, *warnings], phantom)  # fmt: skip
    html = page.html()
    shape = {"attribute": pairs.attribute, "levels": list(pairs.levels), "shown": list(images.shape)}
    data = {**page.data(), **shape, "measured": json_table(pairs.metrics), "pairs": json_table(table)}
    files.write_json(Path(folder) / "report.json", data)
    files.write_text(Path(folder) / "index.html", html)
    return Path(folder) / "index.html"
