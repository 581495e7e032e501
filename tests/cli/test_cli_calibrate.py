"""`equigen calibrate` from the command line, its images by a stand-in that paints noise."""

import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from equigen.cli.calibrate import calibrate
from equigen.exit_status import Commands
from equigen.synthesis.calibration import measurement as calibrate_measure

app = typer.Typer(cls=Commands, pretty_exceptions_enable=False)
app.command()(calibrate)
app.command("other")(lambda: None)  # with one command alone there would be no sub-commands


def call(*words):
    return CliRunner().invoke(app, ["calibrate", *map(str, words)], env={"COLUMNS": "200"})


@pytest.fixture
def painted(monkeypatch):
    def render(_, plan, rows):
        made = [np.random.default_rng(int(seed)).integers(0, 256, (32, 32, 3)) for seed in plan["seed"].iloc[rows]]
        return np.stack(made).astype(np.uint8)

    for name in (calibrate_measure.__name__, "equigen.synthesis.generation"):
        monkeypatch.setattr(sys.modules[name], "render", render)


@pytest.fixture
def wide(phantom_folder, tmp_path):
    """The phantom with as many validation and test patients as training patients, nearly."""
    shutil.copytree(phantom_folder, tmp_path / "wide")
    words = (tmp_path / "wide" / "cohort.yaml").read_text()
    for before, after in (("train: 0.7", "train: 0.4"), ("val: 0.1", "val: 0.3"), ("test: 0.2", "test: 0.3")):
        words = words.replace(before, after)
    (tmp_path / "wide" / "cohort.yaml").write_text(words)
    return tmp_path / "wide"


def test_calibrate_writes_tables_page_and_the_generators_calibration(generator, wide, painted, tmp_path):
    words = ("--attribute", "sex", "--budget", 64, "--images", 8, "--steps", 1, "--min-patients", 4, "--out", tmp_path)
    more = ("--encoder", "efficientnet-lite0@32", "--confirm-images", 16, "--replicates", 20)
    (generator.folder / "trained_on.parquet").rename(tmp_path / "seen")  # this cohort is split anew, its patients too
    try:
        done = call(generator.folder, wide, *words, *more)
        assert done.exit_code == 0, done.output
        assert (generator.folder / "calibration.json").is_file()
    finally:
        (tmp_path / "seen").rename(generator.folder / "trained_on.parquet")
        (generator.folder / "calibration.json").unlink(missing_ok=True)
    assert done.stdout.strip().endswith(str(tmp_path / "report" / "index.html"))
    assert set(pd.read_parquet(tmp_path / "gain.parquet")["set"]) == {"default", "common", "group"}
    assert (pd.read_parquet(tmp_path / "calibration.parquet")["kind"] == "evaluated").sum() == 8
    assert "PHANTOM" in (tmp_path / "report" / "index.html").read_text()
    assert "Guidance by sex" in done.stdout and "change_default" in done.stdout


@pytest.mark.parametrize(("words", "said"), [
    (("--bounds", "1"), "give the least and the greatest guidance, such as 1,4"),
    (("--bounds", "a,b"), "--bounds cannot be read"),
    (("--objective", "best"), "use one of worst, gap"),
])  # fmt: skip
def test_what_cannot_be_read_ends_with_status_two(generator, phantom_folder, tmp_path, words, said):
    done = call(generator.folder, phantom_folder, "--attribute", "sex", "--out", tmp_path / "o", *words)
    assert done.exit_code == 2 and said in done.stderr and not (tmp_path / "o").exists()
