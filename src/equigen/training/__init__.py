"""The training loop, its settings, its checkpoint and the fixed probe."""

from equigen.training.data import Data
from equigen.training.loop import Trainer
from equigen.training.run import Run
from equigen.training.settings import TrainSettings
from equigen.training.train import check_settings, train

__all__ = ["Data", "Run", "TrainSettings", "Trainer", "check_settings", "train"]
