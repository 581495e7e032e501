"""The groups of a cohort: the levels of its attributes, in a flat order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from equigen.errors import InputError, Problem


@dataclass(frozen=True)
class Groups:
    """The attributes of a cohort and their groups, in the order of the columns of a group index.

    ``names`` is ((attribute, (level, ...)), ...). The K groups of all attributes stand in one flat order,
    attribute after attribute, level after level; vectors "[K]" of mechanisms follow it. Raises
    ``InputError`` on an attribute without levels, a repeated name, or "/" in an attribute's name, which
    separates the parts of a record's key.
    """

    names: tuple[tuple[str, tuple[str, ...]], ...]

    def __post_init__(self) -> None:
        problems = [
            Problem(message, "mend the attribute's levels in the cohort", column=attribute)
            for position, (attribute, levels) in enumerate(self.names)
            for message, wrong in {
                "the attribute has no levels": not levels,
                "a level is named twice": len(set(levels)) < len(levels),
                "the attribute is named twice": attribute in self.attributes[:position],
                "'/' cannot stand in an attribute's name": "/" in attribute,
            }.items()
            if wrong
        ]
        if problems:
            raise InputError("These attributes cannot be used as groups.", problems)

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the A attributes."""
        return tuple(attribute for attribute, _ in self.names)

    @cached_property
    def index(self) -> tuple[tuple[str, str], ...]:
        """(attribute, level) of each of the K groups, in flat order."""
        return tuple((attribute, level) for attribute, levels in self.names for level in levels)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """The slice of each attribute's groups in the flat order."""
        stops, start = {}, 0
        for attribute, levels in self.names:
            stops[attribute] = slice(start, start + len(levels))
            start += len(levels)
        return stops

    def __len__(self) -> int:
        """K, the number of groups of all attributes."""
        return len(self.index)

    def records(self, kind: str, values: Tensor) -> dict[str, float]:
        """Return records ``kind/<attribute>/<level>`` of one value [K] per group."""
        return {f"{kind}/{a}/{g}": float(v) for (a, g), v in zip(self.index, values.tolist(), strict=True)}

    def check(self, groups: Tensor, rows: int) -> None:
        """Raise InputError for a group index that is not integer [rows, A] with values in -1 .. levels-1.

        Values are checked on the CPU only: on a GPU that would wait for the device. There a value out of
        range gives NaN weights (``image_values``), which the training step refuses.
        """
        if groups.shape != (rows, len(self.names)) or groups.is_floating_point():
            actual = f"{tuple(groups.shape)} {groups.dtype}"
            problem = Problem(
                f"the group index is {actual}, not integer ({rows}, {len(self.names)})",
                "give one row an image and one column an attribute",
            )
            raise InputError("The group index does not fit the attributes.", [problem])
        if groups.device.type == "cpu" and rows:
            _check_range(self, groups)

    def image_values(self, values: Tensor, groups: Tensor) -> Tensor:
        """Return the value of each image's groups: [K] and index [B, A] -> float32 [B, A], 0 where unknown (-1)."""
        widest = max((len(levels) for _, levels in self.names), default=0)
        table = torch.full((len(self.names), widest + 1), torch.nan)
        for row, (attribute, levels) in enumerate(self.names):
            table[row, : len(levels)] = values[self.slices[attribute]]
        table[:, widest] = 0.0
        slot = torch.where(groups < 0, widest, groups).long()
        return table.to(groups.device).t().gather(0, slot)


def _check_range(names: Groups, groups: Tensor) -> None:
    low, high = groups.amin(0).tolist(), groups.amax(0).tolist()
    problems = [
        Problem(f"{bad} is outside -1..{len(levels) - 1}", "-1 is unknown, else a level", column=attribute)
        for (attribute, levels), small, large in zip(names.names, low, high, strict=True)
        for bad in {small, large}
        if not -1 <= bad < len(levels)
    ]
    if problems:
        raise InputError("The group index does not fit the attributes.", problems)
