"""PixArt-alpha and PixArt-sigma: a diffusion transformer that attends to T5 (Chen et al. 2023, arXiv 2310.00426)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from equigen.diffusion.pretrained.family import Family, Tensors
from equigen.diffusion.pretrained.stable_diffusion import ATTENTION

LENGTHS = {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300}  # tokens, as the plain pipelines have them


class PixArt(Family):
    """T5 with a mask; the network's learned variances are left out, and only its noise is trained and used.

    Prompts are put in lower case without outer blanks, as the plain pipeline does with ``clean_caption=False``.
    """

    pipelines = ("PixArtAlphaPipeline", "PixArtSigmaPipeline")
    network, network_class = "transformer", "PixArtTransformer2DModel"
    encoders = text_trained = ("text_encoder",)
    lora_targets, plain_lora = ATTENTION, False  # peft loads it: the plain pipeline has no load_lora_weights

    def __init__(self, pipeline: Any) -> None:
        super().__init__(pipeline)
        self.sized = bool(pipeline.transformer.use_additional_conditions)

    @property
    def limits(self) -> dict[str, int]:
        """120 tokens for alpha, 300 for sigma."""
        return dict.fromkeys(self.tokenizers, LENGTHS[self.kind])

    def clean_prompt(self, text: str) -> str:
        """Lower case, without outer blanks."""
        return text.lower().strip()

    def tokenize(self, texts: Sequence[str]) -> Tensors:
        """Token numbers and mask [B, L]."""
        padded = self._padded("text_encoder", texts)
        return {"tokens": padded["input_ids"], "mask": padded["attention_mask"].to(torch.uint8)}

    def embed(self, encoders: Mapping[str, Any], tokens: Tensors) -> Tensors:
        """``hidden`` [B, L, W] and the ``mask`` [B, L] of what is no padding."""
        output = encoders["text_encoder"](tokens["tokens"], attention_mask=tokens["mask"].long())
        return {"hidden": output[0], "mask": tokens["mask"]}

    def call(self, network: Any, noisy: torch.Tensor, time: torch.Tensor, rows: Tensors, factor: int) -> torch.Tensor:
        """The transformer; those made for 1024 pixels are told size and aspect ratio."""
        height, width = noisy.shape[2] * factor, noisy.shape[3] * factor
        resolution, ratio = noisy.new_tensor([[height, width]]), noisy.new_tensor([[height / width]])
        conditions = {"resolution": resolution, "aspect_ratio": ratio}
        sizes = {name: value.expand(len(noisy), -1) if self.sized else None for name, value in conditions.items()}
        output: torch.Tensor = network(
            noisy,
            encoder_hidden_states=rows["hidden"],
            encoder_attention_mask=rows["mask"].long(),
            timestep=time,
            added_cond_kwargs=sizes,
            return_dict=False,
        )[0]
        return output[:, : noisy.shape[1]]
