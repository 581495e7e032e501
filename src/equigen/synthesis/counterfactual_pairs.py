"""Counterfactual pairs of a synthetic set, measured: whether only the attribute changes, or everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.cohort import Cohort, read_image
from equigen.errors import InputError, Problem
from equigen.files import write_parquet
from equigen.progress import progress_bar
from equigen.quality import (
    CellMean,
    Classifier,
    Encoder,
    FieldPrediction,
    ImageSet,
    PairMetrics,
    ReferenceShare,
    ResamplingSettings,
    Target,
    check_held_out,
    clustered_group_means,
    extract_features,
    feature_distance,
    identity,
    load_encoder,
    load_image_set,
    neighbour_pairs,
    pair_distances,
    patient_share_interval,
    pixel_difference,
    predict_images,
)
from equigen.seeds import numpy_generator
from equigen.synthesis.generation import SyntheticSet
from equigen.synthesis.pair_sets import Pairs, read_pairs

EACH, MEASURED = "pairs.parquet", "pair_measures.parquet"


@dataclass(frozen=True)
class PairComparison:
    """What was measured of a set of pairs.

    ``measured``: ``pair_measures.parquet``, see ``compare_pairs``. ``each``: ``pairs.parquet``, one row an image:
    ``pair, level, image, prompt, seed``, the pair's ``pixel_difference`` and ``feature_distance`` (means over each two
    levels), and for each field ``read.<field>`` and ``p.<field>`` (the most probable level, and its probability).
    """

    pairs: Pairs
    measured: pd.DataFrame
    each: pd.DataFrame
    size: int
    words: list[str]

    @property
    def attribute(self) -> str:
        """The attribute that is changed."""
        return self.pairs.attribute

    @property
    def levels(self) -> list[str]:
        """Its levels, in the order of a pair's images."""
        return self.pairs.levels

    @property
    def warnings(self) -> list[str]:
        """What else differs within pairs, and what was left out."""
        return self.pairs.warnings

    def images(self, count: int) -> NDArray[np.uint8]:
        """[K, L, H, W, 3] uint8 of the first ``count`` pairs, or all there are."""
        return self.pairs.images(range(min(count, len(self.pairs))), self.size)


def compare_pairs(
    synthetic: SyntheticSet | str | PathLike[str],
    plan: pd.DataFrame | None = None,
    *,
    encoder: str | Encoder = "efficientnet-lite0",
    classifier: Classifier | None = None,
    held_out: Cohort | None = None,
    limit: int = 1000,
    min_pairs: int = 30,
    replicates: int = 500,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    show: bool = True,
) -> PairComparison:
    """Measure what changing one attribute changes, at the same noise.

    Rows of ``pair_measures.parquet``, over all levels (group ``*``), each two levels, or each level:

    * ``pixel_difference``: mean absolute difference in grey levels (0 to 255), and ``feature_distance``: distance of
      the encoder's features, within pairs; ``reference`` is the same between images of different pairs, so of other
      noise, and ``ratio`` their quotient: 0 where the attribute changes nothing, 1 where everything changes;
    * ``read_as_asked``: share of images in which the classifier reads the level asked for, of the changed attribute and
      of every other field; ``reference`` is the share of real held-out images that it reads rightly;
    * ``flip``: share of pairs (mean over each two levels) in which a field that was not changed reads otherwise;
      ``reference`` is the same between different pairs at one level, asked for the same: noise and errors of the
      classifier without any change of the attribute.

    Intervals are 95 %: Wilson's of plain shares, else bootstraps over pairs (over patients, of real images). Both
    tables are written into the set's folder.

    Args:
        synthetic: a set with the policy ``counterfactual``.
        plan: its plan, where its table does not tell the pairs.
        encoder: as for ``evaluate``.
        classifier: reads the images; None leaves the last two out.
        held_out: real images of patients that the classifier has not learned from, not of the training split.
        limit: pairs that are measured at most, the first of the plan.
        min_pairs: with fewer there is no number.
        replicates: of the bootstrap.
        seed: of all draws.
        cache_dir: folder that keeps features between calls.
        show: show progress bars.

    Raises:
        InputError: as ``read_pairs``; senseless settings; real images that the classifier has learned from.

    """
    settings = ResamplingSettings(replicates=replicates, seed=seed, min_patients=min_pairs)
    settings.check()
    if limit < 2:
        raise InputError("These pairs cannot be measured.", [Problem(f"limit {limit}", "use at least 2")])
    if classifier is not None and held_out is not None:
        check_held_out(held_out, classifier)
    network, pairs = load_encoder(encoder), _first(read_pairs(synthetic, plan), limit)
    size = int(min(read_image(pairs.frame["path"].iloc[0]).shape[:2]))
    readings, columns = _readings(pairs, classifier, size, show)
    real = _real_shares(pairs, readings, classifier, held_out, size, settings, show)
    features = extract_features(ImageSet(pairs.frame), network, size, cache_dir=cache_dir, show=show).values
    others = neighbour_pairs(np.zeros(len(pairs), np.int64), numpy_generator(seed, "pairs/neighbours"))
    shaped = features.reshape(len(pairs), len(pairs.levels), -1)
    with progress_bar("comparing pixels", len(pairs), show=show) as bar:
        by_pixel = pair_distances(lambda pair: pairs.images([pair], size)[0], others, pixel_difference, bar.advance)
    by_feature = pair_distances(lambda pair: shaped[pair], others, feature_distance)
    measures = PairMetrics(pairs.attribute, pairs.levels, len(pairs), settings)
    measures.distance("pixel_difference", *by_pixel)
    measures.distance("feature_distance", *by_feature)
    for reading in readings:
        measures.reading(reading, real.get(reading.question.name, {}))
        if reading.question.column != f"attr.{pairs.attribute}":
            measures.flip(reading)
    means = {"pixel_difference": by_pixel[0].mean(axis=1), "feature_distance": by_feature[0].mean(axis=1)}
    each = _each(pairs, means, columns)
    write_parquet(pairs.folder / EACH, each)
    write_parquet(pairs.folder / MEASURED, measures.table)
    reads = [] if classifier is None else [f"read by {classifier.identity}"]
    return PairComparison(pairs, measures.table, each, size, [f"features of {identity(network)}", *reads])


