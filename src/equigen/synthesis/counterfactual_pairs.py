"""Counterfactual pairs of a synthetic set, and the change of images and readings with one attribute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.cohort import Cohort, accepted_mask, add_paths, check_images, load_images, read_generated, read_image
from equigen.errors import InputError, Problem
from equigen.parquet import write_parquet
from equigen.progress import progress_bar
from equigen.quality import (
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
from equigen.synthesis.plans import PAIR


@dataclass(frozen=True)
class Pairs:
    """Pairs of one set: ``frame`` has P L rows, pair by pair, with the levels in the same order; ``path`` is a file.

    ``warnings``: other differences within pairs, and pairs that were left out.
    """

    folder: Path
    attribute: str
    levels: list[str]
    frame: pd.DataFrame
    warnings: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.frame) // len(self.levels)

    def images(self, pairs: Sequence[int], size: int) -> NDArray[np.uint8]:
        """Images [K, L, size, size, 3] uint8 of some pairs (positions)."""
        count = len(self.levels)
        rows = [pair * count + level for pair in pairs for level in range(count)]
        loaded = load_images([self.frame["path"].iloc[row] for row in rows], size)
        return loaded.reshape(len(pairs), count, size, size, 3)


def read_pairs(synthetic: SyntheticSet | str | PathLike[str], plan: pd.DataFrame | None = None) -> Pairs:
    """The pairs of a synthetic set of a plan with the policy ``counterfactual``.

    Args:
        synthetic: the set. ``pair`` and ``changed`` are columns of its table, or of the plan.
        plan: the plan of the set, row by row.

    Raises:
        InputError: there is no set, it is of another plan, several attributes are changed, or no pair is complete.

    """
    folder = Path(synthetic)
    frame = read_generated(folder, "There is no synthetic set that can be used.")
    if not set(PAIR) <= set(frame.columns):
        title, location = "This set's pairs are not known.", str(folder)
        if plan is None or not set(PAIR) <= set(plan.columns):
            mend = "give the plan that it was made from (policy 'counterfactual')"
            raise InputError(title, [Problem("has no columns pair and changed", mend, file=location)])
        seeds = frame["first_seed"] if "first_seed" in frame else frame["seed"]
        if list(plan["seed"]) != list(seeds):
            raise InputError(title, [Problem("was made from another plan", "give its own plan", file=location)])
        frame = frame.assign(**{name: plan[name].to_numpy() for name in PAIR})
    frame = add_paths(frame, folder)
    check_images(frame, folder, "These pairs cannot be compared.")
    changed = sorted(set(frame["changed"].astype(str)))
    if len(changed) != 1 or f"attr.{changed[0]}" not in frame:
        problem = Problem(f"changed are: {', '.join(changed)}", "give a set in which one attribute is changed")
        raise InputError("These are no counterfactual pairs of one attribute.", [problem])
    return _complete_pairs(folder, changed[0], frame)


def _complete_pairs(folder: Path, attribute: str, frame: pd.DataFrame) -> Pairs:
    """The pairs that have every level once and no refused image, with warnings on other differences."""
    column = f"attr.{attribute}"
    levels = [str(level) for level in frame[column].dropna().drop_duplicates()]
    usable = frame[column].notna() & accepted_mask(frame)[0]
    counts = frame[usable].groupby("pair")[column].agg(["size", "nunique"])
    complete = counts.index[(counts["size"] == len(levels)) & (counts["nunique"] == len(levels))]
    incomplete = frame["pair"].nunique() - len(complete)
    if not len(complete) or len(levels) < 2:
        problem = Problem("no pair has every level once", "generate the whole plan", file=str(folder))
        raise InputError("There are no counterfactual pairs.", [problem])
    order = frame[column].map({level: index for index, level in enumerate(levels)})
    rows = frame.assign(_order=order)[frame["pair"].isin(complete)]
    rows = rows.sort_values(["pair", "_order"], kind="stable").drop(columns="_order").reset_index(drop=True)
    warnings = []
    if incomplete:
        warnings = [f"{incomplete} pairs are left out: a level is missing or was refused by screening."]
    conditions = [str(name) for name in rows.columns
                  if str(name).startswith(("label.", "attr.")) and name != column]  # fmt: skip
    names = [*conditions, "seed", "guidance", "steps"]
    varied = [(name, int((rows.groupby("pair")[name].nunique(dropna=False) > 1).sum())) for name in names]
    warnings += [
        f"{name} differs within {count} pairs: more than the attribute is changed there."
        for name, count in varied
        if count
    ]
    if rows["prompt"].notna().any():
        same = int((rows.groupby("pair")["prompt"].nunique(dropna=False) == 1).sum())
        if same:
            warnings.append(f"The prompt is the same for all levels of {same} pairs: a generator that reads prompts "
                            "alone cannot tell them apart.")  # fmt: skip
    return Pairs(folder, attribute, levels, rows, warnings)


IMAGES_FILE, METRICS_FILE = "pairs.parquet", "pair_measures.parquet"


@dataclass(frozen=True)
class PairComparison:
    """Metrics of a set of counterfactual pairs.

    ``metrics``: ``pair_measures.parquet``, see ``compare_pairs``. ``image_table``: ``pairs.parquet``, one row an image:
    ``pair, level, image, prompt, seed``, the pair's ``pixel_difference`` and ``feature_distance`` (means over each two
    levels), and for each field ``read.<field>`` and ``p.<field>`` (the most probable level, and its probability).
    ``methods``: the encoder and classifier of the metrics.
    """

    pairs: Pairs
    metrics: pd.DataFrame
    image_table: pd.DataFrame
    size: int
    methods: list[str]

    @property
    def attribute(self) -> str:
        """The attribute that is changed."""
        return self.pairs.attribute

    @property
    def levels(self) -> list[str]:
        """The levels of the attribute, in the order of a pair's images."""
        return self.pairs.levels

    @property
    def warnings(self) -> list[str]:
        """Other differences within pairs, and pairs that were left out."""
        return self.pairs.warnings

    def images(self, count: int) -> NDArray[np.uint8]:
        """Images [K, L, H, W, 3] uint8 of the first ``count`` pairs, or of all if there are fewer."""
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
    """Measure the effect of one attribute on images of the same noise.

    Rows of ``pair_measures.parquet``, over all levels (group ``*``), each two levels, or each level:

    * ``pixel_difference``: mean absolute difference in grey levels (0 to 255), and ``feature_distance``: distance of
      the encoder's features, within pairs; ``reference`` is the same between images of different pairs, so of other
      noise, and ``ratio`` their quotient: 0 where the attribute changes nothing, 1 where everything changes;
    * ``read_as_asked``: share of images in which the classifier reads the requested level, of the changed attribute and
      of every other field; ``reference`` is the share of real held-out images that it reads correctly;
    * ``flip``: share of pairs (mean over each two levels) in which the reading of an unchanged field differs;
      ``reference`` is the same between different pairs of equal conditions at one level: the effect of noise and
      errors of the classifier alone.

    Intervals (95 %) are Wilson's for plain shares, else bootstraps over pairs (over patients for real images). Both
    tables are written into the set's folder.

    Args:
        synthetic: a set with the policy ``counterfactual``.
        plan: its plan, where its table has no pairs.
        encoder: as for ``evaluate``.
        classifier: reads the images; None leaves out the last two metrics.
        held_out: real images, not of the training split nor of patients in the classifier's training data.
        limit: greatest number of pairs, the first of the plan.
        min_pairs: with fewer there is no estimate.
        replicates: of the bootstrap.
        seed: of all random draws.
        cache_dir: folder that caches features between calls.
        show: show progress bars.

    Raises:
        InputError: as ``read_pairs``; invalid settings; real images in the classifier's training data.

    """
    settings = ResamplingSettings(replicates=replicates, seed=seed, min_patients=min_pairs)
    settings.check()
    if limit < 2:
        raise InputError("These pairs cannot be measured.", [Problem(f"limit {limit}", "use at least 2")])
    if classifier is not None and held_out is not None:
        check_held_out(held_out, classifier)
    network, pairs = load_encoder(encoder), read_pairs(synthetic, plan)
    if len(pairs) > limit:
        warnings = [*pairs.warnings, f"The first {limit} of {len(pairs)} pairs are measured."]
        pairs = replace(pairs, frame=pairs.frame.head(limit * len(pairs.levels)), warnings=warnings)
    size = int(min(read_image(pairs.frame["path"].iloc[0]).shape[:2]))
    readings, columns = _readings(pairs, classifier, size, show)
    real = _real_shares(pairs, readings, classifier, held_out, size, settings, show)
    features = extract_features(ImageSet(pairs.frame), network, size, cache_dir=cache_dir, show=show).values
    neighbours = neighbour_pairs(np.zeros(len(pairs), np.int64), numpy_generator(seed, "pairs/neighbours"))
    shaped = features.reshape(len(pairs), len(pairs.levels), -1)
    with progress_bar("comparing pixels", len(pairs), show=show) as bar:
        by_pixel = pair_distances(lambda pair: pairs.images([pair], size)[0], neighbours, pixel_difference, bar.advance)
    by_feature = pair_distances(lambda pair: shaped[pair], neighbours, feature_distance)
    metrics = PairMetrics(pairs.attribute, pairs.levels, len(pairs), settings)
    metrics.distance("pixel_difference", *by_pixel)
    metrics.distance("feature_distance", *by_feature)
    for reading in readings:
        metrics.accuracy(reading, real.get(reading.question.name, {}))
        if reading.question.column != f"attr.{pairs.attribute}":
            metrics.flip(reading)
    means = {"pixel_difference": by_pixel[0].mean(axis=1), "feature_distance": by_feature[0].mean(axis=1)}
    frame, count = pairs.frame, len(pairs.levels)
    table = pd.DataFrame({"pair": frame["pair"], "level": frame[f"attr.{pairs.attribute}"], "image": frame["image"],
                          "prompt": frame["prompt"], "seed": frame["seed"]}).reset_index(drop=True)  # fmt: skip
    table = table.assign(**{name: np.repeat(values, count) for name, values in means.items()}, **columns)
    write_parquet(pairs.folder / IMAGES_FILE, table)
    write_parquet(pairs.folder / METRICS_FILE, metrics.table)
    methods = [f"features of {identity(network)}"]
    if classifier is not None:
        methods.append(f"read by {classifier.identity}")
    return PairComparison(pairs, metrics.table, table, size, methods)


