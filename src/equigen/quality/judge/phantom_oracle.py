"""Semantic correctness per group for phantoms: the share of images that show what was asked for."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.errors import InputError, Problem
from equigen.progress import progress_bar
from equigen.quality.cells import Cell, GroupedImages, ResamplingSettings, make_cells
from equigen.quality.estimates import MeasurementPlan, MetricResult, measure_mean
from equigen.quality.image_sets import ImageSet, group_codes
from equigen.quality.judge.semantic_metrics import judge_agreement, measure_semantic
from equigen.quality.resamples import make_draws
from equigen.quality.rows import assemble

__all__ = ["Judge", "judge_agreement", "measure_semantic", "oracle_correctness"]

Array = NDArray[np.float64]
BLOCK = 512
NOTE = "phantom: judged by the oracle, which knows how the images are made"


class Judge(Protocol):
    """A judge that knows how phantoms are made (``equigen.cohort.phantom.Oracle``)."""

    def judge(self, images: NDArray[np.uint8]) -> pd.DataFrame:
        """Level names that uint8 [N, H, W, 3] images show, a column per label or attribute, None unseen."""


def oracle_correctness(
    images: NDArray[np.uint8],
    requested: pd.DataFrame,
    oracle: Judge,
    *,
    run: str = "generated",
    levels: dict[str, list[str]] | None = None,
    replicates: int = 500,
    seed: int = 0,
    min_patients: int = 30,
    show: bool = True,
) -> pd.DataFrame:
    """Share of images that show what was asked for, over all and for each group, as rows of quality.parquet.

    * ``oracle_found``: the oracle finds the disc, so that it can judge at all;
    * ``oracle_accuracy``: the measured label is the requested one; an image in which nothing is found counts
      as wrong; only images whose request is known count;
    * ``oracle_attribute_accuracy``: likewise for the attributes that the oracle measures (race, by
      pigmentation).

    Called on real held-out images with their own table (``run="real"``) it gives the ceiling. Intervals are
    bootstraps by patient where the table has ``patient``, else by image; gaps carry a permutation null band
    and Holm-adjusted p-values.

    Args:
        images: uint8 [N, H, W, 3].
        requested: [N] rows, ``label.*`` and ``attr.*`` (level names, None unknown), optionally ``patient``.
        oracle: whose ``judge`` gives the columns that are compared.
        run: name written in the table.
        levels: order of each attribute's groups; sorted where it is not given.
        replicates: bootstrap replicates, and permutations.
        seed: of the resampling.
        min_patients: groups with fewer patients (or images, where there are no patients) get no number.
        show: show a progress bar.

    Raises:
        InputError: images and rows differ in number, or the oracle judges nothing that was asked for.

    """
    if len(images) != len(requested) or len(images) == 0:
        problem = Problem(f"{len(images)} images, {len(requested)} rows", "give one row per image")
        raise InputError("The oracle needs a request for each image.", [problem])
    settings = ResamplingSettings(
        repeats=1, replicates=replicates, seed=seed, min_patients=min_patients, limit=len(images))
    settings.check()
    table = ImageSet(requested.reset_index(drop=True), levels=levels or {})
    order = {name: table.levels.get(name) or sorted(table.frame[f"attr.{name}"].dropna().astype(str).unique())
             for name in table.attributes}
    scores = _scores(table.frame, _judged(images, oracle, show))
    frames = []
    for metric, score in scores.items():
        part = table.take(np.flatnonzero(np.isfinite(score)))
        side = GroupedImages(part.patients(run), {name: group_codes(part.frame, name, order[name]) for name in order})
        measured, cells = _share(metric, score[np.isfinite(score)], side, order, settings)
        frames.append(assemble([measured], cells, run, "oracle", None))
    result = pd.concat(frames, ignore_index=True)
    unused = "n_generated" if run == "real" else "n_real"
    result[unused] = pd.array([pd.NA] * len(result), dtype="Int64")
    if "patient" not in requested.columns:
        result["note"] = result["note"].str.replace(" patients", " images")
    return result


def _judged(images: NDArray[np.uint8], oracle: Judge, show: bool) -> pd.DataFrame:
    parts = []
    with progress_bar("Judging images", len(images), show=show) as bar:
        for start in range(0, len(images), BLOCK):
            parts.append(oracle.judge(images[start : start + BLOCK]))
            bar.advance(min(BLOCK, len(images) - start))
    return pd.concat(parts, ignore_index=True)


def _scores(requested: pd.DataFrame, judged: pd.DataFrame) -> dict[str, Array]:
    """Score of each image for each metric: 1 right, 0 wrong, NaN where nothing known was asked for."""
    kinds = {"label": "oracle_accuracy", "attr": "oracle_attribute_accuracy"}
    scores: dict[str, Array] = {}
    for kind, metric in kinds.items():
        names = [str(name) for name in judged.columns if f"{kind}.{name}" in requested.columns]
        if not names:
            continue
        parts = [_agreement(requested[f"{kind}.{name}"], judged[name]) for name in names]
        scores[metric] = np.mean(parts, axis=0)
        if kind == "label":
            found: Array = np.asarray(judged[names].notna().all(axis=1), dtype=np.float64)
            scores = {"oracle_found": found, **scores}
    if "oracle_found" not in scores:
        problem = Problem(f"it judges {', '.join(map(str, judged.columns))}",
                          "ask for a label of that name in the column label.<name>")
        raise InputError("The oracle judges no label that was asked for.", [problem])
    return scores


def _agreement(asked: pd.Series, shown: pd.Series) -> Array:
    """1 where the shown level is the asked one, 0 where it is another or none, NaN where none was asked."""
    known = asked.notna().to_numpy(dtype=bool)
    same = (asked.astype(str).to_numpy() == shown.astype(str).to_numpy()) & shown.notna().to_numpy(dtype=bool)
    return np.where(known, same.astype(np.float64), np.nan)


def _share(
    metric: str, score: Array, side: GroupedImages, levels: dict[str, list[str]], settings: ResamplingSettings
) -> tuple[MetricResult, list[Cell]]:
    """One share in each cell. A mean is its own first-order expansion: bootstrap and band are exact."""
    cells = make_cells(side, side, levels, settings)
    with progress_bar("Shares", len(cells), show=False) as bar:
        plan = MeasurementPlan(cells, make_draws(side, side, cells, settings), 0, settings, bar)
        return measure_mean(metric, "share", score, None, plan, NOTE), cells
