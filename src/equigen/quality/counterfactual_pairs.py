"""Metrics of counterfactual pairs: images of one seed that differ in the level of one requested attribute.

A pair has one image for each of L levels of the changed attribute, all from one seed. Arrays are [P, L, ...].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigen.quality.cells import ResamplingSettings
from equigen.quality.judge.questions import Target
from equigen.quality.rows import join_notes
from equigen.seeds import numpy_generator
from equigen.statistics import defined_mean, percentile_interval, wilson_interval

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
NEIGHBOURS = 4  # other pairs that each pair is compared with
SEEDS, REAL = "other seeds", "real images"
COLUMNS = [
    "metric",
    "field",
    "attribute",
    "group",
    "n",
    "estimate",
    "ci_low",
    "ci_high",
    "reference_to",
    "reference",
    "reference_low",
    "reference_high",
    "ratio",
    "ratio_low",
    "ratio_high",
    "note",
]
NUMBERS = [name for name in COLUMNS[5:15] if name != "reference_to"]


@dataclass(frozen=True)
class FieldPrediction:
    """Levels of one field, [P, L]: ``predicted`` by a classifier and ``requested`` of the generator (-1 unknown)."""

    question: Target
    predicted: Codes
    requested: Codes


@dataclass(frozen=True)
class ReferenceShare:
    """A share of real images with its interval."""

    value: float
    low: float
    high: float


def neighbour_pairs(kinds: Codes, rng: np.random.Generator) -> Codes:
    """[P, NEIGHBOURS] indices of other pairs of the same kind; -1 where there are fewer, or the kind is unknown (-1).

    The pairs of a kind are ordered in a random circle, and each is compared with its successors, so that all pairs
    serve as a reference equally often.
    """
    result = np.full((len(kinds), NEIGHBOURS), -1, dtype=np.int64)
    for kind in np.unique(kinds[kinds >= 0]):
        circle = rng.permutation(np.flatnonzero(kinds == kind))
        for step in range(1, min(NEIGHBOURS, len(circle) - 1) + 1):
            result[circle, step - 1] = np.roll(circle, -step)
    return result


def pair_distances(
    load: Callable[[int], NDArray[Any]],
    neighbours: Codes,
    metric: Callable[[NDArray[Any], NDArray[Any]], float],
    tick: Callable[[], None] = lambda: None,
) -> tuple[Array, Array]:
    """Distances of each two levels, [P, C]: within each pair, and to its ``neighbours`` (mean over them).

    Between pairs i and j, of levels a and b: (d(i_a, j_b) + d(i_b, j_a)) / 2, so that these two images differ in the
    attribute as those within a pair do, and in the noise besides. NaN where a pair has no neighbour.

    Args:
        load: returns the images or features [L, ...] of a pair by its index.
        neighbours: [P, K] from ``neighbour_pairs``.
        metric: distance of two images or features.
        tick: called after each pair.

    """
    cached = lru_cache(maxsize=4 * NEIGHBOURS)(load)
    level_pairs = list(combinations(range(len(cached(0))), 2))
    within = np.zeros((len(neighbours), len(level_pairs)))
    between = np.full((len(neighbours), len(level_pairs)), np.nan)
    for pair in _traversal(neighbours):
        images = cached(pair)
        within[pair] = [metric(images[a], images[b]) for a, b in level_pairs]
        references = [cached(int(index)) for index in neighbours[pair] if index >= 0]
        if references:
            between[pair] = [
                np.mean(
                    [
                        (metric(images[a], reference[b]) + metric(images[b], reference[a])) / 2
                        for reference in references
                    ]
                )
                for a, b in level_pairs
            ]
        tick()
    return within, between


def _traversal(neighbours: Codes) -> list[int]:
    """Pairs in an order in which each is followed by its first neighbour, so that few are loaded twice."""
    order: list[int] = []
    visited = np.zeros(len(neighbours), dtype=bool)
    for start in range(len(neighbours)):
        pair = start
        while pair >= 0 and not visited[pair]:
            visited[pair] = True
            order.append(pair)
            pair = int(neighbours[pair, 0])
    return order


def pixel_difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Mean absolute difference of two images, in grey levels from 0 to 255."""
    return float(np.abs(a.astype(np.int16) - b.astype(np.int16)).mean())


