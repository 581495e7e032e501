"""Text-to-image networks that are trained from scratch, as plain Stable Diffusion pipelines."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

from diffusers import DDIMScheduler
from transformers.utils import logging

from equigen.diffusion.choices import Prediction
from equigen.diffusion.networks import build_text_unet
from equigen.diffusion.objective import noise_schedule
from equigen.diffusion.pretrained import Pretrained
from equigen.diffusion.pretrained.families import StableDiffusion
from equigen.diffusion.pretrained.loading import clear_paths
from equigen.diffusion.text_encoders import TextEncoder
from equigen.errors import InputError, Problem
from equigen.latents import Autoencoder
from equigen.progress import silence_library


def scaling_factor(mean: Sequence[float], std: Sequence[float]) -> float:
    """Return diffusers' scaling factor, 1 / root mean square of latents, from mean and deviation of each channel."""
    return 1 / math.sqrt(sum(m * m + s * s for m, s in zip(mean, std, strict=True)) / len(mean))


def build_text_pipeline(
    encoder: TextEncoder,
    autoencoder: Autoencoder,
    scale: float,
    size: int,
    preset: str = "small",
    prediction: Prediction = "v_prediction",
    seed: int = 0,
) -> Pretrained:
    """A pipeline with an untrained U-Net, to be trained, saved and opened as any other.

    Its folder is a plain ``StableDiffusionPipeline`` with any encoder of ``open_text_encoder``: the pipeline only asks
    for token vectors. (Opening one with another encoder than CLIP, diffusers remarks on its class.) What plain
    diffusers cannot do is decode the latents of an autoencoder over blocks of pixels, as equigen's shipped one is: its
    pipeline then gives latents (``output_type="latent"``) that ``Pretrained.autoencoder`` decodes. ``makes_images``
    says which it is.

    Args:
        encoder: reads the prompts; frozen unless ``set_trainable`` says otherwise.
        autoencoder: is copied; AutoencoderKL or AutoencoderTiny.
        scale: latents are multiplied by it, see ``scaling_factor``.
        size: side of the images in pixels.
        preset: widths of the U-Net.
        prediction: what the U-Net predicts.
        seed: of its first weights.

    Raises:
        InputError: a size that does not fit the autoencoder, or a scale that is not positive.

    """
    autoencoder.check_size(size)
    if not (scale > 0 and math.isfinite(scale)):
        raise InputError("The latents cannot be scaled.", [Problem(f"scale {scale:g}", "use a number above 0")])
    vae = copy.deepcopy(autoencoder.network)
    vae.register_to_config(scaling_factor=float(scale))
    latent_size = size // autoencoder.factor
    with silence_library(logging):  # transformers, when loaded, warns of image processors that are not used
        from diffusers import StableDiffusionPipeline
    # DDIM draws no noise on the way; the first step starts from pure noise, where a network that predicts noise cannot
    spacing = "trailing" if prediction == "v_prediction" else "leading"
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder.network,
        tokenizer=encoder.tokenizer,
        unet=build_text_unet(preset, autoencoder.channels, latent_size, encoder.width, seed),
        scheduler=DDIMScheduler.from_config(
            noise_schedule(prediction).config, steps_offset=1, clip_sample=False, timestep_spacing=spacing
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    clear_paths(pipeline)
    return Pretrained(pipeline, StableDiffusion(pipeline), f"scratch ({preset}, {encoder.name})")


def makes_images(pretrained: Pretrained) -> bool:
    """Return whether plain diffusers decodes to images, or only to latents that need equigen's autoencoder."""
    return pretrained.autoencoder.block == 1
