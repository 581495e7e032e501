"""Stable Diffusion 1.x and 2.x: a U-Net that attends to the hidden states of one text encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from equigen.diffusion.pretrained.family import Family, Tensors

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


class StableDiffusion(Family):
    """The U-Net with CLIP; also with any transformers encoder whose first output is [B, L, W] (networks made here)."""

    pipelines = ("StableDiffusionPipeline",)
    network, network_class = "unet", "UNet2DConditionModel"
    encoders = text_trained = ("text_encoder",)
    lora_targets, plain_lora = ATTENTION, True
    # the checker judges photographs of people and blackens what it dislikes; the others belong to it, or to adapters
    omitted: ClassVar = {
        "safety_checker": None, "feature_extractor": None, "image_encoder": None, "requires_safety_checker": False
    }  # fmt: skip

    def __init__(self, pipeline: Any) -> None:
        super().__init__(pipeline)
        self.masked = bool(getattr(pipeline.text_encoder.config, "use_attention_mask", False))

    @property
    def settings(self) -> dict[str, Any]:
        """Besides the limits, whether the encoder is told which tokens only pad."""
        return {**super().settings, "masked": self.masked}

    def tokenize(self, texts: Sequence[str]) -> Tensors:
        """Token numbers, and the mask where the encoder takes one."""
        padded = self._padded("text_encoder", texts)
        mask = {"mask": padded["attention_mask"]} if self.masked else {}
        return {"tokens": padded["input_ids"], **mask}

    def embed(self, encoders: Mapping[str, Any], tokens: Tensors) -> Tensors:
        """``hidden`` [B, L, W]: the encoder's last hidden states after its last norm."""
        output = encoders["text_encoder"](tokens["tokens"], attention_mask=tokens.get("mask"))
        return {"hidden": output[0]}

    def call(self, network: Any, noisy: torch.Tensor, time: torch.Tensor, rows: Tensors, factor: int) -> torch.Tensor:
        """The U-Net with cross-attention to the text."""
        output: torch.Tensor = network(noisy, time, encoder_hidden_states=rows["hidden"], return_dict=False)[0]
        return output

    def unused_weights(self, encoders: Mapping[str, Any]) -> list[torch.nn.Parameter]:
        """BERT's pooler, whose output a U-Net does not see."""
        pooler = getattr(encoders["text_encoder"], "pooler", None)
        return [] if pooler is None else list(pooler.parameters())
