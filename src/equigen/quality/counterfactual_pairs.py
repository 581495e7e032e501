"""What changes in a generated image when one attribute is changed and the noise is kept: counterfactual pairs.

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
from equigen.statistics import percentile_interval, wilson_interval

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
NEIGHBOURS = 4  # other pairs that each pair is compared with
SEEDS, REAL = "other seeds", "real images"
COLUMNS = [
    "metric", "field", "attribute", "group", "n", "estimate", "ci_low", "ci_high", "reference_to", "reference",
    "reference_low", "reference_high", "ratio", "ratio_low", "ratio_high", "note",
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
    """[P, NEIGHBOURS] other pairs of the same kind, -1 where there are not as many, or the kind is unknown (-1).

    The pairs of a kind stand in a circle in random order, and each has those that follow it: so each is compared
    with as often as it is compared.
    """
    found = np.full((len(kinds), NEIGHBOURS), -1, dtype=np.int64)
    for kind in np.unique(kinds[kinds >= 0]):
        circle = rng.permutation(np.flatnonzero(kinds == kind))
        for step in range(1, min(NEIGHBOURS, len(circle) - 1) + 1):
            found[circle, step - 1] = np.roll(circle, -step)
    return found


def pair_distances(
    load: Callable[[int], NDArray[Any]], others: Codes, measure: Callable[[NDArray[Any], NDArray[Any]], float],
    tick: Callable[[], None] = lambda: None,
) -> tuple[Array, Array]:
    """Distances of each two levels, [P, C]: within each pair, and between it and other pairs (mean over ``others``).

    Between pairs i and j, of levels a and b: (d(i_a, j_b) + d(i_b, j_a)) / 2, so that these two differ in the
    attribute as those within do, and in the noise besides. NaN where a pair has no other.

    Args:
        load: a pair's number -> what is compared, [L, ...].
        others: [P, K] from ``neighbour_pairs``.
        measure: the distance of two of them.
        tick: called after each pair.

    """
    kept = lru_cache(maxsize=4 * NEIGHBOURS)(load)
    two = list(combinations(range(len(kept(0))), 2))
    within, between = np.zeros((len(others), len(two))), np.full((len(others), len(two)), np.nan)
    for pair in _along(others):
        own = kept(pair)
        within[pair] = [measure(own[a], own[b]) for a, b in two]
        found = [kept(int(other)) for other in others[pair] if other >= 0]
        if found:
            between[pair] = [np.mean([(measure(own[a], other[b]) + measure(own[b], other[a])) / 2 for other in found])
                             for a, b in two]  # fmt: skip
        tick()
    return within, between


def _along(others: Codes) -> list[int]:
    """Pairs in an order in which neighbours follow each other, so that few are loaded twice."""
    order: list[int] = []
    seen = np.zeros(len(others), dtype=bool)
    for start in range(len(others)):
        pair = start
        while pair >= 0 and not seen[pair]:
            seen[pair] = True
            order.append(pair)
            pair = int(others[pair, 0])
    return order


def pixel_difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Mean absolute difference of two images, in grey levels from 0 to 255."""
    return float(np.abs(a.astype(np.int16) - b.astype(np.int16)).mean())