def _first(pairs: Pairs, limit: int) -> Pairs:
    if len(pairs) <= limit:
        return pairs
    said = [*pairs.warnings, f"The first {limit} of {len(pairs)} pairs are measured."]
    return replace(pairs, frame=pairs.frame.head(limit * len(pairs.levels)), warnings=said)


def _readings(
    pairs: Pairs, classifier: Classifier | None, size: int, show: bool
) -> tuple[list[FieldPrediction], dict[str, list[Any]]]:
    """What the classifier reads in each field that the set asks for, and the columns that say so image by image."""
    if classifier is None:
        return [], {}
    asked = [question for question in classifier.targets if question.column in pairs.frame]
    probabilities = predict_images(classifier, ImageSet(pairs.frame), size, title="reading pairs", show=show)
    readings, columns, shape = [], {}, (len(pairs), len(pairs.levels))
    for question in asked:
        found = probabilities[question.name]
        shown = found.argmax(axis=1).astype(np.int64)
        readings.append(FieldPrediction(question, shown.reshape(shape), question.truth(pairs.frame).reshape(shape)))
        columns[f"read.{question.name}"] = [question.levels[code] for code in shown]
        columns[f"p.{question.name}"] = list(found.max(axis=1))
    return readings, columns


def _real_shares(
    pairs: Pairs, readings: Sequence[FieldPrediction], classifier: Classifier | None, held_out: Cohort | None,
    size: int, settings: ResamplingSettings, show: bool,
) -> dict[str, dict[str, ReferenceShare]]:
    """For each field the share of real images that are read rightly, by level of the changed attribute and over all."""
    if classifier is None or held_out is None:
        return {}
    images = load_image_set(held_out, "real")
    found = predict_images(classifier, images, size, title="reading real images", show=show)
    groups = Target(f"attr.{pairs.attribute}", pairs.levels).truth(images.frame)
    shares: dict[str, dict[str, ReferenceShare]] = {}
    for question in (reading.question for reading in readings):
        truth = question.truth(images.frame)
        right = np.where(truth >= 0, (found[question.name].argmax(axis=1) == truth).astype(np.float64), np.nan)
        own = shares[question.name] = {}
        for levels, codes in ((["*"], np.zeros(len(right), np.int64)), (pairs.levels, groups)):
            purpose = f"pairs/real/{question.name}/{len(levels)}"
            cells = clustered_group_means(right, codes, levels, images.patients("real"), settings, purpose).cells
            own.update({level: _share(cell) for level, cell in cells.items() if cell.draws is not None})
    return shares


def _share(cell: CellMean) -> ReferenceShare:
    low, high, _ = patient_share_interval(cell)
    return ReferenceShare(cell.value, low, high)


def _each(pairs: Pairs, means: dict[str, NDArray[np.float64]], columns: dict[str, list[Any]]) -> pd.DataFrame:
    """One row an image."""
    frame, count = pairs.frame, len(pairs.levels)
    head = pd.DataFrame({"pair": frame["pair"], "level": frame[f"attr.{pairs.attribute}"], "image": frame["image"],
                         "prompt": frame["prompt"], "seed": frame["seed"]}).reset_index(drop=True)  # fmt: skip
    return head.assign(**{name: np.repeat(values, count) for name, values in means.items()}, **columns)
