"""Conditioning, networks, the objective, the pipeline that samples, and pretrained text-to-image pipelines."""

from equigen.diffusion.conditions import Conditions, TokenConditions
from equigen.diffusion.lora import add_lora, load_lora, save_lora
from equigen.diffusion.networks import (
    PRESETS,
    ConditionTokens,
    Denoiser,
    build_text_unet,
    build_tokens,
    build_unet,
    drop,
)
from equigen.diffusion.objective import (
    STEPS,
    Objective,
    Prediction,
    loss_per_image,
    min_snr_weights,
    noise_schedule,
    objective_of,
)
from equigen.diffusion.opening import open_any_generator
from equigen.diffusion.pipeline import EquigenPipeline, check_tokens, open_generator
from equigen.diffusion.pretrained import MemoryTable, Pretrained, TextDenoiser, open_pretrained, pipeline_folder
from equigen.diffusion.prompt_cache import PromptCache, encode_prompts, prompt_table
from equigen.diffusion.prompts import PromptConditions, warn_of_long_prompts
from equigen.diffusion.request import EVERYWHERE, Generator, Interval, Request, requests
from equigen.diffusion.scratch import from_scratch, scaling_factor
from equigen.diffusion.solvers import DEFAULT_SOLVER, solver
from equigen.diffusion.text_encoders import TextEncoder, open_text_encoder
from equigen.diffusion.text_generator import TextGenerator
from equigen.diffusion.trainable import enable_gradient_checkpointing, trainable
from equigen.diffusion.vocabulary import Vocabulary

__all__ = [
    "DEFAULT_SOLVER",
    "EVERYWHERE",
    "PRESETS",
    "STEPS",
    "ConditionTokens",
    "Conditions",
    "Denoiser",
    "EquigenPipeline",
    "Generator",
    "Interval",
    "MemoryTable",
    "Objective",
    "Prediction",
    "Pretrained",
    "PromptCache",
    "PromptConditions",
    "Request",
    "TextDenoiser",
    "TextEncoder",
    "TextGenerator",
    "TokenConditions",
    "Vocabulary",
    "add_lora",
    "build_text_unet",
    "build_tokens",
    "build_unet",
    "check_tokens",
    "drop",
    "enable_gradient_checkpointing",
    "encode_prompts",
    "from_scratch",
    "load_lora",
    "loss_per_image",
    "min_snr_weights",
    "noise_schedule",
    "objective_of",
    "open_any_generator",
    "open_generator",
    "open_pretrained",
    "open_text_encoder",
    "pipeline_folder",
    "prompt_table",
    "requests",
    "save_lora",
    "scaling_factor",
    "solver",
    "trainable",
    "warn_of_long_prompts",
]
