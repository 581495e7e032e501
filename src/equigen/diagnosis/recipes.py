"""What a classifier is trained on: which images in which share, for the same number of steps."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from equigen.errors import InputError, Problem
from equigen.seeds import numpy_generator

REAL = "real"
SYNTHETIC = "synthetic"


@dataclass(frozen=True)
class Recipe:
    """A training stream: the share of each source in it. Shares are exact and sum to 1."""

    name: str
    shares: dict[str, Fraction]


def _real(match: re.Match[str]) -> dict[str, Fraction]:
    return {REAL: Fraction(1)}


def _mixed(match: re.Match[str]) -> dict[str, Fraction]:
    """Ratio r synthetic images shown per real one: shares 1 / (1 + r) and r / (1 + r)."""
    ratio = Fraction(match["ratio"])
    return {REAL: 1 / (1 + ratio), match["source"]: ratio / (1 + ratio)}


def _synthetic(match: re.Match[str]) -> dict[str, Fraction]:
    return {match["source"] or SYNTHETIC: Fraction(1)}


NAME = r"(?P<source>[A-Za-z0-9_.\-]+)"
FORMS: list[tuple[str, str, Callable[[re.Match[str]], dict[str, Fraction]]]] = [
    ("real", r"real", _real),
    ("real+<generator>@<ratio>", rf"real\+{NAME}@(?P<ratio>\d+(\.\d+)?)", _mixed),
    ("synthetic or synthetic:<generator>", rf"synthetic(:{NAME})?", _synthetic),
]


def parse_recipe(name: str, sources: Iterable[str]) -> Recipe:
    """Recipe of a name.

    ``real``: the real training split alone. ``real+<generator>@<ratio>``: ratio synthetic images shown for
    each real one, mixed in every batch. ``synthetic`` (``synthetic:<generator>`` where there are several):
    synthetic images alone, FairDiffusion's protocol (METHODS section 7).

    Raises:
        InputError: a name of no form, a ratio of 0, or a generator that was not given.

    >>> parse_recipe("real+synthetic@0.5", ["synthetic"]).shares["synthetic"]
    Fraction(1, 3)

    """
    known = [REAL, *sources]
    for _, pattern, shares_of in FORMS:
        match = re.fullmatch(pattern, name)
        if match is None:
            continue
        shares = shares_of(match)
        strange = [source for source in shares if source not in known]
        if strange:
            there = ", ".join(known[1:]) or "none"
            raise InputError(
                "A recipe needs a synthetic set that was not given.",
                [Problem(f"recipe '{name}' uses '{strange[0]}'", f"synthetic sets are: {there}")],
            )
        if 0 in shares.values():
            raise InputError(
                "A mixing ratio is above 0.", [Problem(f"recipe '{name}'", "for ratio 0 write 'real'")]
            )
        return Recipe(name, shares)
    forms = "; ".join(form for form, _, _ in FORMS)
    raise InputError("There is no such recipe.", [Problem(f"'{name}' is not known", f"recipes are: {forms}")])


def recipe_names(ratios: Sequence[float], generators: Sequence[str]) -> list[str]:
    """Names for ratios: ``real`` for 0, and ``real+<generator>@<ratio>`` for each generator and other ratio.

    >>> recipe_names([0, 0.5], ["fair"])
    ['real', 'real+fair@0.5']
    """
    names = ["real"] if 0 in ratios else []
    return names + [
        f"real+{generator}@{ratio:g}" for generator in generators for ratio in ratios if ratio != 0
    ]


@dataclass(frozen=True)
class Stream:
    """Which image is shown when, as a function of the step alone, so that a run can go on anywhere.

    Each source is gone through in epochs, every epoch in a new order. Of the first n images shown, a source
    of share s has floor(n s) (the first source has the rest), so shares are exact up to one image at any
    time.
    """

    recipe: Recipe
    sizes: dict[str, int]
    batch: int
    seed: int
    _order: Callable[[str, int], NDArray[np.int64]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_order", lru_cache(maxsize=8)(self._permutation))

    def _permutation(self, source: str, epoch: int) -> NDArray[np.int64]:
        """Order of a source in one epoch. Every recipe sees real images in the same order."""
        rng = numpy_generator(self.seed, f"diagnosis/order/{source}", epoch)
        return rng.permutation(self.sizes[source])

    def _shown(self, images: int) -> dict[str, int]:
        """How many images of each source are among the first ``images``."""
        first, *others = self.recipe.shares
        counts = {source: int(images * self.recipe.shares[source]) for source in others}
        return {first: images - sum(counts.values()), **counts}

    def step(self, number: int) -> dict[str, NDArray[np.int64]]:
        """Rows of each source in the batch of one step (counted from 0)."""
        before, after = self._shown(number * self.batch), self._shown((number + 1) * self.batch)
        return {source: self._rows(source, before[source], after[source]) for source in before}

    def _rows(self, source: str, start: int, stop: int) -> NDArray[np.int64]:
        """Rows at the positions start .. stop-1 of a source's endless stream."""
        size = self.sizes[source]
        rows = [self._order(source, position // size)[position % size] for position in range(start, stop)]
        return np.array(rows, dtype=np.int64)
