"""Families of pretrained pipelines: how each encodes text and calls its network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from transformers.utils import logging

from equigen.progress import silence_library

Tensors = dict[str, torch.Tensor]


class Family(ABC):
    """One kind of pipeline, with the tokenizers and settings of one instance, and no weights.

    ``tokenize`` and ``embed`` return the rows that are cached, one for each prompt; ``call`` gives rows to the network.
    """

    pipelines: ClassVar[tuple[str, ...]]  # classes of diffusers
    network: ClassVar[str]  # the part that denoises ...
    network_class: ClassVar[str]  # ... and its class
    encoders: ClassVar[tuple[str, ...]]  # parts that read text
    text_trained: ClassVar[tuple[str, ...]]  # those of them that training may change
    lora_targets: ClassVar[tuple[str, ...]]  # layers of the network that LoRA adapts unless told otherwise
    plain_lora: ClassVar[bool]  # whether the plain pipeline has load_lora_weights
    omitted: ClassVar[Mapping[str, Any]] = {}  # parts and settings of the plain pipeline that are left out
    optional: ClassVar[tuple[str, ...]] = ()  # encoders that a pipeline may lack

    def __init__(self, pipeline: Any) -> None:
        self.kind = type(pipeline).__name__
        tokenizers = {name: getattr(pipeline, name.replace("text_encoder", "tokenizer")) for name in self.encoders}
        self.tokenizers: dict[str, Any] = {name: value for name, value in tokenizers.items() if value is not None}

    def __deepcopy__(self, memo: dict[int, Any]) -> Family:
        """Return the object itself, which is immutable."""
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """Settings besides weights that a prompt's rows depend on."""
        return {"limits": self.limits}

    @property
    def limits(self) -> dict[str, int]:
        """The longest prompt of each encoder, in tokens with the special ones."""
        return {name: int(tokenizer.model_max_length) for name, tokenizer in self.tokenizers.items()}

    def clean_prompt(self, text: str) -> str:
        """Return a prompt as the tokenizers read it."""
        return text

    def tokenize(self, texts: Sequence[str]) -> Tensors:
        """Return token numbers [B, L] int64 of texts by encoder, padded and cut to ``limits``; see ``embed``."""
        return {name: self._padded(name, texts)["input_ids"] for name in self.tokenizers}

    def token_counts(self, texts: Sequence[str]) -> dict[str, list[int]]:
        """Return the number of tokens of each text for each encoder, special ones included, before truncation."""
        ready = [self.clean_prompt(text) for text in texts]
        with silence_library(logging):  # its remark on long texts is ours to make, with the row
            return {
                name: [len(ids) for ids in tokenizer(ready)["input_ids"]] for name, tokenizer in self.tokenizers.items()
            }

    def _padded(self, name: str, texts: Sequence[str]) -> Any:
        return self.tokenizers[name](
            [self.clean_prompt(text) for text in texts],
            padding="max_length",
            max_length=self.limits[name],
            truncation=True,
            return_tensors="pt",
        )

    @abstractmethod
    def embed(self, encoders: Mapping[str, Any], tokens: Tensors) -> Tensors:
        """Return the rows for ``call`` from those of ``tokenize``; with gradients where the caller enables them."""

    @abstractmethod
    def call(self, network: Any, noisy: torch.Tensor, time: torch.Tensor, rows: Tensors, factor: int) -> torch.Tensor:
        """f(z_t, t, c): [B, C, h, w], [B], one row of text for each image -> [B, C, h, w].

        ``factor``: pixels on a side of one latent position, for networks that are told the image's size.
        """

    def statistics(self, autoencoder: Any) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of each latent channel [C], by which the pipeline normalises latents."""
        channels = int(autoencoder.config.latent_channels)
        return [0.0] * channels, [1 / float(autoencoder.config.scaling_factor)] * channels

    def unused_weights(self, encoders: Mapping[str, Any]) -> list[torch.nn.Parameter]:
        """Return weights of the encoders that the rows do not depend on; they are not trained."""
        return []
