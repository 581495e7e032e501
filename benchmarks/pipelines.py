"""Pipelines of diffusers' real classes with random weights, in the proportions of well-known ones."""

from __future__ import annotations

from typing import Any

import diffusers
import transformers
from transformers.utils import logging

from equigen.progress import quiet


def stable_diffusion(side: int, widths: tuple[int, ...] = (320, 640, 1280, 1280), part: int = 1) -> Any:
    """A pipeline of Stable Diffusion 1.x with random weights; its tokenizer knows single letters.

    ``side``: of the latents; ``widths``: channels of the network from the finest level down; ``part``: all widths,
    those of autoencoder and text encoder too, are divided by it, so that the parts cost what they do in the whole.
    """
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvwxyz")]
    words = {word: number for number, word in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    width, network_widths = 768 // part, tuple(own // part for own in widths)
    text = transformers.CLIPTextConfig(
        vocab_size=49_408, hidden_size=width, intermediate_size=4 * width, num_attention_heads=12,
        num_hidden_layers=12, bos_token_id=len(words) - 2, eos_token_id=len(words) - 1, pad_token_id=len(words) - 1,
    )  # fmt: skip
    network = diffusers.UNet2DConditionModel(
        sample_size=side, norm_num_groups=32 // part, block_out_channels=network_widths, cross_attention_dim=width,
        attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D",) * (len(widths) - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (len(widths) - 1),
    )  # fmt: skip
    with quiet(logging):  # remarks on image processors that nobody asked for
        kind = diffusers.StableDiffusionPipeline
    return kind(
        vae=diffusers.AutoencoderKL(
            block_out_channels=tuple(own // part for own in (128, 256, 512, 512)), layers_per_block=2,
            latent_channels=4, sample_size=8 * side, norm_num_groups=32 // part,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        text_encoder=transformers.CLIPTextModel(text),
        tokenizer=transformers.CLIPTokenizer(vocab=words, merges=[], model_max_length=77),
        unet=network, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        scheduler=diffusers.PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, skip_prk_steps=True
        ),
    )  # fmt: skip
