"""Conditioning, networks, the objective, and the pipeline that samples."""

from equigen.diffusion.conditions import Conditions, TokenConditions
from equigen.diffusion.networks import PRESETS, ConditionTokens, Denoiser, build_tokens, build_unet, drop
from equigen.diffusion.objective import (
    STEPS,
    Objective,
    Prediction,
    loss_per_image,
    min_snr_weights,
    noise_schedule,
    objective_of,
)
from equigen.diffusion.pipeline import EquigenPipeline, open_generator
from equigen.diffusion.vocabulary import Vocabulary

__all__ = [
    "PRESETS",
    "STEPS",
    "ConditionTokens",
    "Conditions",
    "Denoiser",
    "EquigenPipeline",
    "Objective",
    "Prediction",
    "TokenConditions",
    "Vocabulary",
    "build_tokens",
    "build_unet",
    "drop",
    "loss_per_image",
    "min_snr_weights",
    "noise_schedule",
    "objective_of",
    "open_generator",
]