def _readings(
    pairs: Pairs, classifier: Classifier | None, size: int, show: bool
) -> tuple[list[FieldPrediction], dict[str, list[Any]]]:
    """Predictions of the classifier in each field of the set, and their columns of ``pairs.parquet``."""
    if classifier is None:
        return [], {}
    targets = [target for target in classifier.targets if target.column in pairs.frame]
    probabilities_by_target = predict_images(classifier, ImageSet(pairs.frame), size, title="reading pairs", show=show)
    readings, columns, shape = [], {}, (len(pairs), len(pairs.levels))
    for target in targets:
        probabilities = probabilities_by_target[target.name]
        codes = probabilities.argmax(axis=1).astype(np.int64)
        readings.append(FieldPrediction(target, codes.reshape(shape), target.truth(pairs.frame).reshape(shape)))
        columns[f"read.{target.name}"] = [target.levels[code] for code in codes]
        columns[f"p.{target.name}"] = list(probabilities.max(axis=1))
    return readings, columns


def _real_shares(
    pairs: Pairs,
    readings: Sequence[FieldPrediction],
    classifier: Classifier | None,
    held_out: Cohort | None,
    size: int,
    settings: ResamplingSettings,
    show: bool,
) -> dict[str, dict[str, ReferenceShare]]:
    """Share of real images that are read correctly, by field, over all and by level of the changed attribute."""
    if classifier is None or held_out is None:
        return {}
    images = load_image_set(held_out, "real")
    probabilities_by_target = predict_images(classifier, images, size, title="reading real images", show=show)
    groups = Target(f"attr.{pairs.attribute}", pairs.levels).truth(images.frame)
    shares: dict[str, dict[str, ReferenceShare]] = {}
    for target in (reading.question for reading in readings):
        truth = target.truth(images.frame)
        correct = (probabilities_by_target[target.name].argmax(axis=1) == truth).astype(np.float64)
        correct = np.where(truth >= 0, correct, np.nan)
        shares[target.name] = {}
        for levels, codes in ((["*"], np.zeros(len(correct), np.int64)), (pairs.levels, groups)):
            purpose = f"pairs/real/{target.name}/{len(levels)}"
            cells = clustered_group_means(correct, codes, levels, images.patients("real"), settings, purpose).cells
            for level, cell in cells.items():
                if cell.is_large:
                    low, high, _ = patient_share_interval(cell)
                    shares[target.name][level] = ReferenceShare(cell.value, low, high)
    return shares
