"""Conditioning, networks, the objective, and the pipeline that samples."""

from equigen.diffusion.networks import PRESETS, ConditionTokens, Denoiser, build_tokens, build_unet, drop
from equigen.diffusion.objective import STEPS, Prediction, loss_per_image, min_snr_weights, noise_schedule
from equigen.diffusion.opening import open_any_generator
from equigen.diffusion.pipeline import EquigenPipeline, open_generator
from equigen.diffusion.request import EVERYWHERE, Generator, Interval, Request, requests
from equigen.diffusion.solvers import DEFAULT_SOLVER, solver
from equigen.diffusion.text_generator import TextGenerator
from equigen.diffusion.vocabulary import Vocabulary

__all__ = [
    "DEFAULT_SOLVER",
    "EVERYWHERE",
    "PRESETS",
    "STEPS",
    "ConditionTokens",
    "Denoiser",
    "EquigenPipeline",
    "Generator",
    "Interval",
    "Prediction",
    "Request",
    "TextGenerator",
    "Vocabulary",
    "build_tokens",
    "build_unet",
    "drop",
    "loss_per_image",
    "min_snr_weights",
    "noise_schedule",
    "open_any_generator",
    "open_generator",
    "requests",
    "solver",
]
