"""Recipes: the share of each source of images in the training of a classifier."""

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
    """A training mixture: exact shares of the sources, which sum to 1."""

    name: str
    shares: dict[str, Fraction]


def _mixture(match: re.Match[str]) -> dict[str, Fraction]:
    """Shares 1 / (1 + r) and r / (1 + r) for r synthetic images per real image."""
    ratio = Fraction(match["ratio"])
    return {REAL: 1 / (1 + ratio), match["source"]: ratio / (1 + ratio)}


NAME = r"(?P<source>[A-Za-z0-9_.\-]+)"
FORMS: list[tuple[str, str, Callable[[re.Match[str]], dict[str, Fraction]]]] = [
    ("real", r"real", lambda match: {REAL: Fraction(1)}),
    ("real+<generator>@<ratio>", rf"real\+{NAME}@(?P<ratio>\d+(\.\d+)?)", _mixture),
    (
        "synthetic or synthetic:<generator>",
        rf"synthetic(:{NAME})?",
        lambda match: {match["source"] or SYNTHETIC: Fraction(1)},
    ),
]


def parse_recipe(name: str, sources: Iterable[str]) -> Recipe:
    """The recipe of a name.

    ``real``: the real training split alone. ``real+<generator>@<ratio>``: ``ratio`` synthetic images per real image,
    mixed in every batch. ``synthetic`` (``synthetic:<generator>`` with several generators): synthetic images alone,
    FairDiffusion's protocol (METHODS section 7).

    Raises:
        InputError: an invalid name, a ratio of 0, or an unknown generator.

    >>> parse_recipe("real+synthetic@0.5", ["synthetic"]).shares["synthetic"]
    Fraction(1, 3)

    """
    available = [REAL, *sources]
    for _, pattern, shares_of in FORMS:
        match = re.fullmatch(pattern, name)
        if match is None:
            continue
        shares = shares_of(match)
        unknown = [source for source in shares if source not in available]
        if unknown:
            listed = ", ".join(available[1:]) or "none"
            raise InputError(
                "A recipe needs a synthetic set that was not given.",
                [Problem(f"recipe '{name}' uses '{unknown[0]}'", f"synthetic sets are: {listed}")],
            )
        if 0 in shares.values():
            raise InputError("A mixing ratio is above 0.", [Problem(f"recipe '{name}'", "for ratio 0 write 'real'")])
        return Recipe(name, shares)
    forms = "; ".join(form for form, _, _ in FORMS)
    raise InputError("There is no such recipe.", [Problem(f"'{name}' is not known", f"recipes are: {forms}")])


def recipe_names(ratios: Sequence[float], generators: Sequence[str]) -> list[str]:
    """Recipe names of ratios: ``real`` for 0, and ``real+<generator>@<ratio>`` for each generator and other ratio.

    >>> recipe_names([0, 0.5], ["fair"])
    ['real', 'real+fair@0.5']
    """
    names = ["real"] if 0 in ratios else []
    return names + [f"real+{generator}@{ratio:g}" for generator in generators for ratio in ratios if ratio != 0]


@dataclass(frozen=True)
class Stream:
    """The training images of each step as a function of the step alone, so that a fit can be resumed anywhere.

    Each source is traversed in epochs with a new order in every epoch. Of the first n images a source of share s has
    floor(n s) (the first source has the rest), so that shares are exact up to one image at any time.
    """

    recipe: Recipe
    sizes: dict[str, int]
    batch: int
    seed: int
    _order: Callable[[str, int], NDArray[np.int64]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_order", lru_cache(maxsize=8)(self._permutation))

    def _permutation(self, source: str, epoch: int) -> NDArray[np.int64]:
        """Order of a source in one epoch; that of real images is the same in every recipe."""
        rng = numpy_generator(self.seed, f"diagnosis/order/{source}", epoch)
        return rng.permutation(self.sizes[source])

    def _counts(self, images: int) -> dict[str, int]:
        """Number of images of each source among the first ``images``."""
        first, *rest = self.recipe.shares
        counts = {source: int(images * self.recipe.shares[source]) for source in rest}
        return {first: images - sum(counts.values()), **counts}

    def step(self, number: int) -> dict[str, NDArray[np.int64]]:
        """Rows of each source in the batch of one step (counted from 0)."""
        before, after = self._counts(number * self.batch), self._counts((number + 1) * self.batch)
        rows = {}
        for source in before:
            size = self.sizes[source]
            positions = range(before[source], after[source])
            indices = [self._order(source, position // size)[position % size] for position in positions]
            rows[source] = np.array(indices, dtype=np.int64)
        return rows