def feature_distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Euclidean distance of two feature vectors."""
    return float(np.linalg.norm(a.astype(np.float64) - b.astype(np.float64)))


def flip_rates(reading: FieldPrediction, rng: np.random.Generator) -> tuple[Array, Array]:
    """How often a level's image reads otherwise than the other levels' of its pair, [P, L], and than other pairs'.

    Within a pair a mean over the other levels. Of other pairs, asked for the same level of this field, the image of
    the same level of the changed attribute: what noise and a classifier's errors do without any change of the
    attribute. NaN where the field was not asked for, or there is no such pair.
    """
    shown, known = reading.predicted, reading.requested[:, 0] >= 0
    others = neighbour_pairs(np.where(known, reading.requested[:, 0], -1), rng)
    count = shown.shape[1]
    within = np.full(shown.shape, np.nan)
    for level in range(count):
        rest = [other for other in range(count) if other != level]
        within[known, level] = (shown[known][:, rest] != shown[known, level][:, None]).mean(axis=1)
    differs = (shown[others] != shown[:, None, :]).astype(np.float64)  # [P, K, L]
    differs[others < 0] = np.nan
    return within, np.stack([_row_mean(differs[:, :, level]) for level in range(count)], axis=1)


class PairMetrics:
    """Rows of the table of measures, all from the same resamples of the pairs.

    Args:
        attribute: the one that is changed.
        levels: its L levels.
        pairs: their number.
        settings: replicates and seed; fewer pairs than ``min_patients`` give no number.

    """

    def __init__(self, attribute: str, levels: Sequence[str], pairs: int, settings: ResamplingSettings) -> None:
        self.attribute, self.levels, self.settings = attribute, list(levels), settings
        rng = numpy_generator(settings.seed, "pairs/bootstrap")
        self._draws = rng.integers(0, max(1, pairs), (settings.replicates, pairs))
        self._rows: list[dict[str, Any]] = []

    @property
    def table(self) -> pd.DataFrame:
        """All rows."""
        frame = pd.DataFrame(self._rows, columns=COLUMNS)
        text = dict.fromkeys(("metric", "field", "attribute", "group", "reference_to", "note"), "str")
        return frame.astype({"n": "Int64", **dict.fromkeys(NUMBERS, "float64"), **text})

    def distance(self, metric: str, within: Array, between: Array) -> None:
        """A distance: the mean over all two levels, and each two where there are several."""
        two = [" to ".join(names) for names in combinations(self.levels, 2)]
        self._row(metric, "", "*", within.mean(axis=1), between.mean(axis=1))
        for index, name in enumerate(two if len(two) > 1 else []):
            self._row(metric, "", name, within[:, index], between[:, index])

    def reading(self, reading: FieldPrediction, real: Mapping[str, ReferenceShare]) -> None:
        """How often a field reads as asked, at each level of the changed attribute and over all.

        ``real``: the same of real images, by level; "*" over all.
        """
        known = reading.requested >= 0
        right = np.where(known, (reading.predicted == reading.requested).astype(np.float64), np.nan)
        self._row("read_as_asked", reading.question.name, "*", _row_mean(right), real=real.get("*"))
        for index, level in enumerate(self.levels):
            self._row("read_as_asked", reading.question.name, level, right[:, index], real=real.get(level))

    def flip(self, reading: FieldPrediction) -> None:
        """How often a field that was not changed reads otherwise than in the pair's other images."""
        name = reading.question.name
        within, between = flip_rates(reading, numpy_generator(self.settings.seed, f"pairs/flips/{name}"))
        self._row("flip", name, "*", _row_mean(within), _row_mean(between))
        for index, level in enumerate(self.levels if len(self.levels) > 2 else []):
            self._row("flip", name, level, within[:, index], between[:, index])

    def _row(
        self, metric: str, field: str, group: str, values: Array, other: Array | None = None,
        real: ReferenceShare | None = None,
    ) -> None:
        known = np.isfinite(values)
        row: dict[str, Any] = {"metric": metric, "field": field, "attribute": self.attribute, "group": group,
                               "n": int(known.sum()), "reference_to": "", "note": ""}
        if known.sum() < self.settings.min_patients:
            self._rows.append(row | {"note": f"too small: {known.sum()} pairs"})
            return
        draws = _means(values, self._draws)
        row |= {"estimate": float(values[known].mean()), **_interval("ci", values, draws)}
        if other is not None and np.isfinite(other).any():
            chance = _means(other, self._draws)
            base = float(other[np.isfinite(other)].mean())
            row |= {"reference_to": SEEDS, "reference": base, **_interval("reference", other, chance)}
            row |= _ratio(row["estimate"], base, draws, chance)
            lost = int((known & ~np.isfinite(other)).sum())
            row["note"] = join_notes(row["note"], f"{lost} pairs have no other of the same request" if lost else "")
        if real is not None:
            row |= {"reference_to": REAL, "reference": real.value}
            row |= {"reference_low": real.low, "reference_high": real.high}
        self._rows.append(row)


def _row_mean(values: Array) -> Array:
    """Mean of each row over what is known; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.asarray(np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0), dtype=np.float64)


def _means(values: Array, draws: Codes) -> Array:
    """[R] means of resampled pairs; those without a number do not count."""
    return _row_mean(values[draws])


def _interval(name: str, values: Array, draws: Array) -> dict[str, float]:
    """Wilson's interval of a share (all values 0 or 1), else that of the bootstrap."""
    known = values[np.isfinite(values)]
    whole = np.isin(known, (0.0, 1.0)).all()
    drawn = draws[np.isfinite(draws)]
    low, high = wilson_interval(int(known.sum()), len(known)) if whole else percentile_interval(drawn)
    return {f"{name}_low": low, f"{name}_high": high}


def _ratio(value: float, base: float, draws: Array, chance: Array) -> dict[str, float]:
    """Of what another seed changes, the share that the attribute changes; none where another seed changes nothing."""
    usable = np.isfinite(draws) & np.isfinite(chance) & (chance > 0)
    if base <= 0 or 2 * usable.sum() < len(draws):
        return {}
    low, high = percentile_interval(draws[usable] / chance[usable])
    return {"ratio": value / base, "ratio_low": low, "ratio_high": high}
