"""What mechanisms without a probe have in common: a base to write new ones on."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from equigen.equity.group_counts import Census
from equigen.equity.groups import Groups
from equigen.equity.interface import State
from equigen.equity.monitor import GroupLosses
from equigen.equity.state import Layout, Setting, check_groups, check_state, header, tensor_of
from equigen.errors import InputError, Problem


class Rule:
    """A mechanism that looks at training batches alone; a subclass has a ``name`` and ``weights``.

    ``memory`` holds all that is remembered, as float64 or int64 tensors of fixed shape. The state is made
    of it, so what a subclass keeps there survives a restart, and ``settings`` say what the state fits.
    Raises ``InputError`` for a cohort without attributes.
    """

    name = "rule"

    def __init__(self, groups: Groups, seed: int, settings: Mapping[str, Setting] | None = None) -> None:
        check_groups(self.name, groups)
        self.groups, self.seed, self.settings = groups, seed, dict(settings or {})
        self.memory: dict[str, Tensor] = {}

    def weights(self, losses: Tensor, groups: Tensor, timesteps: Tensor, images_seen: int) -> Tensor:
        """Ones [B], until a subclass says otherwise."""
        self.groups.check(groups, len(losses))
        return torch.ones_like(losses)

    def wants_probe(self, images_seen: int) -> bool:
        """Never."""
        return False

    def observe_probe(self, monitor: GroupLosses, images_seen: int) -> None:
        """Not looked at."""

    def records(self) -> dict[str, float]:
        """Nothing to log."""
        return {}

    def sampling_weights(self, groups: Tensor) -> Tensor | None:
        """None: the uniform stream."""
        return None

    def state_dict(self) -> State:
        """Whose state it is, and the memory."""
        return {**self._header(), **{key: value.clone() for key, value in self.memory.items()}}

    def load_state_dict(self, state: State) -> None:
        """Go on from ``state``; ``InputError`` where it does not fit."""
        check_state(state, self._header(), self._layout(), {})
        self.memory = {key: tensor_of(state, key) for key in self.memory}

    def _header(self) -> State:
        return header(self.name, self.groups, self.seed, self.settings)

    def _layout(self) -> Layout:
        return {key: (tuple(value.shape), value.dtype) for key, value in self.memory.items()}


class CountedRule(Rule):
    """A rule that knows how often each group stands in the training set.

    It counts when the loop asks for the sampling weights, before the first step, and never in a batch: a
    batch has none of a rare group, or one too many. The counts are in the state; other training images
    than those of the first run are refused.
    """

    def __init__(self, groups: Groups, seed: int, settings: Mapping[str, Setting] | None = None) -> None:
        super().__init__(groups, seed, settings)
        self.memory["census_cells"] = torch.zeros(0, len(groups.names), dtype=torch.int64)
        self.memory["census_counts"] = torch.zeros(0, dtype=torch.int64)
        self._census: Census | None = None

    @property
    def census(self) -> Census:
        """The training set, counted; ``InputError`` before it has been."""
        if self._census is None:
            problem = Problem("the training images were not counted", "call sampling_weights before weights")
            raise InputError(f"The mechanism '{self.name}' needs the groups of the training set.", [problem])
        return self._census

    def begin(self, census: Census) -> None:
        """Called when the training set becomes known; a state that is loaded takes the place of what it sets."""

    def sampling_weights(self, groups: Tensor) -> Tensor | None:
        """Count the training set [N, A]; None: the uniform stream."""
        census = Census.of(self.groups, groups)
        if self._census is None:
            self._keep(census)
        self._check_same(census)
        return None

    def records(self) -> dict[str, float]:
        """``weight/<attribute>/<group>``: the mean weight that the group's training images have now."""
        if self._census is None:
            return {}
        means = self.census.group_means(self.cell_weights())
        return {key: value for key, value in self.groups.records("weight", means).items() if not math.isnan(value)}

    def cell_weights(self) -> Tensor:
        """The weight of each cell of the census now, float64 [M]."""
        return torch.ones(len(self.census.counts), dtype=torch.float64)

    def load_state_dict(self, state: State) -> None:
        """Go on from ``state``; ``InputError`` where it, or the training set, is another's."""
        check_state(state, self._header(), self._layout(), {})
        cells, counts = tensor_of(state, "census_cells"), tensor_of(state, "census_counts")
        if len(counts):
            counted = Census(self.groups, cells, counts)
            self._check_same(counted)
            self._keep(counted)
        super().load_state_dict(state)
        if not len(counts) and self._census is not None:  # the state is from before the count
            self._keep(self._census)

    def _keep(self, census: Census) -> None:
        self._census = census
        self.memory["census_cells"], self.memory["census_counts"] = census.cells, census.counts
        self.begin(census)

    def _check_same(self, other: Census) -> None:
        if self._census is not None and not self._census.equals(other):
            problem = Problem(
                f"there are {int(other.counts.sum())} images in {len(other.counts)} cells of groups there, and "
                f"{int(self._census.counts.sum())} in {len(self._census.counts)} here",
                "go on with the same cohort, or start a new run")
            raise InputError("The training images are not those that the mechanism counted.", [problem])

    def _layout(self) -> Layout:
        loose: Layout = {"census_cells": ((None, len(self.groups.names)), torch.int64),
                         "census_counts": ((None,), torch.int64)}
        return {**super()._layout(), **loose}
