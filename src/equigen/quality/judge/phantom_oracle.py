"""Semantic correctness of phantoms in every group: the share of images that show the requested levels."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.errors import InputError, Problem
from equigen.progress import progress_bar
from equigen.quality.cells import GroupedImages, ResamplingSettings, make_cells
from equigen.quality.estimates import MeasurementPlan, measure_mean
from equigen.quality.image_sets import ImageSet, group_codes
from equigen.quality.judge.semantic_metrics import judge_agreement, measure_semantic
from equigen.quality.resamples import make_draws
from equigen.quality.rows import quality_table

__all__ = ["Oracle", "judge_agreement", "measure_semantic", "oracle_correctness"]

Array = NDArray[np.float64]
BLOCK = 512
NOTE = "phantom: judged by the oracle, which knows how the images are made"


class Oracle(Protocol):
    """A classifier that uses the known rendering of phantoms (``equigen.cohort.phantom.Oracle``)."""

    def judge(self, images: NDArray[np.uint8]) -> pd.DataFrame:
        """Return the level names of uint8 [N, H, W, 3] images, a column per label or attribute, None undetected."""


def oracle_correctness(
    images: NDArray[np.uint8],
    requested: pd.DataFrame,
    oracle: Oracle,
    *,
    run: str = "generated",
    levels: dict[str, list[str]] | None = None,
    replicates: int = 500,
    seed: int = 0,
    min_patients: int = 30,
    show: bool = True,
) -> pd.DataFrame:
    """Return the share of images that show the requested levels, overall and by group, as rows of quality.parquet.

    * ``oracle_found``: the oracle detects the disc, so that it can predict a level;
    * ``oracle_accuracy``: the measured label is the requested one; an image in which nothing is detected counts
      as wrong; only images whose request is known count;
    * ``oracle_attribute_accuracy``: likewise for the attributes that the oracle measures (race, by
      pigmentation).

    Called on real held-out images with their own table (``run="real"``) it gives the ceiling. Intervals are
    bootstraps by patient where the table has ``patient``, else by image; gaps carry a permutation null band
    and Holm-adjusted p-values.

    Args:
        images: uint8 [N, H, W, 3].
        requested: [N] rows, ``label.*`` and ``attr.*`` (level names, None unknown), optionally ``patient``.
        oracle: its ``judge`` returns the columns to compare.
        run: name written in the table.
        levels: order of each attribute's groups; sorted by default.
        replicates: bootstrap replicates, and permutations.
        seed: of the resampling.
        min_patients: groups with fewer patients (or images, where there are no patients) get no number.
        show: show a progress bar.

    Raises:
        InputError: images and rows differ in number, or the oracle predicts no requested label.

    """
    if len(images) != len(requested) or len(images) == 0:
        problem = Problem(f"{len(images)} images, {len(requested)} rows", "give one row per image")
        raise InputError("The oracle needs a request for each image.", [problem])
    settings = ResamplingSettings(
        repeats=1, replicates=replicates, seed=seed, min_patients=min_patients, limit=len(images)
    )
    settings.check()
    table = ImageSet(requested.reset_index(drop=True), levels=levels or {})
    order = {
        name: table.levels.get(name) or sorted(table.frame[f"attr.{name}"].dropna().astype(str).unique())
        for name in table.attributes
    }
    blocks = []
    with progress_bar("Judging images", len(images), show=show) as bar:
        for start in range(0, len(images), BLOCK):
            blocks.append(oracle.judge(images[start : start + BLOCK]))
            bar.advance(min(BLOCK, len(images) - start))
    frames = []
    for metric, score in _scores(table.frame, pd.concat(blocks, ignore_index=True)).items():
        subset = table.take(np.flatnonzero(np.isfinite(score)))
        groups = {name: group_codes(subset.frame, name, order[name]) for name in order}
        rows = GroupedImages(subset.patients(run), groups)
        cells = make_cells(rows, rows, order, settings)
        with progress_bar("Shares", len(cells), show=False) as bar:
            plan = MeasurementPlan(cells, make_draws(rows, rows, cells, settings), 0, settings, bar)
            # a mean is its own first-order expansion, so bootstrap and null band are exact
            share = measure_mean(metric, "share", score[np.isfinite(score)], None, plan, NOTE)
        frames.append(quality_table([share], cells, run, "oracle", None))
    result = pd.concat(frames, ignore_index=True)
    unused = "n_generated" if run == "real" else "n_real"
    result[unused] = pd.array([pd.NA] * len(result), dtype="Int64")
    if "patient" not in requested.columns:
        result["note"] = result["note"].str.replace(" patients", " images")
    return result


def _scores(requested: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, Array]:
    """Return the score of each image for each metric: 1 right, 0 wrong, NaN where the request is unknown."""
    kinds = {"label": "oracle_accuracy", "attr": "oracle_attribute_accuracy"}
    scores: dict[str, Array] = {}
    for kind, metric in kinds.items():
        names = [str(name) for name in predictions.columns if f"{kind}.{name}" in requested.columns]
        if not names:
            continue
        columns = []
        for name in names:
            target, level = requested[f"{kind}.{name}"], predictions[name]
            equal = target.astype(str).to_numpy() == level.astype(str).to_numpy()
            right = (equal & level.notna().to_numpy(dtype=bool)).astype(np.float64)
            columns.append(np.where(target.notna().to_numpy(dtype=bool), right, np.nan))
        scores[metric] = np.mean(columns, axis=0)
        if kind == "label":
            detected: Array = np.asarray(predictions[names].notna().all(axis=1), dtype=np.float64)
            scores = {"oracle_found": detected, **scores}
    if "oracle_found" not in scores:
        problem = Problem(
            f"it judges {', '.join(map(str, predictions.columns))}",
            "ask for a label of that name in the column label.<name>",
        )
        raise InputError("The oracle judges no label that was asked for.", [problem])
    return scores
