"""Inputs that all metrics share, and the result that each of them returns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import RLock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from equigen.progress import Bar
from equigen.quality.cells import Cell, ResamplingSettings, Rows, covering_subsamples
from equigen.quality.resamples import Draws
from equigen.seeds import numpy_generator
from equigen.statistics import Estimate

Array = NDArray[np.float64]
CellKey = tuple[str, str]
WeightedMetric = Callable[[Rows, Rows, Array, Array], Array]  # rows, and multiplicities [R, n] and [R, m] -> [R]
Result = TypeVar("Result")


@dataclass(frozen=True)
class CellEstimate(Estimate):
    """Estimate of a metric in a cell with its floor (None where the metric has none).

    ``mc_value`` and ``mc_floor`` are Monte-Carlo standard errors: how far another seed would move a mean over random
    subsamples or half splits of the same data. ``p_floor`` is the one-sided p-value of "the value is not worse than
    its floor", None where that is not tested.
    """

    floor: float | None = None
    mc_value: float = 0.0
    mc_floor: float = 0.0
    p_floor: float | None = None


@dataclass(frozen=True)
class MetricResult:
    """One metric in all eligible cells.

    ``null`` gives for each attribute [R, G] the values of its eligible groups, in the order of the cells, under
    permutation of the group labels; an attribute that is not in it has no band and no p-value. ``kind`` is
    "lower", "higher" (both relative when equity-scaled) or "share" (higher is better, absolute).
    ``heterogeneity`` tells in what an attribute's groups differ that permutations of their labels would mix.
    """

    metric: str
    kind: str
    estimates: dict[CellKey, CellEstimate]
    null: dict[str, Array] = field(default_factory=dict)
    note: str = ""
    heterogeneity: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ResultCache:
    """Cache of results that depend on the real, training and judged images alone, shared by generated sets.

    It is valid while those images are the same. ``lock``: sets may be measured in parallel threads.
    """

    results: dict[tuple[str, str], Any] = field(default_factory=dict)
    lock: Any = field(default_factory=RLock)

    def compute_once(self, name: str, arrays: Sequence[NDArray[Any]], compute: Callable[[], Result]) -> Result:
        """Return ``compute()``, or its earlier result under this name for arrays of equal values."""
        digest = hashlib.blake2b()
        for array in arrays:
            digest.update(repr((array.shape, array.dtype.str)).encode() + np.ascontiguousarray(array).tobytes())
        key = name, digest.hexdigest()
        with self.lock:
            if key not in self.results:
                self.results[key] = compute()
            result: Result = self.results[key]
        return result


@dataclass(frozen=True)
class MeasurementPlan:
    """Inputs that all metrics of a set share: cells, draws, matched n, settings and progress bar.

    ``cache`` is shared by the plans of sets that are measured on the same real images; None caches nothing.
    """

    cells: list[Cell]
    draws: Draws
    n: int
    settings: ResamplingSettings
    bar: Bar
    cache: ResultCache | None = None

    def rng(self, purpose: str, cell: Cell) -> np.random.Generator:
        """Random generator for one purpose in one cell."""
        return numpy_generator(self.settings.seed, f"quality/{purpose}/{cell.attribute}/{cell.group}")

    def weights(self, cell: Cell) -> tuple[Array, Array]:
        """Bootstrap multiplicities of the cell's real and generated rows, [R, n] and [R, m]."""
        return self.draws.real.row_weights(cell.real), self.draws.generated.row_weights(cell.generated)

    def patients(self, cell: Cell) -> tuple[Rows, Rows]:
        """Patients of the cell's real and of its generated rows, each as codes 0 .. P - 1."""
        rows = (self.draws.real, cell.real), (self.draws.generated, cell.generated)
        real, generated = (np.unique(draws.patients[members], return_inverse=True)[1] for draws, members in rows)
        return real.astype(np.int64), generated.astype(np.int64)

    def half_samples(self, cell: Cell) -> list[tuple[Rows, Rows]]:
        """Pairs of n real rows of n patients, from two halves without a common patient; splits use every patient."""
        rng, pairs = self.rng("floor", cell), []
        for halves in cell.halves:
            patients = [self.draws.real.patients[cell.real[half]] for half in halves]
            least = max(-(-len(np.unique(codes)) // self.n) for codes in patients)
            samples = [
                [half[rows] for rows in covering_subsamples(codes, self.n, least, rng)]
                for half, codes in zip(halves, patients, strict=True)
            ]
            pairs += [(cell.real[first], cell.real[second]) for first, second in zip(*samples, strict=False)]
        return pairs

    def compute_once(self, name: str, arrays: Sequence[NDArray[Any]], compute: Callable[[], Result]) -> Result:
        """Return ``compute()``, from the cache where another set has computed it."""
        return compute() if self.cache is None else self.cache.compute_once(name, arrays, compute)

    def compute_for_halves(self, name: str, cell: Cell, compute: Callable[[], Result]) -> Result:
        """Return ``compute()``, cached as a result that depends on a cell's real rows, their halves and n."""
        key = f"{name}/{self.n}/{cell.attribute}/{cell.group}"
        return self.compute_once(key, [cell.real, *(half for halves in cell.halves for half in halves)], compute)

    def eligible(self, attribute: str) -> list[Cell]:
        """Cells of one attribute that are large enough."""
        return [cell for cell in self.cells if cell.attribute == attribute and cell.reason is None]
