"""An autoencoder that is initialised as the principal-component code, the best linear code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderTiny

from equigen.seeds import derive_seed

if TYPE_CHECKING:
    from equigen.latents.fitting import AutoencoderSettings

LATENT_SPREAD = 0.35  # standard deviation of a latent channel at the start: far inside the decoder's soft clamp at 3


def principal_components(blocks: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean [D], directions [count, D] (orthonormal rows) and standard deviations [count] of pixel blocks [N, D]."""
    mean = blocks.mean(0)
    centred = (blocks - mean).double()
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(blocks))
    top = values.flip(0)[:count].clamp_min(1e-12)
    return mean, vectors.flip(1)[:, :count].T.float(), top.sqrt().float()


def build_autoencoder(settings: AutoencoderSettings, seed: int, sample: torch.Tensor) -> Any:
    """A diffusers AutoencoderTiny over blocks of pixels whose first state is the principal-component code.

    ``sample``: [N, 3*factor^2, h, w] pixel blocks in [-1, 1] from which the components are measured.
    The network works on the latent grid alone, so it is cheap; its residual blocks start as identities, and
    u = relu(u) - relu(-u) carries the linear code through them.
    """
    width = 3 * settings.factor**2
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "autoencoder-weights"))  # the CPU's alone
        network = AutoencoderTiny(
            in_channels=width,
            out_channels=width,
            encoder_block_out_channels=(settings.encoder_channels,),
            decoder_block_out_channels=(settings.decoder_channels,),
            num_encoder_blocks=(settings.encoder_blocks,),
            num_decoder_blocks=(settings.decoder_blocks,),
            latent_channels=settings.latent_channels,
        )
    rows = (sample.permute(0, 2, 3, 1).reshape(-1, width) + 1) / 2  # AutoencoderTiny works in [0, 1] inside
    mean, directions, spread = principal_components(rows, settings.latent_channels)
    with torch.no_grad():
        scale = (LATENT_SPREAD / spread)[:, None]
        _set_encoder(network.encoder.layers, directions * scale, -(directions * scale) @ mean)
        _set_decoder(network.decoder.layers, directions.T / scale.T, mean)
    return network


def _set_encoder(layers: Any, matrix: torch.Tensor, offset: torch.Tensor) -> None:
    """First layer: the code and its negative; last layer: their difference."""
    count = len(matrix)
    first, last = layers[0], layers[-1]
    for layer in (first, last):
        layer.weight.mul_(0.1)
        layer.bias.zero_()
    first.weight[: 2 * count].zero_()
    first.weight[: 2 * count, :, 1, 1] = torch.cat([matrix, -matrix])
    first.bias[: 2 * count] = torch.cat([offset, -offset])
    _identities(layers[1:-1])
    # nothing rectifies the first layer's output until the first block, whose sum with its input is rectified
    last.weight.zero_()
    last.weight[:, :count, 1, 1] = torch.eye(count)
    last.weight[:, count : 2 * count, 1, 1] = -torch.eye(count)


def _set_decoder(layers: Any, matrix: torch.Tensor, mean: torch.Tensor) -> None:
    """First layer and its rectifier: the code's two halves; last layer: the linear decoder of their difference."""
    count = matrix.shape[1]
    first, last = layers[0], layers[-1]
    first.weight.mul_(0.1)
    first.bias.zero_()
    first.weight[: 2 * count].zero_()
    first.weight[: 2 * count, :, 1, 1] = torch.cat([torch.eye(count), -torch.eye(count)])
    _identities(layers[2:-1])
    last.weight.zero_()
    last.weight[:, :count, 1, 1] = matrix
    last.weight[:, count : 2 * count, 1, 1] = -matrix
    last.bias.copy_(mean)


def _identities(blocks: Any) -> None:
    """Residual blocks that pass a non-negative input through unchanged."""
    for block in blocks:
        block.conv[-1].weight.zero_()
        block.conv[-1].bias.zero_()
