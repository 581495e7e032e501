"""Diagnostic classifiers trained on real and synthetic images, and their predictions."""

from __future__ import annotations

from equigen.diagnosis.augment import Augmentation
from equigen.diagnosis.diagnose import diagnose
from equigen.diagnosis.fit import FitSettings
from equigen.diagnosis.networks import Classifier, SmallResNet
from equigen.diagnosis.recipes import Recipe, parse_recipe, recipe_names

__all__ = [
    "Augmentation",
    "Classifier",
    "FitSettings",
    "Recipe",
    "SmallResNet",
    "diagnose",
    "parse_recipe",
    "recipe_names",
]