def feature_distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Euclidean distance of two feature vectors."""
    return float(np.linalg.norm(a.astype(np.float64) - b.astype(np.float64)))


def flip_rates(prediction: FieldPrediction, rng: np.random.Generator) -> tuple[Array, Array]:
    """How often the level predicted of an image differs within its pair, [P, L], and from that of other pairs.

    Within a pair, the mean over the images of the other levels of the changed attribute. As a reference, images of
    the same level in other pairs for which the same level of this field was requested: they show how much noise and
    classification errors change without any change of the attribute. NaN where the field was not requested, or there
    is no such pair.
    """
    predicted, valid = prediction.predicted, prediction.requested[:, 0] >= 0
    neighbours = neighbour_pairs(np.where(valid, prediction.requested[:, 0], -1), rng)
    count = predicted.shape[1]
    within = np.full(predicted.shape, np.nan)
    for level in range(count):
        rest = [index for index in range(count) if index != level]
        within[valid, level] = (predicted[valid][:, rest] != predicted[valid, level][:, None]).mean(axis=1)
    differs = (predicted[neighbours] != predicted[:, None, :]).astype(np.float64)  # [P, K, L]
    differs[neighbours < 0] = np.nan
    return within, np.stack([defined_mean(differs[:, :, level], axis=1) for level in range(count)], axis=1)


class PairMetrics:
    """Table of metrics of counterfactual pairs, all estimated with the same resamples of the pairs.

    Args:
        attribute: the changed attribute.
        levels: its L levels.
        pairs: number of pairs.
        settings: replicates and seed; fewer pairs than ``min_patients`` give no number.

    """

    def __init__(self, attribute: str, levels: Sequence[str], pairs: int, settings: ResamplingSettings) -> None:
        self.attribute, self.levels, self.settings = attribute, list(levels), settings
        rng = numpy_generator(settings.seed, "pairs/bootstrap")
        self._draws = rng.integers(0, max(1, pairs), (settings.replicates, pairs))
        self._rows: list[dict[str, Any]] = []

    @property
    def table(self) -> pd.DataFrame:
        """Rows added so far, with the columns ``COLUMNS``."""
        frame = pd.DataFrame(self._rows, columns=COLUMNS)
        text = dict.fromkeys(("metric", "field", "attribute", "group", "reference_to", "note"), "str")
        return frame.astype({"n": "Int64", **dict.fromkeys(NUMBERS, "float64"), **text})

    def distance(self, metric: str, within: Array, between: Array) -> None:
        """Add a distance: its mean over all pairs of levels, and of each pair of levels where there are several."""
        level_pairs = [" to ".join(names) for names in combinations(self.levels, 2)]
        self._add_row(metric, "", "*", within.mean(axis=1), between.mean(axis=1))
        for index, name in enumerate(level_pairs if len(level_pairs) > 1 else []):
            self._add_row(metric, "", name, within[:, index], between[:, index])

    def accuracy(self, prediction: FieldPrediction, real: Mapping[str, ReferenceShare]) -> None:
        """Add how often a field reads as requested, at each level of the changed attribute and overall.

        ``real``: the same share of real images, by level; "*" overall.
        """
        valid = prediction.requested >= 0
        correct = np.where(valid, (prediction.predicted == prediction.requested).astype(np.float64), np.nan)
        name = prediction.question.name
        self._add_row("read_as_asked", name, "*", defined_mean(correct, axis=1), real=real.get("*"))
        for index, level in enumerate(self.levels):
            self._add_row("read_as_asked", name, level, correct[:, index], real=real.get(level))

    def flip(self, prediction: FieldPrediction) -> None:
        """Add how often a field that was not changed reads otherwise than in the pair's other images."""
        name = prediction.question.name
        within, between = flip_rates(prediction, numpy_generator(self.settings.seed, f"pairs/flips/{name}"))
        self._add_row("flip", name, "*", defined_mean(within, axis=1), defined_mean(between, axis=1))
        for index, level in enumerate(self.levels if len(self.levels) > 2 else []):
            self._add_row("flip", name, level, within[:, index], between[:, index])

    def _add_row(
        self,
        metric: str,
        field: str,
        group: str,
        values: Array,
        reference: Array | None = None,
        real: ReferenceShare | None = None,
    ) -> None:
        """Add a row with the mean of [P] ``values`` and of ``reference``, their intervals and their ratio."""
        defined = np.isfinite(values)
        row: dict[str, Any] = {
            "metric": metric,
            "field": field,
            "attribute": self.attribute,
            "group": group,
            "n": int(defined.sum()),
            "reference_to": "",
            "note": "",
        }
        if defined.sum() < self.settings.min_patients:
            self._rows.append(row | {"note": f"too small: {defined.sum()} pairs"})
            return
        draws = defined_mean(values[self._draws], axis=1)
        row |= {"estimate": float(values[defined].mean()), **_interval("ci", values, draws)}
        if reference is not None and np.isfinite(reference).any():
            reference_draws = defined_mean(reference[self._draws], axis=1)
            mean = float(reference[np.isfinite(reference)].mean())
            row |= {"reference_to": SEEDS, "reference": mean, **_interval("reference", reference, reference_draws)}
            valid = np.isfinite(draws) & np.isfinite(reference_draws) & (reference_draws > 0)
            if mean > 0 and 2 * valid.sum() >= len(draws):
                low, high = percentile_interval(draws[valid] / reference_draws[valid])
                row |= {"ratio": row["estimate"] / mean, "ratio_low": low, "ratio_high": high}
            lost = int((defined & ~np.isfinite(reference)).sum())
            row["note"] = join_notes(row["note"], f"{lost} pairs have no other of the same request" if lost else "")
        if real is not None:
            row |= {"reference_to": REAL, "reference": real.value}
            row |= {"reference_low": real.low, "reference_high": real.high}
        self._rows.append(row)


def _interval(name: str, values: Array, draws: Array) -> dict[str, float]:
    """Wilson's interval of a share (all values 0 or 1), else the percentile interval of the bootstrap."""
    defined = values[np.isfinite(values)]
    if np.isin(defined, (0.0, 1.0)).all():
        low, high = wilson_interval(int(defined.sum()), len(defined))
    else:
        low, high = percentile_interval(draws[np.isfinite(draws)])
    return {f"{name}_low": low, f"{name}_high": high}
