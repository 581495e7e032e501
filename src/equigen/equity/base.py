"""Base classes of mechanisms that do not use the probe."""

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


class BaseMechanism:
    """A mechanism that uses training batches alone; a subclass has a ``name`` and ``weights``.

    ``memory`` holds the mechanism's state, as float64 or int64 tensors of fixed shape, which are restored
    when training resumes; a state of other ``settings`` is refused. Raises ``InputError`` for a cohort
    without attributes, unless ``needs_attributes`` is False.
    """

    name = "rule"
    needs_attributes = True

    def __init__(self, groups: Groups, seed: int, settings: Mapping[str, Setting] | None = None) -> None:
        if self.needs_attributes:
            check_groups(self.name, groups)
        self.groups, self.seed, self.settings = groups, seed, dict(settings or {})
        self.memory: dict[str, Tensor] = {}

    def weights(self, losses: Tensor, groups: Tensor, timesteps: Tensor, images_seen: int) -> Tensor:
        """Return ones [B]; subclasses override it."""
        self.groups.check(groups, len(losses))
        return torch.ones_like(losses)

    def wants_probe(self, images_seen: int) -> bool:
        """Return False."""
        return False

    def observe_probe(self, monitor: GroupLosses, images_seen: int) -> None:
        """Do nothing: the probe is not used."""

    def records(self) -> dict[str, float]:
        """Return no records."""
        return {}

    def sampling_weights(self, groups: Tensor) -> Tensor | None:
        """Return None, for the uniform stream."""
        return None

    def state_dict(self) -> State:
        """Return the header of the state and the memory."""
        return {**self._header(), **{key: value.clone() for key, value in self.memory.items()}}

    def load_state_dict(self, state: State) -> None:
        """Load ``state``; raises ``InputError`` where it does not fit."""
        check_state(state, self._header(), self._layout(), {})
        self.memory = {key: tensor_of(state, key) for key in self.memory}

    def _header(self) -> State:
        return header(self.name, self.groups, self.seed, self.settings)

    def _layout(self) -> Layout:
        return {key: (tuple(value.shape), value.dtype) for key, value in self.memory.items()}


class CensusMechanism(BaseMechanism):
    """A mechanism that uses the frequency of each group in the training set.

    It counts the training set when the loop calls ``sampling_weights``, before the first step; a batch is
    too small to count a rare group. The counts are part of the state, and other training images than those
    of the first run are refused.
    """

    def __init__(self, groups: Groups, seed: int, settings: Mapping[str, Setting] | None = None) -> None:
        super().__init__(groups, seed, settings)
        self.memory["census_cells"] = torch.zeros(0, len(groups.names), dtype=torch.int64)
        self.memory["census_counts"] = torch.zeros(0, dtype=torch.int64)
        self._census: Census | None = None

    @property
    def census(self) -> Census:
        """The counts of the training set; raises ``InputError`` before they are known."""
        if self._census is None:
            problem = Problem("the training images were not counted", "call sampling_weights before weights")
            raise InputError(f"The mechanism '{self.name}' needs the groups of the training set.", [problem])
        return self._census

    def initialise(self, census: Census) -> None:
        """Initialise the memory from the training set; a state that is loaded replaces it."""

    def sampling_weights(self, groups: Tensor) -> Tensor | None:
        """Count the training set [N, A]; returns None, for the uniform stream."""
        census = Census.from_index(self.groups, groups)
        if self._census is None:
            self._set_census(census)
        self._check_census(census)
        return None

    def records(self) -> dict[str, float]:
        """Return ``weight/<attribute>/<group>``, the current mean weight of the group's training images."""
        if self._census is None:
            return {}
        means = self.census.group_means(self.cell_weights())
        return {key: value for key, value in self.groups.records("weight", means).items() if not math.isnan(value)}

    def cell_weights(self) -> Tensor:
        """Return the current weight of each cell of the census, float64 [M]."""
        return torch.ones(len(self.census.counts), dtype=torch.float64)

    def load_state_dict(self, state: State) -> None:
        """Load ``state``; raises ``InputError`` where it, or its training set, does not fit."""
        check_state(state, self._header(), self._layout(), {})
        cells, counts = tensor_of(state, "census_cells"), tensor_of(state, "census_counts")
        if len(counts):
            counted = Census(self.groups, cells, counts)
            self._check_census(counted)
            self._set_census(counted)
        super().load_state_dict(state)
        if not len(counts) and self._census is not None:  # the state is from before the count
            self._set_census(self._census)

    def _set_census(self, census: Census) -> None:
        self._census = census
        self.memory["census_cells"], self.memory["census_counts"] = census.cells, census.counts
        self.initialise(census)

    def _check_census(self, census: Census) -> None:
        if self._census is not None and not self._census.equals(census):
            problem = Problem(
                f"there are {int(census.counts.sum())} images in {len(census.counts)} cells of groups there, and "
                f"{int(self._census.counts.sum())} in {len(self._census.counts)} here",
                "go on with the same cohort, or start a new run",
            )
            raise InputError("The training images are not those that the mechanism counted.", [problem])

    def _layout(self) -> Layout:
        loose: Layout = {
            "census_cells": ((None, len(self.groups.names)), torch.int64),
            "census_counts": ((None,), torch.int64),
        }
        return {**super()._layout(), **loose}
