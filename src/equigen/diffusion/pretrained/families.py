"""The families: Stable Diffusion 1.x, 2.x, XL and 3, and PixArt."""

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
        """Return the limits, and whether the encoder gets an attention mask."""
        return {**super().settings, "masked": self.masked}

    def tokenize(self, texts: Sequence[str]) -> Tensors:
        """Return token numbers, and the mask where the encoder takes one."""
        padded = self._padded("text_encoder", texts)
        mask = {"mask": padded["attention_mask"]} if self.masked else {}
        return {"tokens": padded["input_ids"], **mask}

    def embed(self, encoders: Mapping[str, Any], tokens: Tensors) -> Tensors:
        """``hidden`` [B, L, W]: the encoder's last hidden states after its last norm."""
        output = encoders["text_encoder"](tokens["tokens"], attention_mask=tokens.get("mask"))
        return {"hidden": output[0]}

    def call(self, network: Any, noisy: torch.Tensor, time: torch.Tensor, rows: Tensors, factor: int) -> torch.Tensor:
        """Call the U-Net with cross-attention to the text."""
        output: torch.Tensor = network(noisy, time, encoder_hidden_states=rows["hidden"], return_dict=False)[0]
        return output

    def unused_weights(self, encoders: Mapping[str, Any]) -> list[torch.nn.Parameter]:
        """Return the weights of BERT's pooler, whose output the U-Net does not use."""
        pooler = getattr(encoders["text_encoder"], "pooler", None)
        return [] if pooler is None else list(pooler.parameters())


class StableDiffusionXL(Family):
    """The empty prompt is all zeros where the pipeline's ``force_zeros_for_empty_prompt`` says so.

    The plain pipeline then guides away from zeros too, unless it is given a negative prompt. The size conditions
    say that nothing is cropped: original and target size are those of the image.
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
        """Return the limits, and whether the empty prompt is all zeros."""
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
        """Call the U-Net with cross-attention, pooled text and sizes (height, width, 0, 0, height, width) in pixels."""
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
        """Return mean and deviation of each channel if the autoencoder's configuration has them, else by the scale."""
        mean, std = super().statistics(autoencoder)
        config = autoencoder.config
        if getattr(config, "latents_mean", None) is not None and getattr(config, "latents_std", None) is not None:
            return [float(m) for m in config.latents_mean], [float(s) * std[0] for s in config.latents_std]
        return mean, std

    def unused_weights(self, encoders: Mapping[str, Any]) -> list[torch.nn.Parameter]:
        """Return the first encoder's last layer and norm, which come after the states that are used."""
        first = encoders["text_encoder"]
        return [*first.encoder.layers[-1].parameters(), *first.final_layer_norm.parameters()]


CLIPS = ("text_encoder", "text_encoder_2")
T5_LENGTH = 256  # tokens of the third encoder, as the plain pipeline has it unless told otherwise


class StableDiffusion3(Family):
    """Two CLIP encoders, with or without T5; without it its states are zeros, as in the plain pipeline."""

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
        """Return the first tokenizer's limit for both CLIP encoders, and 256 for T5."""
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
        """Call the transformer with CLIP's states, zero-padded to T5's width, followed by T5's."""
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
        """Return mean and deviation from the scale and the shift, which are the same for all channels."""
        mean, std = super().statistics(autoencoder)
        return [float(autoencoder.config.shift_factor or 0.0)] * len(mean), std


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
        """Return 120 tokens for PixArt-alpha, 300 for PixArt-sigma."""
        return dict.fromkeys(self.tokenizers, LENGTHS[self.kind])

    def clean_prompt(self, text: str) -> str:
        """Return the prompt in lower case, without outer blanks."""
        return text.lower().strip()

    def tokenize(self, texts: Sequence[str]) -> Tensors:
        """Return token numbers and mask [B, L]."""
        padded = self._padded("text_encoder", texts)
        return {"tokens": padded["input_ids"], "mask": padded["attention_mask"].to(torch.uint8)}

    def embed(self, encoders: Mapping[str, Any], tokens: Tensors) -> Tensors:
        """``hidden`` [B, L, W] and the ``mask`` [B, L] of tokens that are no padding."""
        output = encoders["text_encoder"](tokens["tokens"], attention_mask=tokens["mask"].long())
        return {"hidden": output[0], "mask": tokens["mask"]}

    def call(self, network: Any, noisy: torch.Tensor, time: torch.Tensor, rows: Tensors, factor: int) -> torch.Tensor:
        """Call the transformer; models for 1024 pixels also get size and aspect ratio."""
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
