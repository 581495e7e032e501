"""What all metrics share, and what each of them hands back."""

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

Array = NDArray[np.float64]
CellKey = tuple[str, str]
WeightedMetric = Callable[[Rows, Rows, Array, Array], Array]  # rows, and multiplicities [R, n] and [R, m] -> [R]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Estimate:
    """A value with its bootstrap replicates [R] and its floor (None where the metric has none).

    ``mc_value`` and ``mc_floor`` are Monte-Carlo standard errors: how far another seed would move a value that
    is a mean over random subsamples or half splits of the same data. ``p_floor`` is the one-sided p-value of the value
    being worse than its floor by chance, None where that is not tested.
    """

    value: float
    replicates: Array
    floor: float | None = None
    mc_value: float = 0.0
    mc_floor: float = 0.0
    p_floor: float | None = None


@dataclass(frozen=True)
class MetricResult:
    """One metric in all eligible cells.

    ``null`` gives for each attribute [R, G] what its eligible groups, in the order of the cells, would show
    if group labels meant nothing; an attribute that is not in it has no band and no p-value. ``kind`` is
    "lower", "higher" (both relative when equity-scaled) or "share" (higher is better, absolute).
    ``heterogeneity`` says in words in what an attribute's groups differ that permutations of their labels would mix.
    """

    metric: str
    kind: str
    estimates: dict[CellKey, Estimate]
    null: dict[str, Array] = field(default_factory=dict)
    note: str = ""
    heterogeneity: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ResultCache:
    """What has been computed already, for sets measured on the same real, training and judged images.

    Only for what does not depend on a generated set, and only while those images are the same.
    """

    results: dict[tuple[str, str], Any] = field(default_factory=dict)
    lock: Any = field(default_factory=RLock)  # sets may be measured side by side: what they share is computed once

    def compute_once(self, what: str, arrays: Sequence[NDArray[Any]], compute: Callable[[], Result]) -> Result:
        """``compute()``, or what it gave before under this name and for arrays of these values."""
        digest = hashlib.blake2b()
        for array in arrays:
            digest.update(repr((array.shape, array.dtype.str)).encode() + np.ascontiguousarray(array).tobytes())
        key = what, digest.hexdigest()
        with self.lock:
            if key not in self.results:
                self.results[key] = compute()
            found: Result = self.results[key]
        return found


@dataclass(frozen=True)
class MeasurementPlan:
    """What all metrics share: the cells, the resampling draws, the one n, the settings, the progress bar.

    ``cache`` is shared by the plans of sets that are measured on the same real images; None remembers nothing.
    """

    cells: list[Cell]
    draws: Draws
    n: int
    settings: ResamplingSettings
    bar: Bar
    cache: ResultCache | None = None

    def rng(self, purpose: str, cell: Cell) -> np.random.Generator:
        """A generator for one purpose in one cell."""
        return numpy_generator(self.settings.seed, f"quality/{purpose}/{cell.attribute}/{cell.group}")

    def weights(self, cell: Cell) -> tuple[Array, Array]:
        """Bootstrap multiplicities of the cell's rows on both sides, [R, n] and [R, m]."""
        return self.draws.real.row_weights(cell.real), self.draws.generated.row_weights(cell.generated)

    def patients(self, cell: Cell) -> tuple[Rows, Rows]:
        """Patients of the cell's rows on both sides, as codes 0 .. P - 1 of that cell and side."""
        sides = (self.draws.real, cell.real), (self.draws.generated, cell.generated)
        first, second = (np.unique(side.patients[rows], return_inverse=True)[1] for side, rows in sides)
        return first.astype(np.int64), second.astype(np.int64)

    def half_samples(self, cell: Cell) -> list[tuple[Rows, Rows]]:
        """Pairs of n real rows, of n patients each, from two halves that share none; each split uses every patient."""
        rng, pairs = self.rng("floor", cell), []
        for halves in cell.halves:
            owners = [self.draws.real.patients[cell.real[half]] for half in halves]
            least = max(-(-len(np.unique(own)) // self.n) for own in owners)
            samples = [[half[rows] for rows in covering_subsamples(own, self.n, least, rng)]
                       for half, own in zip(halves, owners, strict=True)]
            pairs += [(cell.real[first], cell.real[second]) for first, second in zip(*samples, strict=False)]
        return pairs

    def compute_once(self, what: str, arrays: Sequence[NDArray[Any]], compute: Callable[[], Result]) -> Result:
        """``compute()``, from memory where another set has had it computed already."""
        return compute() if self.cache is None else self.cache.compute_once(what, arrays, compute)

    def compute_for_halves(self, what: str, cell: Cell, compute: Callable[[], Result]) -> Result:
        """The same for what follows from a cell's real rows, their halves and n."""
        place = f"{what}/{self.n}/{cell.attribute}/{cell.group}"
        return self.compute_once(place, [cell.real, *(half for halves in cell.halves for half in halves)], compute)

    def eligible(self, attribute: str) -> list[Cell]:
        """The cells of one attribute that are large enough."""
        return [cell for cell in self.cells if cell.attribute == attribute and cell.reason is None]
