"""One whole tiny study, run once; tests that change something work on a copy of its folder."""

import shutil

import pytest
from study_folder import StudyFolder


@pytest.fixture(scope="session")
def finished(phantom_folder, tmp_path_factory) -> StudyFolder:
    """The study, run to its end without an interruption. Read only."""
    study = StudyFolder(phantom_folder, tmp_path_factory.mktemp("study"))
    study.run()
    return study


@pytest.fixture
def study(phantom_folder, tmp_path) -> StudyFolder:
    """A study that was not run yet."""
    return StudyFolder(phantom_folder, tmp_path)


@pytest.fixture
def copied(finished, study) -> StudyFolder:
    """A finished study that a test may change."""
    shutil.copytree(finished.out, study.out)
    return study
