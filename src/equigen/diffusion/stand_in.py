"""Stable Diffusion with random weights, for tests and timings without a download."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import diffusers
import torch
import transformers
from transformers.utils import logging

from equigen.progress import silence_library
from equigen.seeds import derive_seed

WIDTHS = (320, 640, 1280, 1280)  # channels of the U-Net of Stable Diffusion 1.x, from the finest level down
CODER = (128, 256, 512, 512)  # of its autoencoder
TEXT, LAYERS, HEADS = 768, 12, 12  # of its text encoder
SIGNS = "abcdefghijklmnopqrstuvwxyz0123456789,.:-()"


def stable_diffusion(
    latent_size: int,
    widths: tuple[int, ...] = WIDTHS,
    divisor: int = 1,
    length: int = 77,
    seed: int = 0,
    whole_words: Sequence[str] = (),
) -> Any:
    """Return Stable Diffusion 1.x with random weights, in full size or smaller; its images are noise.

    Args:
        latent_size: side of the latents; the side of images is eight times as long.
        widths: channels of the U-Net from the finest level down.
        divisor: of all widths, also those of autoencoder and text encoder (1, 2, 4 or 8), so that the components keep
            their relative costs.
        length: tokens of a prompt. The tokenizer reads single characters, so a prompt has as many tokens as letters.
        seed: of the weights.
        whole_words: words that are one token each, as common words are to a trained tokenizer.

    Returns:
        A ``StableDiffusionPipeline``; ``save_pretrained`` writes it as any other.

    """
    pieces = [*SIGNS, *(f"{sign}</w>" for sign in SIGNS), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(pieces)}
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=length)
    tokenizer.add_tokens([transformers.AddedToken(word, single_word=True, normalized=True) for word in whole_words])
    text = transformers.CLIPTextConfig(
        vocab_size=49_408, hidden_size=TEXT // divisor, intermediate_size=4 * TEXT // divisor,
        num_attention_heads=HEADS, num_hidden_layers=LAYERS, max_position_embeddings=length,
        bos_token_id=len(vocabulary) - 2, eos_token_id=len(vocabulary) - 1, pad_token_id=len(vocabulary) - 1,
        initializer_factor=4.0,  # so that embeddings of different prompts differ
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), silence_library(logging):  # warnings of image processors that are not used
        torch.default_generator.manual_seed(derive_seed(seed, "stand-in"))
        network = diffusers.UNet2DConditionModel(
            sample_size=latent_size, norm_num_groups=32 // divisor,
            block_out_channels=tuple(width // divisor for width in widths),
            cross_attention_dim=TEXT // divisor, attention_head_dim=8,
            down_block_types=("CrossAttnDownBlock2D",) * (len(widths) - 1) + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (len(widths) - 1),
        )  # fmt: skip
        coder = diffusers.AutoencoderKL(
            block_out_channels=tuple(width // divisor for width in CODER), layers_per_block=2, latent_channels=4,
            sample_size=8 * latent_size, norm_num_groups=32 // divisor,
            down_block_types=("DownEncoderBlock2D",) * len(CODER), up_block_types=("UpDecoderBlock2D",) * len(CODER),
        )  # fmt: skip
        return diffusers.StableDiffusionPipeline(
            vae=coder, text_encoder=transformers.CLIPTextModel(text), unet=network,
            tokenizer=tokenizer,
            scheduler=diffusers.PNDMScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, skip_prk_steps=True
            ),
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
