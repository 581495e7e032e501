"""Two processes are one: the same weights to rounding, and the same mechanism on both."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_training import CORRECTED, RELEASED, settings, trainer

from equigen.checkpoints import load_checkpoint, unprefixed

HERE = Path(__file__).parent
MECHANISMS = {"corrected": CORRECTED, "released": RELEASED}
IMAGES = 48  # six steps; the Gaussian process chooses a sigma after the last


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of two processes, one a mechanism."""
    place = tmp_path_factory.mktemp("processes")
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    line += [str(HERE / "small_training.py"), str(place), str(IMAGES), json.dumps({**MECHANISMS, "unlike": CORRECTED})]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    done = subprocess.run(line, env=environment, capture_output=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return place


def ranks(folder, name):
    """Tensors and records of both processes."""
    return [load_checkpoint(folder / f"{name}-{rank}.safetensors") for rank in range(2)]


def distance(tensors, others):
    """Relative distance of all weights together: one alone may have no gradient but rounding, which Adam enlarges."""
    return float(norm({name: tensors[name] - other for name, other in others.items()}) / norm(others))


def norm(tensors):
    return torch.cat([tensor.double().flatten() for tensor in tensors.values()]).norm()


@pytest.mark.parametrize("name", MECHANISMS)
def test_both_processes_hold_the_same(folder, name):
    (one, told), (two, retold) = ranks(folder, name)
    assert told["world"] == retold["world"] == 2
    assert all(torch.equal(tensor, two[key]) for key, tensor in one.items())  # sigma too, bit for bit
    assert told["rows"] == retold["rows"]
    assert len(set(one["sigma"].tolist())) > 2  # neither all 0 nor all 1, as they started


@pytest.mark.parametrize("name", MECHANISMS)
def test_two_processes_train_what_one_does(folder, tmp_path, name):
    (tensors, told), _ = ranks(folder, name)
    alone = trainer(tmp_path / "alone.safetensors", MECHANISMS[name], settings(IMAGES))
    start = {key: value.clone() for key, value in alone.network.state_dict().items()}
    alone.run(show=False)
    weights = alone.network.state_dict()
    assert distance(start, weights) > 1e-2 > 100 * distance(tensors, weights)
    assert distance(unprefixed("average", tensors), alone.average.state_dict()) < 1e-4
    assert len(told["rows"]) == len(alone.history.rows)
    for row, expected in zip(told["rows"], alone.history.rows, strict=True):
        assert row[:4] == expected[:4] and row[5] == expected[5]
        if row[1].startswith(("train", "probe")):
            assert row[4] == pytest.approx(expected[4], rel=1e-4)


def test_unlike_processes_go_on_with_the_first_ones_decision(folder):
    """In the run "unlike" the second process measures other losses on the probe, as another processor might."""
    (one, told), (two, retold) = ranks(folder, "unlike")
    measured = [[row[4] for row in rows["rows"] if row[1].startswith("probe")] for rows in (told, retold)]
    assert measured[0] != measured[1]
    expected = ranks(folder, "corrected")[0][0]
    assert all(torch.equal(one[name], value) and torch.equal(two[name], value) for name, value in expected.items())


def test_two_processes_write_one_checkpoint_that_one_process_goes_on_from(folder, tmp_path):
    for name, mechanism in MECHANISMS.items():
        place = shutil.copy(folder / f"{name}.safetensors", tmp_path)
        run = trainer(place, mechanism, settings(IMAGES + 8))
        assert run.seen == IMAGES and torch.equal(run.mechanism.sigma, ranks(folder, name)[0][0]["sigma"])
        run.run(show=False)
        assert run.seen == IMAGES + 8
