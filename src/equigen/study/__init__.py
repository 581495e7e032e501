"""A whole study from one YAML file: settings, stages, report."""

from equigen.study.run import Study, run_study
from equigen.study.settings import StudySettings, read_study

__all__ = ["Study", "StudySettings", "read_study", "run_study"]
