"""What all metrics share, and what each of them hands back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from equigen.progress import Bar
from equigen.quality.cells import Cell, Rows, Settings, cover
from equigen.quality.draws import Draws
from equigen.seeds import numpy_generator

Array = NDArray[np.float64]
Key = tuple[str, str]
Value = Callable[[Rows, Rows, Array, Array], Array]  # rows, and multiplicities [R, n] and [R, m] -> [R]


@dataclass(frozen=True)
class Estimate:
    """A value with its bootstrap replicates [R] and its floor (None where the metric has none).

    ``mc_value`` and ``mc_floor`` are Monte-Carlo standard errors: how far another seed would move a value that
    is a mean over random subsamples or half splits of the same data.
    """

    value: float
    replicates: Array
    floor: float | None = None
    mc_value: float = 0.0
    mc_floor: float = 0.0


@dataclass(frozen=True)
class Measured:
    """One metric in all eligible cells.

    ``null`` gives for each attribute [R, G] what its eligible groups, in the order of the cells, would show
    if group labels meant nothing; an attribute that is not in it has no band and no p-value. ``kind`` is
    "lower", "higher" (both relative when equity-scaled) or "share" (higher is better, absolute).
    """

    metric: str
    kind: str
    estimates: dict[Key, Estimate]
    null: dict[str, Array] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """What all metrics share: the cells, the resampling draws, the one n, the settings, the progress bar."""

    cells: list[Cell]
    draws: Draws
    n: int
    settings: Settings
    bar: Bar

    def rng(self, purpose: str, cell: Cell) -> np.random.Generator:
        """A generator for one purpose in one cell."""
        return numpy_generator(self.settings.seed, f"quality/{purpose}/{cell.attribute}/{cell.group}")

    def weights(self, cell: Cell) -> tuple[Array, Array]:
        """Bootstrap multiplicities of the cell's rows on both sides, [R, n] and [R, m]."""
        return self.draws.real.of(cell.real), self.draws.generated.of(cell.generated)

    def half_samples(self, cell: Cell) -> list[tuple[Rows, Rows]]:
        """Pairs of n real rows from two halves that share no patient; each split of the cell uses all rows."""
        rng, pairs = self.rng("floor", cell), []
        for halves in cell.halves:
            least = max(-(-len(half) // self.n) for half in halves)
            samples = [[half[rows] for rows in cover(len(half), self.n, least, rng)] for half in halves]
            pairs += [(cell.real[first], cell.real[second]) for first, second in zip(*samples, strict=False)]
        return pairs

    def eligible(self, attribute: str) -> list[Cell]:
        """The cells of one attribute that are large enough."""
        return [cell for cell in self.cells if cell.attribute == attribute and cell.reason is None]
