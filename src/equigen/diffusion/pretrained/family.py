"""What sets the families of pretrained pipelines apart: how text is encoded, and how the network is called."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from transformers.utils import logging

from equigen.progress import silence_library

Tensors = dict[str, torch.Tensor]


class Family(ABC):
    """One kind of pipeline. It keeps the tokenizers and settings of the pipeline it was made for, and no weights.

    Text goes two ways: ``tokenize`` and ``embed`` give what is cached for each prompt, one row a prompt; ``call`` hands
    rows to the network.
    """

    pipelines: ClassVar[tuple[str, ...]]      # classes of diffusers
    network: ClassVar[str]                    # the part that denoises ...
    network_class: ClassVar[str]              # ... and its class
    encoders: ClassVar[tuple[str, ...]]       # parts that read text
    text_trained: ClassVar[tuple[str, ...]]   # those of them that training may change
    lora_targets: ClassVar[tuple[str, ...]]   # layers of the network that LoRA adapts unless told otherwise
    plain_lora: ClassVar[bool]                # whether the plain pipeline has load_lora_weights
    absent: ClassVar[Mapping[str, Any]] = {}  # parts and settings of the plain pipeline that are left out
    optional: ClassVar[tuple[str, ...]] = ()  # encoders that a pipeline may lack

    def __init__(self, pipeline: Any) -> None:
        self.kind = type(pipeline).__name__
        held = {name: getattr(pipeline, name.replace("text_encoder", "tokenizer")) for name in self.encoders}
        self.tokenizers: dict[str, Any] = {name: part for name, part in held.items() if part is not None}

    def __deepcopy__(self, memo: dict[int, Any]) -> Family:
        """Itself: nothing in it changes."""
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """What besides weights decides what a prompt's rows hold."""
        return {"limits": self.limits}

    @property
    def limits(self) -> dict[str, int]:
        """The longest prompt of each encoder, in tokens with the special ones."""
        return {name: int(tokenizer.model_max_length) for name, tokenizer in self.tokenizers.items()}

    def prepared(self, text: str) -> str:
        """A prompt as the tokenizers get it."""
        return text

    def tokenize(self, texts: Sequence[str]) -> Tensors:
        """Texts -> token numbers [B, L] int64 by encoder, padded and cut to ``limits``; see ``embed``."""
        return {name: self._padded(name, texts)["input_ids"] for name in self.tokenizers}

    def token_counts(self, texts: Sequence[str]) -> dict[str, list[int]]:
        """How many tokens each text has for each encoder, special ones included, before it is cut."""
        ready = [self.prepared(text) for text in texts]
        with silence_library(logging):  # its remark on long texts is ours to make, with the row
            return {
                name: [len(ids) for ids in tokenizer(ready)["input_ids"]] for name, tokenizer in self.tokenizers.items()
            }

    def _padded(self, name: str, texts: Sequence[str]) -> Any:
        return self.tokenizers[name](
            [self.prepared(text) for text in texts],
            padding="max_length",
            max_length=self.limits[name],
            truncation=True,
            return_tensors="pt",
        )

    @abstractmethod
    def embed(self, encoders: Mapping[str, Any], tokens: Tensors) -> Tensors:
        """Rows of ``tokenize`` -> the rows that ``call`` takes; with gradients where the caller has them on."""

    @abstractmethod
    def call(self, network: Any, noisy: torch.Tensor, time: torch.Tensor, rows: Tensors, factor: int) -> torch.Tensor:
        """f(z_t, t, c): [B, C, h, w], [B], one row of text for each image -> [B, C, h, w].

        ``factor``: pixels on a side of one latent position, for networks that are told the image's size.
        """

    def statistics(self, autoencoder: Any) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each latent channel [C] by which the plain pipeline normalises latents."""
        channels = int(autoencoder.config.latent_channels)
        return [0.0] * channels, [1 / float(autoencoder.config.scaling_factor)] * channels

    def idle(self, encoders: Mapping[str, Any]) -> list[torch.nn.Parameter]:
        """Weights of the encoders that the rows do not depend on, and that training leaves alone."""
        return []
