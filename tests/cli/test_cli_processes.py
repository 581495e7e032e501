"""Commands under torchrun: the work is shared, one process says where results are, and an error is told once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_pipelines import tiny_sd
from typer.testing import CliRunner

from equigen.cli.commands import app
from equigen.latents import LatentStore
from equigen.synthesis import generate, plan

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
SETTINGS = "batch: 8\nprobe_images: 8\nwarmup: 8\nlog_every: 8\nimages: 16\nmechanism: balanced\nrank: 2\n"


@pytest.fixture(scope="module")
def place(phantom_cohort, tmp_path_factory):
    """What two processes made of each command."""
    place = tmp_path_factory.mktemp("processes")
    tiny_sd(place / "sd")
    phantom_cohort.save(place / "co")
    (place / "t.yaml").write_text(SETTINGS + "base: sd\n")  # seen from where the file lies
    train = ["train", "co", "--size", "32", "--settings", "t.yaml", "--latents", "l", "--trackers", "none"]
    made = ["generate", "g", "--cohort", "co", "--size", "10", "--steps", "2", "--chunk", "4", "--guidance", "2"]
    commands = {
        "train": [*train, "--out", "g"],
        "generate": [*made, "--out", "s"],
        "encode": ["encode", "co", "--out", "store", "--size", "32", "--store"],
        "cache": ["encode", "co", "--out", "cache", "--size", "32"],
        "bad": [*train, "--out", "bad", "--mechanism", "fair"],
        "lost": [*train, "--out", "lost"],
        "typo": ["train", "co", "--sizes", "32"],
    }
    (place / "commands.json").write_text(json.dumps(commands))
    line = [sys.executable, str(Path(__file__).parent / "commands_in_processes.py"), str(place), "commands.json"]
    done = subprocess.run(line, env={**os.environ, **ENVIRONMENT}, cwd=place, capture_output=True, check=False,
                          timeout=500)  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return place


@pytest.fixture(scope="module")
def ended(place):
    return json.loads((place / "ended.json").read_text())


def said(place, name, kind):
    """What each of the two processes printed."""
    return [(place / f"{name}-{rank}.{kind}").read_text() for rank in range(2)]


@pytest.mark.parametrize(("name", "result"), [
    ("train", "g\n"), ("generate", "s/synthetic.parquet\n"), ("encode", "latents.safetensors\n"),
])  # fmt: skip
def test_the_first_process_says_where_the_result_is_and_draws_the_bars(place, ended, name, result):
    assert ended[name] == {}
    first, second = said(place, name, "out")
    assert first.endswith(result) and first.count("\n") == 1 and second == ""
    bars, silence = said(place, name, "err")
    assert {"train": "train balanced", "generate": "generate", "encode": "encode"}[name] in bars
    assert silence == ""


def test_the_work_is_shared_and_the_set_is_that_of_one_process(place, phantom_cohort):
    record = json.loads((place / "g/training.json").read_text())
    assert record["processes"] == 2 and record["settings"]["base"] == str((place / "sd").resolve())
    rows = plan(phantom_cohort, "match", 10, steps=2)
    alone = generate(place / "g", rows, place / "alone", chunk=4, device="cpu", show=False).folder
    for path in sorted(alone.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (place / "s" / path.relative_to(alone)).read_bytes(), path.name


def test_a_store_that_two_processes_filled_is_what_training_reads(place, phantom_cohort):
    (file,) = (place / "store").rglob("latents.safetensors")
    assert len(LatentStore(file)) == len(phantom_cohort.split("train", "val", domain="id"))


@pytest.mark.parametrize(("name", "words"), [
    ("bad", "'fair' is not known (use one of: none"),
    ("cache", "The cache is filled by one process."),
    ("lost", "This process alone has a fault."),
    ("typo", "No such option: --sizes"),
])  # fmt: skip
def test_an_error_is_told_once_by_whoever_meets_it_first(place, ended, name, words):
    told = said(place, name, "err")
    assert ended[name] and set(ended[name].values()) <= {1, 2, 143}
    assert "".join(told).count(words) == 1
    assert sum(bool(text) for text in told) == 1
    assert not any(word in "".join(told) for word in ("terminated", "Aborted", "Traceback"))
    assert said(place, name, "out") == ["", ""]


def test_torchrun_starts_the_module_and_commands_of_one_process_refuse(tmp_path):
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "equigen"]
    done = subprocess.run([*line, "report", "--out", str(tmp_path / "r")], env={**os.environ, **ENVIRONMENT},
                          capture_output=True, check=False, timeout=200, text=True)  # fmt: skip
    assert done.returncode == 1 and done.stdout == "" and not (tmp_path / "r").exists()
    assert done.stderr.count("This command runs in one process.") == 1
    assert done.stderr.count("start it without torchrun; train, generate, encode share their work") == 1


def test_alone_nothing_of_this_shows(tmp_path):
    done = CliRunner().invoke(app, ["report", "--out", str(tmp_path / "r")])
    assert done.exit_code == 2 and "There is nothing to report." in done.stderr
