"""What a bar says when the work is done."""

import pytest
from rich.console import Console

from equigen import progress


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """What is printed where there is no terminal: the last state."""
    file = (tmp_path / "log").open("w+")
    monkeypatch.setattr(progress, "console", Console(file=file, width=120))

    def read() -> str:
        file.flush()
        return (tmp_path / "log").read_text()

    yield read
    file.close()


def test_work_that_needed_fewer_parts_than_thought_ends_with_a_full_bar_and_a_rate(drawn):
    with progress.progress_bar("measure", 10, completed=2) as bar:
        bar.advance(5)
    assert "10/10" in drawn() and "-/s" not in drawn()


def test_interrupted_work_shows_how_far_it_came(drawn):
    with pytest.raises(KeyboardInterrupt), progress.progress_bar("measure", 10) as bar:
        bar.advance(4)
        raise KeyboardInterrupt
    assert "4/10" in drawn()


def test_more_than_was_thought_is_shown_as_it_is(drawn):
    with progress.progress_bar("train", 10) as bar:
        bar.advance(12)
    assert "12/10" in drawn()
