"""Stable Diffusion 3: a transformer over image and text tokens, with flow matching (Esser et al. 2024, 2403.03206)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from equigen.diffusion.pretrained.family import Family, Tensors

CLIPS = ("text_encoder", "text_encoder_2")
T5_LENGTH = 256  # tokens of the third encoder, as the plain pipeline has it unless told otherwise


class StableDiffusion3(Family):
    """Two CLIPs, with or without T5. Without it the network sees zeros in its place, as in the plain pipeline."""

    pipelines = ("StableDiffusion3Pipeline",)
    network, network_class = "transformer", "SD3Transformer2DModel"
    encoders = (*CLIPS, "text_encoder_3")
    text_trained = CLIPS  # T5 is too large, and is not trained elsewhere either
    lora_targets = (
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
    )
    plain_lora = True
    omitted: ClassVar = {"image_encoder": None, "feature_extractor": None}
    optional = ("text_encoder_3",)

    def __init__(self, pipeline: Any) -> None:
        super().__init__(pipeline)
        self.width = int(pipeline.transformer.config.joint_attention_dim)
        self.length = int(pipeline.tokenizer_max_length)

    @property
    def limits(self) -> dict[str, int]:
        """The first tokenizer's limit for both CLIPs, and 256 for T5."""
        return {name: T5_LENGTH if name == "text_encoder_3" else self.length for name in self.tokenizers}

    def embed(self, encoders: Mapping[str, Any], tokens: Tensors) -> Tensors:
        """``clip`` [B, 77, W1 + W2], ``pooled`` [B, P1 + P2], and with T5 ``t5`` [B, 256, W3]."""
        clips = [encoders[name](tokens[name], output_hidden_states=True) for name in CLIPS]
        rows = {
            "clip": torch.cat([clip.hidden_states[-2] for clip in clips], dim=-1),
            "pooled": torch.cat([clip[0] for clip in clips], dim=-1),
        }
        if "text_encoder_3" in encoders:
            rows["t5"] = encoders["text_encoder_3"](tokens["text_encoder_3"])[0]
        return rows

    def call(self, network: Any, noisy: torch.Tensor, time: torch.Tensor, rows: Tensors, factor: int) -> torch.Tensor:
        """The transformer; CLIP's states are widened by zeros to T5's, and T5's stand behind them."""
        clip = torch.nn.functional.pad(rows["clip"], (0, self.width - rows["clip"].shape[-1]))
        t5 = rows.get("t5")
        if t5 is None:
            t5 = clip.new_zeros(len(clip), T5_LENGTH, self.width)
        output: torch.Tensor = network(
            hidden_states=noisy,
            timestep=time,
            encoder_hidden_states=torch.cat([clip, t5], dim=1),
            pooled_projections=rows["pooled"],
            return_dict=False,
        )[0]
        return output

    def statistics(self, autoencoder: Any) -> tuple[list[float], list[float]]:
        """Besides the scale, one shift for all channels."""
        mean, std = super().statistics(autoencoder)
        return [float(autoencoder.config.shift_factor or 0.0)] * len(mean), std
