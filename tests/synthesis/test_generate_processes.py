"""One, two and three processes make the same set, bit for bit, also when one of them is killed on the way."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from painted import asks, expected
from PIL import Image

from equigen.files import read_json
from equigen.synthesis import generate, plan

ROWS, CHUNK = 38, 4
CHUNKS = [[f"{row:07d}.png" for row in range(low, min(low + CHUNK, ROWS))] for low in range(0, ROWS, CHUNK)]


@pytest.fixture(scope="module")
def folder(phantom_folder, generator, tmp_path_factory):
    """Sets that two and three processes made, and one that three began and two finished."""
    place = tmp_path_factory.mktemp("shared")
    line = [sys.executable, str(Path(__file__).parent / "share_a_set.py"), str(place)]
    line += [str(phantom_folder / "cohort.yaml"), str(generator.folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    done = subprocess.run(line, env=environment, capture_output=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return place


@pytest.fixture(scope="module")
def ended(folder):
    return read_json(folder / "ended.json")


@pytest.fixture(scope="module")
def alone(pipeline, phantom_cohort, tmp_path_factory):
    """The set of this process alone: bytes of every file."""
    rows = plan(phantom_cohort, "match", ROWS, seed=1, steps=2)
    return whole(generate(pipeline, rows, tmp_path_factory.mktemp("alone") / "set", chunk=CHUNK, show=False).folder)


def whole(folder):
    """Bytes of every file of a set, by name, but for the digests of whom a generator's folder was trained on."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "trained_on.parquet"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def told_by(place, processes):
    """What each process said, after making sure that there were so many."""
    told = [read_json(place / f"rank-{rank}.json") for rank in range(processes)]
    assert [one["world"] for one in told] == [processes] * processes
    assert not (place / f"rank-{processes}.json").exists()
    return told


@pytest.mark.parametrize(("name", "processes"), [("two", 2), ("three", 3)])
def test_several_processes_make_the_set_of_one(folder, ended, alone, name, processes):
    assert ended[name] and len(alone) == ROWS + 2
    assert whole(folder / name / "set") == alone
    for rank, told in enumerate(told_by(folder / name, processes)):
        assert told["made"] == [name for part in CHUNKS[rank::processes] for name in part]  # its own, and nobody else's
        assert told["whole"] == told["painted"] == ROWS  # each comes back when all have made theirs
        assert told["again"] == 0 and "use 0 or more" in told["refused"]
    table = pd.read_parquet(folder / name / "painted" / "synthetic.parquet")
    images = [np.asarray(Image.open(folder / name / "painted" / image)) for image in table["image"]]
    np.testing.assert_array_equal(np.stack(images), expected(asks(ROWS)))


def test_a_killed_process_and_another_number_of_them(folder, ended, alone):
    """Of three processes the last is killed at its seventh image; two go on to the same set."""
    assert not ended["killed"] and "set/synthetic.parquet" not in ended["left"]
    left = [name for name in ended["left"] if name.startswith("set/images/0")]
    assert 6 <= len(left) < ROWS and "set/images/0000023.png" not in left
    assert ended["gone on"] and whole(folder / "cut" / "set") == alone
    made = [name for told in told_by(folder / "cut", 2) for name in told["made"]]
    assert sorted(made) == sorted({name for part in CHUNKS for name in part} - {Path(name).name for name in left})
