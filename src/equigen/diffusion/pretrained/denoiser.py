"""A pretrained network and its texts as one module, which is trained, and which DDP or FSDP wraps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from safetensors import safe_open

from equigen.diffusion.pretrained.family import Tensors
from equigen.errors import InputError, Problem

if TYPE_CHECKING:
    from equigen.diffusion.pretrained.pretrained import Pretrained


class PromptTable(Protocol):
    """Rows by number. ``kind``: ``embeddings``, or ``tokens`` where a text encoder runs with the network."""

    kind: str

    def __len__(self) -> int:
        """Number of texts."""

    def take(self, numbers: torch.Tensor) -> Tensors:
        """Rows [B, ...] on the CPU for numbers [B]."""


class MemoryTable:
    """Rows in memory, from ``Pretrained.encode`` or ``family.tokenize``."""

    def __init__(self, rows: Mapping[str, torch.Tensor], kind: str = "embeddings") -> None:
        self.rows, self.kind = dict(rows), kind

    def __len__(self) -> int:
        """Number of texts."""
        return len(next(iter(self.rows.values())))

    def __deepcopy__(self, memo: dict[int, object]) -> MemoryTable:
        """Return the object itself, which is immutable."""
        return self

    def take(self, numbers: torch.Tensor) -> Tensors:
        """Rows [B, ...] for numbers [B]."""
        return {name: values[numbers] for name, values in self.rows.items()}


class MappedTable:
    """Rows in safetensors files on disk, read as needed.

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
        """Return the object itself, which is immutable."""
        return self

    def take(self, numbers: torch.Tensor) -> Tensors:
        """Rows [B, ...] for numbers [B]."""
        places = self._places[numbers].tolist()
        return {name: torch.stack([self._files[file][name][row] for file, row in places]) for name in self._files[0]}


def _mapped(file: Path) -> Tensors:
    """Return the tensors of a file, memory-mapped."""
    with safe_open(str(file), framework="pt") as handle:
        return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118


class TextDenoiser(torch.nn.Module):
    """f(z_t, t, c), where the text c is given as its number in a table of unique texts.

    Called as ``module(noisy [B, C, h, w], time [B], ids [B, 1])``. With a table of token numbers the text encoders run
    inside, and their weights belong to the module. Raises InputError when encoders are trained that a table of
    embeddings would leave out.
    """

    def __init__(self, pretrained: Pretrained, table: PromptTable) -> None:
        super().__init__()
        if pretrained.trains_text and table.kind != "tokens":
            problem = Problem("a text encoder is trained, but the table holds embeddings", "give one of token numbers")
            raise InputError("The prompts do not fit the training.", [problem])
        self.network: torch.nn.Module = pretrained.network
        self.family, self.table, self.factor = pretrained.family, table, pretrained.autoencoder.factor
        self.encoders = torch.nn.ModuleDict(pretrained.encoders if table.kind == "tokens" else {})

    def forward(self, noisy: torch.Tensor, time: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """f(z_t, t, c): [B, C, h, w], [B], [B, 1] -> [B, C, h, w] float32."""
        dtype = next(self.network.parameters()).dtype
        rows = self.rows(ids[:, 0], noisy.device)
        inputs = {name: value.to(dtype) if value.is_floating_point() else value for name, value in rows.items()}
        return self.family.call(self.network, noisy.to(dtype), time, inputs, self.factor).float()

    def rows(self, numbers: torch.Tensor, device: torch.device) -> Tensors:
        """Return the network's text inputs for texts [B], on ``device``."""
        table_rows = self.table.take(numbers.cpu())
        inputs = {name: value.to(device, non_blocking=True) for name, value in table_rows.items()}
        if self.table.kind != "tokens":
            return inputs
        tokens = {name: value.long() for name, value in inputs.items()}  # kept in fewer bytes
        return self.family.embed(dict(self.encoders.items()), tokens)

    @contextmanager
    def swap_parameters(self, values: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Replace parameters by name (by averages, say) within the block, and restore them after it.

        With it ``Pretrained.save`` and ``save_lora`` write averaged weights. The original values stay in CPU memory.
        """
        parameters = dict(self.named_parameters())
        originals = {name: parameters[name].detach().to("cpu", copy=True) for name in values}
        try:
            _fill(parameters, values)
            yield
        finally:
            _fill(parameters, originals)


@torch.no_grad()
def _fill(parameters: Mapping[str, torch.nn.Parameter], values: Mapping[str, torch.Tensor]) -> None:
    for name, value in values.items():
        parameters[name].copy_(value)
