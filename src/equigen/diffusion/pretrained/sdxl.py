"""Stable Diffusion XL: two encoders, their pooled text, and the image's size (Podell et al. 2023, arXiv 2307.01952)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from equigen.diffusion.pretrained.family import Family, Tensors
from equigen.diffusion.pretrained.stable_diffusion import ATTENTION


class StableDiffusionXL(Family):
    """The empty prompt is all zeros where the pipeline's ``force_zeros_for_empty_prompt`` says so.

    The plain pipeline then guides away from zeros too, unless it is given a negative prompt. Images are told to be
    whole and square: original and target size as they are made, no crop.
    """

    pipelines = ("StableDiffusionXLPipeline",)
    network, network_class = "unet", "UNet2DConditionModel"
    encoders = text_trained = ("text_encoder", "text_encoder_2")
    lora_targets, plain_lora = ATTENTION, True
    omitted: ClassVar = {"image_encoder": None, "feature_extractor": None, "add_watermarker": False}

    def __init__(self, pipeline: Any) -> None:
        super().__init__(pipeline)
        self.zeros = bool(pipeline.config.force_zeros_for_empty_prompt)

    @property
    def settings(self) -> dict[str, Any]:
        """Besides the limits, what the empty prompt is."""
        return {**super().settings, "zeros": self.zeros}

    def tokenize(self, texts: Sequence[str]) -> Tensors:
        """Token numbers by encoder, and ``mask`` [B]: 0 where the rows are zeros."""
        mask = torch.tensor([not (self.zeros and text == "") for text in texts])
        return {**super().tokenize(texts), "given": mask.to(torch.uint8)}

    def embed(self, encoders: Mapping[str, Any], tokens: Tensors) -> Tensors:
        """``hidden`` [B, L, W1 + W2]: states before the last layers; ``pooled`` [B, P]: the second encoder's text."""
        outputs = {name: encoder(tokens[name], output_hidden_states=True) for name, encoder in encoders.items()}
        hidden = torch.cat([output.hidden_states[-2] for output in outputs.values()], dim=-1)
        mask = tokens["given"].to(hidden.dtype)[:, None]
        return {"hidden": hidden * mask[..., None], "pooled": outputs["text_encoder_2"][0] * mask}

    def call(self, network: Any, noisy: torch.Tensor, time: torch.Tensor, rows: Tensors, factor: int) -> torch.Tensor:
        """The U-Net with cross-attention, pooled text and sizes (height, width, 0, 0, height, width) in pixels."""
        height, width = noisy.shape[2] * factor, noisy.shape[3] * factor
        sizes = torch.tensor([height, width, 0, 0, height, width], dtype=rows["pooled"].dtype, device=noisy.device)
        output: torch.Tensor = network(
            noisy,
            time,
            encoder_hidden_states=rows["hidden"],
            added_cond_kwargs={"text_embeds": rows["pooled"], "time_ids": sizes.expand(len(noisy), -1)},
            return_dict=False,
        )[0]
        return output

    def statistics(self, autoencoder: Any) -> tuple[list[float], list[float]]:
        """Also mean and deviation of each channel, where the autoencoder's configuration has them."""
        mean, std = super().statistics(autoencoder)
        config = autoencoder.config
        if getattr(config, "latents_mean", None) is not None and getattr(config, "latents_std", None) is not None:
            return [float(m) for m in config.latents_mean], [float(s) * std[0] for s in config.latents_std]
        return mean, std

    def unused_weights(self, encoders: Mapping[str, Any]) -> list[torch.nn.Parameter]:
        """The first encoder's last layer and norm: its states are taken before them."""
        first = encoders["text_encoder"]
        return [*first.encoder.layers[-1].parameters(), *first.final_layer_norm.parameters()]
