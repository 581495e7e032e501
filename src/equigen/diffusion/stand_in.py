"""A pipeline of diffusers' classes with random weights: to rehearse a study, or to time one, without a download."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import diffusers
import torch
import transformers
from transformers.utils import logging

from equigen.progress import silence_library
from equigen.seeds import derive_seed

WIDTHS = (320, 640, 1280, 1280)     # channels of the U-Net of Stable Diffusion 1.x, from the finest level down
CODER = (128, 256, 512, 512)        # of its autoencoder
TEXT, LAYERS, HEADS = 768, 12, 12   # of its text encoder
SIGNS = "abcdefghijklmnopqrstuvwxyz0123456789,.:-()"


def stable_diffusion(
    side: int, widths: tuple[int, ...] = WIDTHS, part: int = 1, length: int = 77, seed: int = 0,
    known: Sequence[str] = (),
) -> Any:
    """Stable Diffusion 1.x with random weights, whole or in a smaller copy; its images say nothing.

    Args:
        side: of the latents; images have eight times as many pixels.
        widths: channels of the U-Net from the finest level down.
        part: all widths, those of autoencoder and text encoder too, are divided by it (1, 2, 4 or 8), so that the
            parts cost beside each other what they do in the whole.
        length: tokens of a prompt. The tokenizer knows single signs, so a prompt has as many tokens as letters.
        seed: of the weights.
        known: whole words that are one token each, as common words are to a tokenizer that was trained.

    Returns:
        A ``StableDiffusionPipeline``; ``save_pretrained`` writes it as any other.

    """
    pieces = [*SIGNS, *(f"{sign}</w>" for sign in SIGNS), "<|startoftext|>", "<|endoftext|>"]
    words = {word: number for number, word in enumerate(pieces)}
    tokenizer = transformers.CLIPTokenizer(vocab=words, merges=[], model_max_length=length)
    tokenizer.add_tokens([transformers.AddedToken(word, single_word=True, normalized=True) for word in known])
    text = transformers.CLIPTextConfig(
        vocab_size=49_408, hidden_size=TEXT // part, intermediate_size=4 * TEXT // part, num_attention_heads=HEADS,
        num_hidden_layers=LAYERS, max_position_embeddings=length, bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1, pad_token_id=len(words) - 1, initializer_factor=4.0,  # so that prompts lie apart
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), silence_library(logging):  # warnings of image processors that are not used
        torch.default_generator.manual_seed(derive_seed(seed, "stand-in"))
        network = diffusers.UNet2DConditionModel(
            sample_size=side, norm_num_groups=32 // part, block_out_channels=tuple(own // part for own in widths),
            cross_attention_dim=TEXT // part, attention_head_dim=8,
            down_block_types=("CrossAttnDownBlock2D",) * (len(widths) - 1) + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (len(widths) - 1),
        )  # fmt: skip
        coder = diffusers.AutoencoderKL(
            block_out_channels=tuple(own // part for own in CODER), layers_per_block=2, latent_channels=4,
            sample_size=8 * side, norm_num_groups=32 // part, down_block_types=("DownEncoderBlock2D",) * len(CODER),
            up_block_types=("UpDecoderBlock2D",) * len(CODER),
        )  # fmt: skip
        return diffusers.StableDiffusionPipeline(
            vae=coder, text_encoder=transformers.CLIPTextModel(text), unet=network,
            tokenizer=tokenizer,
            scheduler=diffusers.PNDMScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, skip_prk_steps=True
            ),
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
