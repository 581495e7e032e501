"""Diagnostic classifiers trained on real and synthetic images, and their predictions."""

from .experiment import diagnose as diagnose
from .fitting import Augmentation as Augmentation
from .fitting import FitSettings as FitSettings
from .networks import Classifier as Classifier
from .networks import SmallResNet as SmallResNet
from .recipes import Recipe as Recipe
from .recipes import parse_recipe as parse_recipe
from .recipes import recipe_names as recipe_names
