"""The networks of a conditional latent diffusion model, condition tokens and a U-Net, and its training conditions."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from diffusers import ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config

from equigen.diffusion.vocabulary import DROPPED
from equigen.seeds import derive_seed

PRESETS: dict[str, dict[str, Any]] = {
    # channels from the finest level down; width of a condition token; channels a head of attention
    "tiny": {"channels": (48, 96), "tokens": 96, "head": 32, "layers": 1},
    "small": {"channels": (80, 160), "tokens": 128, "head": 32, "layers": 1},
    "base": {"channels": (192, 384), "tokens": 384, "head": 64, "layers": 2},
}


class ConditionTokens(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """One embedding for each level of each field, one for *unknown*, one for *dropped*.

    ``sizes``: number of tokens of each field (Vocabulary.sizes); ``width``: length of an embedding.
    Forward: token numbers [B, F] int64 -> tokens [B, F, width] for cross-attention and their sum / sqrt(F) [B, width],
    which joins the time embedding.
    """

    config_name = "config.json"

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, sizes: tuple[int, ...], width: int) -> None:
        super().__init__()
        offsets = [sum(sizes[:index]) for index in range(len(sizes))]
        self.register_buffer("offsets", torch.tensor(offsets, dtype=torch.int64), persistent=False)
        self.table = torch.nn.Embedding(max(1, sum(sizes)), width)

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, F] -> [B, max(F, 1), width], [B, width]; a cohort without fields gets one constant token."""
        if ids.shape[1] == 0:
            ids = ids.new_zeros(len(ids), 1)
            tokens = self.table(ids)
        else:
            tokens = self.table(ids + self.offsets)
        return tokens, tokens.sum(1) / math.sqrt(tokens.shape[1])


def build_unet(preset: str, channels: int, size: int, seed: int) -> Any:
    """Return a UNet2DConditionModel for latents [channels, size, size], initialised from ``seed`` alone.

    Cross-attention stands below the finest level only, where it costs little; the sum of the tokens reaches every
    level with the time embedding. Latents larger than 16 x 16 get one more level for each doubling.
    """
    width = PRESETS[preset]["tokens"]
    summed = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": width}
    return _unet(preset, channels, size, width, derive_seed(seed, "unet-weights"), **summed)


def build_text_unet(preset: str, channels: int, size: int, text_width: int, seed: int) -> Any:
    """Return a U-Net as ``build_unet``, conditioned on text [B, L, text_width] by cross-attention alone."""
    return _unet(preset, channels, size, text_width, derive_seed(seed, "text-unet-weights"))


def _unet(preset: str, channels: int, size: int, width: int, seed: int, **options: Any) -> Any:
    """Return the U-Net of a preset, with cross-attention to vectors of ``width``."""
    shape = PRESETS[preset]
    extra_levels = max(0, math.ceil(math.log2(size / 16)))
    widths = (*shape["channels"], *([shape["channels"][-1]] * extra_levels))
    lower_levels = len(widths) - 1
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's alone: others are not forked
        return UNet2DConditionModel(
            sample_size=size,
            in_channels=channels,
            out_channels=channels,
            down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * lower_levels),
            up_block_types=(*["CrossAttnUpBlock2D"] * lower_levels, "UpBlock2D"),
            block_out_channels=widths,
            layers_per_block=shape["layers"],
            cross_attention_dim=width,
            # diffusers reads this as the number of heads
            attention_head_dim=tuple(max(1, width // shape["head"]) for width in widths),
            norm_num_groups=16,
            **options,
        )


def build_tokens(sizes: list[int], preset: str, seed: int) -> ConditionTokens:
    """Return condition tokens for a vocabulary, initialised from ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "token-weights"))
        tokens: ConditionTokens = ConditionTokens(sizes=tuple(sizes), width=PRESETS[preset]["tokens"])
        return tokens


class Denoiser(torch.nn.Module):
    """Condition tokens and U-Net as one module, which is trained and wrapped by DDP or FSDP."""

    def __init__(self, unet: Any, tokens: ConditionTokens) -> None:
        super().__init__()
        self.unet, self.tokens = unet, tokens

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """f(z_t, t, c): [B, C, h, w], [B], [B, F] -> [B, C, h, w]."""
        tokens, pooled = self.tokens(ids)
        output: torch.Tensor = self.unet(
            noisy, timesteps, encoder_hidden_states=tokens, class_labels=pooled, return_dict=False
        )[0]
        return output


def drop_tokens(
    ids: torch.Tensor, condition_chance: float, token_chance: float, generator: torch.Generator
) -> torch.Tensor:
    """Replace tokens [B, F] by *dropped*: all of an image with ``condition_chance``, single ones with ``token_chance``.

    Classifier-free guidance (Ho & Salimans 2022) needs the first; the second allows conditions with one attribute open.
    """
    image_mask = torch.rand(len(ids), 1, generator=generator) < condition_chance
    token_mask = torch.rand(ids.shape, generator=generator) < token_chance
    return torch.where((image_mask | token_mask).to(ids.device), DROPPED, ids)


class Conditions(Protocol):
    """The conditions of a training set's rows, as numbers of tokens or of prompts."""

    def draw(self, rows: torch.Tensor, seed: int, images_seen: int, generator: torch.Generator) -> torch.Tensor:
        """Return numbers [B, F] int64 of rows [B] int64 for one training batch, some of them dropped at random.

        Draws come from ``generator``, or from one made of ``seed`` and ``images_seen`` (images before this batch), so
        that the same call returns the same numbers.
        """
        ...

    def complete(self, rows: torch.Tensor) -> torch.Tensor:
        """Return numbers [B, F] int64 of rows [B] int64, nothing dropped."""
        ...


class TokenConditions:
    """Attribute and label tokens ``ids`` [N, F], dropped with chances ``drop_all`` and ``drop_one``.

    See ``drop_tokens``.
    """

    def __init__(self, ids: torch.Tensor, drop_all: float = 0.0, drop_one: float = 0.0) -> None:
        self.ids, self.drop_all, self.drop_one = ids, drop_all, drop_one

    def draw(self, rows: torch.Tensor, seed: int, images_seen: int, generator: torch.Generator) -> torch.Tensor:
        """Return token numbers [B, F], each image's whole condition or single tokens of it dropped."""
        return drop_tokens(self.ids[rows], self.drop_all, self.drop_one, generator)

    def complete(self, rows: torch.Tensor) -> torch.Tensor:
        """Return token numbers [B, F]."""
        return self.ids[rows]
