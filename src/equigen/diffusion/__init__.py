"""Conditioning, networks, the objective, and the pipeline that samples."""

from equigen.diffusion.networks import PRESETS, ConditionTokens, Denoiser, build_tokens, build_unet, drop
from equigen.diffusion.objective import STEPS, Prediction, loss_per_image, min_snr_weights, noise_schedule
from equigen.diffusion.pipeline import EquigenPipeline, open_generator
from equigen.diffusion.vocabulary import Vocabulary

__all__ = [
    "PRESETS",
    "STEPS",
    "ConditionTokens",
    "Denoiser",
    "EquigenPipeline",
    "Prediction",
    "Vocabulary",
    "build_tokens",
    "build_unet",
    "drop",
    "loss_per_image",
    "min_snr_weights",
    "noise_schedule",
    "open_generator",
]
