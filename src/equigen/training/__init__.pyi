"""The training loop, its settings, its checkpoint and the fixed probe."""

from .class_conditional import check_settings as check_settings
from .class_conditional import open_start as open_start
from .class_conditional import run_key as run_key
from .class_conditional import train as train
from .datasets import LatentDataset as LatentDataset
from .datasets import cohort_groups as cohort_groups
from .loop import Trainer as Trainer
from .pipeline import check_base as check_base
from .pipeline import latent_scale as latent_scale
from .pipeline import pipeline_factory as pipeline_factory
from .pipeline import text_key as text_key
from .probe import choose_probe_rows as choose_probe_rows
from .run import Run as Run
from .run import train_again as train_again
from .settings import TrainSettings as TrainSettings
