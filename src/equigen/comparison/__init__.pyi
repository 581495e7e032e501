"""Comparisons of mechanisms over seeds and settings: jobs, measurement, tables and the page."""

from .comparison import run_contest as run_contest
from .evaluation import Contest as Contest
from .evaluation import Sample as Sample
from .evaluation import measure_contest as measure_contest
