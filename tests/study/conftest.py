"""One whole tiny study, run once; tests that change something work on a copy of its folder."""

import shutil

import pytest
from desk import Desk


@pytest.fixture(scope="session")
def finished(phantom_folder, tmp_path_factory) -> Desk:
    """The study, run to its end without an interruption. Read only."""
    desk = Desk(phantom_folder, tmp_path_factory.mktemp("study"))
    desk.run()
    return desk


@pytest.fixture
def desk(phantom_folder, tmp_path) -> Desk:
    """A study that was not run yet."""
    return Desk(phantom_folder, tmp_path)


@pytest.fixture
def copied(finished, desk) -> Desk:
    """A finished study that a test may change."""
    shutil.copytree(finished.out, desk.out)
    return desk
