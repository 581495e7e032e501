"""Image quality of generated images for every group: encoders, distances, the quality table, the oracle."""

from __future__ import annotations

from equigen.quality.classifier import Classifier, JudgeClassifier, OwnClassifier, fit_classifier
from equigen.quality.comparison import COMPARISON_COLUMNS
from equigen.quality.contest import Contest, Sample, measure_contest
from equigen.quality.copies import COPIES_COLUMNS
from equigen.quality.copy_power import POWER_COLUMNS
from equigen.quality.distances import frechet_distance, kernel_distance
from equigen.quality.encoders import Encoder, load_encoder
from equigen.quality.frechet import frechet_infinity
from equigen.quality.manifold import precision_recall_density_coverage
from equigen.quality.mifid import memorisation_informed_distance
from equigen.quality.questions import Question
from equigen.quality.rows import COLUMNS
from equigen.quality.scores import inception_score
from equigen.quality.semantic import Judge, oracle_correctness
from equigen.quality.sources import ImageSet
from equigen.quality.table import Evaluation, evaluate, evaluate_sets

__all__ = [
    "COLUMNS",
    "COMPARISON_COLUMNS",
    "COPIES_COLUMNS",
    "POWER_COLUMNS",
    "Classifier",
    "Contest",
    "Encoder",
    "Evaluation",
    "ImageSet",
    "Judge",
    "JudgeClassifier",
    "OwnClassifier",
    "Question",
    "Sample",
    "evaluate",
    "evaluate_sets",
    "fit_classifier",
    "frechet_distance",
    "frechet_infinity",
    "inception_score",
    "kernel_distance",
    "load_encoder",
    "measure_contest",
    "memorisation_informed_distance",
    "oracle_correctness",
    "precision_recall_density_coverage",
]
