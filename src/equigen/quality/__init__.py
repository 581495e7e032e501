"""Image quality of generated images for every group: encoders, distances, the quality table, the oracle."""

from __future__ import annotations

from equigen.quality.distances import frechet_distance, kernel_distance
from equigen.quality.encoders import Encoder, load_encoder
from equigen.quality.rows import COLUMNS
from equigen.quality.scores import inception_score
from equigen.quality.semantic import Judge, oracle_correctness
from equigen.quality.sources import ImageSet
from equigen.quality.table import evaluate

__all__ = [
    "COLUMNS",
    "Encoder",
    "ImageSet",
    "Judge",
    "evaluate",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "load_encoder",
    "oracle_correctness",
]
