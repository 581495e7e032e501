"""Comparisons of mechanisms over seeds and settings: jobs, measurement, tables and the page."""

from .evaluation import ComparisonResult as ComparisonResult
from .evaluation import Sample as Sample
from .evaluation import evaluate_comparison as evaluate_comparison
from .run import compare as compare
from .settings import ComparisonSettings as ComparisonSettings
from .settings import read_comparison as read_comparison
