"""A pretrained network and its texts as one module: what is trained, and what DDP or FSDP wraps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from equigen.diffusion.pretrained.family import Tensors
from equigen.diffusion.pretrained.memory import PromptTable
from equigen.errors import InputError, Problem

if TYPE_CHECKING:
    from equigen.diffusion.pretrained.pretrained import Pretrained


class TextDenoiser(torch.nn.Module):
    """f(z_t, t, c) where c is named by its number in a table of unique texts.

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
        """What the network gets for texts [B], on ``device``."""
        table_rows = self.table.take(numbers.cpu())
        inputs = {name: value.to(device, non_blocking=True) for name, value in table_rows.items()}
        if self.table.kind != "tokens":
            return inputs
        tokens = {name: value.long() for name, value in inputs.items()}  # kept in fewer bytes
        return self.family.embed(dict(self.encoders.items()), tokens)

    @contextmanager
    def swap_parameters(self, values: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Put other values into parameters by their name (averages, say) while the block runs; then the own ones again.

        With it ``Pretrained.save`` and ``save_lora`` write averaged weights. The own ones wait in the CPU's memory.
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
