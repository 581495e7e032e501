"""Fitting an autoencoder: to the shipped mixture of data sets, or to a user's cohort."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from equigen.checkpoints import (
    add_prefix,
    load_checkpoint,
    load_optimizer_tensors,
    optimizer_tensors,
    save_checkpoint,
    select_prefix,
)
from equigen.errors import InputError, Problem
from equigen.files import hash_bytes, hash_value
from equigen.latents.autoencoder import Autoencoder, to_blocks, to_tensor
from equigen.latents.principal_components import LATENT_SPREAD, build_autoencoder
from equigen.progress import progress_bar
from equigen.seeds import numpy_generator, torch_generator

BASIS_BATCHES = 40  # batches of patches from which the principal components are measured


class AutoencoderSettings(BaseModel):
    """Shape and training of a patch autoencoder. Lengths in pixels, time in patches seen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    factor: int = Field(8, ge=2, le=32)  # side of the pixel block behind one latent position
    latent_channels: int = Field(12, ge=1, le=64)
    encoder_channels: int = Field(96, ge=8)
    decoder_channels: int = Field(128, ge=8)
    encoder_blocks: int = Field(2, ge=1)  # residual blocks of three convolutions
    decoder_blocks: int = Field(4, ge=1)
    patches: int = Field(100_000, ge=1)  # how many training patches are seen
    patch: int = Field(64, ge=32)  # side of a training patch
    batch: int = Field(32, ge=1)
    learning_rate: float = Field(1e-3, gt=0)  # peak; 2 % warm-up, then cosine to nothing
    noise: float = Field(0.05, ge=0)  # noise on latents in training, in their standard deviations
    colour: float = Field(0.15, ge=0, le=1)  # spread of random gain, shift and gamma of each patch
    checkpoint_every: int = Field(20_000, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> AutoencoderSettings:
        """Check that the sizes fit each other."""
        if self.patch % self.factor:
            raise ValueError(f"patch {self.patch} must be a multiple of factor {self.factor}")
        if min(self.encoder_channels, self.decoder_channels) < 2 * self.latent_channels:
            raise ValueError("encoder_channels and decoder_channels must be at least twice latent_channels")
        return self


def draw_patch(image: NDArray[np.uint8], size: int, colour: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a training patch [size, size, 3] at a random scale between whole image and native pixels, with flips.

    ``colour`` is the spread of log-gain per channel, of a common shift and of log-gamma; 0 leaves colours alone.
    """
    height, width = image.shape[:2]
    least = size / min(height, width)
    scale = least if least >= 1 else float(np.exp(rng.uniform(np.log(least), 0)))
    new_width, new_height = max(size, round(width * scale)), max(size, round(height * scale))
    picture = Image.fromarray(image)
    if (new_width, new_height) != (width, height):
        picture = picture.resize((new_width, new_height), Image.Resampling.LANCZOS)
    x, y = int(rng.integers(new_width - size + 1)), int(rng.integers(new_height - size + 1))
    patch = np.asarray(picture.crop((x, y, x + size, y + size)))
    if rng.random() < 0.5:
        patch = patch[:, ::-1]
    if rng.random() < 0.5:
        patch = patch[::-1]
    if colour and rng.random() < 0.5:
        gain, shift = np.exp(colour * rng.standard_normal(3)), 0.3 * colour * rng.standard_normal()
        gamma = np.exp(colour * rng.standard_normal())
        levels = np.clip((patch / 255.0) ** gamma * gain + shift, 0, 1)
        patch = np.round(levels * 255).astype(np.uint8)
    return patch


def draw_batch(
    sources: Sequence[Sequence[NDArray[np.uint8]]], settings: AutoencoderSettings, seed: int, step: int
) -> NDArray[np.uint8]:
    """[batch, patch, patch, 3] uint8: each patch from a source drawn uniformly: small data sets count as much."""
    rng = numpy_generator(seed, "autoencoder-patches", step)
    drawn_sources = [sources[int(rng.integers(len(sources)))] for _ in range(settings.batch)]
    drawn_images = (images[int(rng.integers(len(images)))] for images in drawn_sources)  # lazily, between the patches
    return np.stack([draw_patch(image, settings.patch, settings.colour, rng) for image in drawn_images])


def patch_loss(network: Any, pixels: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Training loss and the squared error in it, for blocks of pixels [B, 3*factor^2, h, w] in [-1, 1].

    L = mean (x - D(E(x) + n))^2 + 0.05 mean |x - D(E(x) + n)| + 0.01 mean max(|E(x)| - 2, 0)^2.
    The noise n makes the decoder robust to small errors of generated latents; the small L1 term preserves edges;
    the last term keeps latents where the decoder's soft clamp (3 tanh(z/3)) is nearly linear.
    """
    latents = network.encode(pixels).latents.float()
    difference = network.decode(latents + noise).sample.float() - pixels
    squared = difference.square().mean()
    outside = (latents.abs() - 2).clamp_min(0).square().mean()
    return squared + 0.05 * difference.abs().mean() + 0.01 * outside, squared


def learning_rate(settings: AutoencoderSettings, patches_seen: int) -> float:
    """Linear warm-up over the first 2 % of patches, then a half cosine to zero."""
    progress = patches_seen / settings.patches
    warmup = min(1.0, (progress + 1e-9) / 0.02)
    return settings.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def fit_autoencoder(
    sources: Sequence[Sequence[NDArray[np.uint8]]],
    checkpoint: str | Path,
    settings: AutoencoderSettings | None = None,
    seed: int = 0,
    device: str = "cpu",
    show: bool = True,
) -> Autoencoder:
    """Train an autoencoder on patches of images; the same call resumes an interrupted one.

    ``sources``: lists of [H, W, 3] uint8 images of any size; each source gives the same share of patches.
    ``checkpoint``: one safetensors file with weights, optimizer and position.
    Raises InputError when a source is empty or the checkpoint was made with other settings.
    """
    settings = settings or AutoencoderSettings()
    if not sources or any(len(images) == 0 for images in sources):
        problem = Problem("an empty source", "check the table's training split")
        raise InputError("There are no images to train the autoencoder on.", [problem])
    first = np.concatenate([draw_batch(sources, settings, seed, -1 - index) for index in range(BASIS_BATCHES)])
    network = build_autoencoder(settings, seed, to_blocks(to_tensor(first), settings.factor)).to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)
    pictures = [hash_bytes(b"".join(image.tobytes() for image in images)) for images in sources]
    key = hash_value([settings.model_dump(mode="json"), seed, pictures])
    patches_seen = _resume(Path(checkpoint), key, network, optimizer)
    with progress_bar("autoencoder", settings.patches, completed=patches_seen, show=show) as bar:
        while patches_seen < settings.patches:
            images = draw_batch(sources, settings, seed, patches_seen // settings.batch)
            squared = _step(network, optimizer, images, settings, seed, patches_seen)
            before, patches_seen = patches_seen, patches_seen + settings.batch
            bar.advance(settings.batch)
            if before // 2_000 != patches_seen // 2_000:
                bar.note(f"{-10 * math.log10(squared.item() / 4):.1f} dB")
            every = settings.checkpoint_every
            if before // every != patches_seen // every or patches_seen >= settings.patches:
                weights = add_prefix("network", network.state_dict())
                moments = add_prefix("optimizer", optimizer_tensors(optimizer))
                save_checkpoint(Path(checkpoint), {**weights, **moments}, {"seen": patches_seen, "key": key})
    return Autoencoder(network)


def _step(
    network: Any,
    optimizer: torch.optim.Optimizer,
    images: NDArray[np.uint8],
    settings: AutoencoderSettings,
    seed: int,
    patches_seen: int,
) -> torch.Tensor:
    """Take one optimizer step; returns the mean squared error of the batch, in pixels of [-1, 1]."""
    device = next(network.parameters()).device
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(settings, patches_seen)
    pixels = to_blocks(to_tensor(images), settings.factor).to(device)
    shape = (len(pixels), settings.latent_channels, *pixels.shape[2:])
    noise = torch.randn(shape, generator=torch_generator(seed, "autoencoder-noise", patches_seen)).to(device)
    with torch.autocast(device.type, torch.bfloat16):
        loss, squared = patch_loss(network, pixels, settings.noise * LATENT_SPREAD * noise)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return squared.detach()


def _resume(checkpoint: Path, key: str, network: Any, optimizer: torch.optim.Optimizer) -> int:
    """Load an earlier state of the same settings, if there is one; returns the number of patches seen."""
    if not checkpoint.is_file():
        return 0
    tensors, state = load_checkpoint(checkpoint)
    if state["key"] != key:
        mend = "name another file, or delete this one"
        problem = Problem("was made with other settings or another seed", mend, file=str(checkpoint))
        raise InputError("The checkpoint does not fit.", [problem])
    network.load_state_dict(select_prefix("network", tensors))
    load_optimizer_tensors(optimizer, select_prefix("optimizer", tensors))
    return int(state["seen"])


def psnr(images: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio of each image in dB: 10 log10(255^2 / mean squared error). [N, H, W, 3] -> [N]."""
    error = np.mean((images.astype(np.float64) - decoded.astype(np.float64)) ** 2, axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(255.0**2 / error))
