"""What the network gets for each unique text, kept on the CPU: only a batch's rows are moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open

from equigen.diffusion.pretrained.family import Tensors


class PromptTable(Protocol):
    """Rows by number. ``kind``: ``embeddings``, or ``tokens`` where a text encoder runs with the network."""

    kind: str

    def __len__(self) -> int:
        """Number of texts."""

    def take(self, numbers: torch.Tensor) -> Tensors:
        """Rows [B, ...] on the CPU for numbers [B]."""


class MemoryTable:
    """Rows in memory: what ``Pretrained.encode`` or ``family.tokenize`` gave."""

    def __init__(self, rows: Mapping[str, torch.Tensor], kind: str = "embeddings") -> None:
        self.rows, self.kind = dict(rows), kind

    def __len__(self) -> int:
        """Number of texts."""
        return len(next(iter(self.rows.values())))

    def __deepcopy__(self, memo: dict[int, object]) -> MemoryTable:
        """Itself: it is only read."""
        return self

    def take(self, numbers: torch.Tensor) -> Tensors:
        """Rows [B, ...] for numbers [B]."""
        return {name: values[numbers] for name, values in self.rows.items()}


class MappedTable:
    """Rows in safetensors files that stay on disk: what is not asked for is not read.

    ``places``: the file and the row in it of each text.
    """

    kind = "embeddings"

    def __init__(self, places: Sequence[tuple[Path, int]]) -> None:
        files = list(dict.fromkeys(file for file, _ in places))
        self._files = [_mapped(file) for file in files]
        numbers = {file: number for number, file in enumerate(files)}
        self._places = torch.tensor([(numbers[file], row) for file, row in places], dtype=torch.int64).view(-1, 2)

    def __len__(self) -> int:
        """Number of texts."""
        return len(self._places)

    def __deepcopy__(self, memo: dict[int, object]) -> MappedTable:
        """Itself: it is only read."""
        return self

    def take(self, numbers: torch.Tensor) -> Tensors:
        """Rows [B, ...] for numbers [B]."""
        places = self._places[numbers].tolist()
        return {name: torch.stack([self._files[file][name][row] for file, row in places]) for name in self._files[0]}


def _mapped(file: Path) -> Tensors:
    """A file's tensors as views of the file itself."""
    with safe_open(str(file), framework="pt") as handle:
        return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
