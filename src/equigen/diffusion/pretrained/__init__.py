"""Pretrained text-to-image pipelines of the Stable Diffusion family behind one interface."""

from equigen.diffusion.pretrained.denoiser import MappedTable, MemoryTable, PromptTable, TextDenoiser
from equigen.diffusion.pretrained.family import Family
from equigen.diffusion.pretrained.loading import FAMILIES, open_pretrained, pipeline_folder
from equigen.diffusion.pretrained.pretrained import Pretrained, prediction_of

__all__ = [
    "FAMILIES",
    "Family",
    "MappedTable",
    "MemoryTable",
    "Pretrained",
    "PromptTable",
    "TextDenoiser",
    "open_pretrained",
    "pipeline_folder",
    "prediction_of",
]
