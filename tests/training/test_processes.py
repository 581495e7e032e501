"""Two processes are one: the same weights to rounding, and the same mechanism on both, for every mechanism."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_training import ALL, CORRECTED, TOGETHER, settings, trainer

from equigen.checkpoints import load_checkpoint, select_prefix

HERE = Path(__file__).parent
IMAGES = 64  # eight steps; the last is made with a sigma that the Gaussian process of ``corrected`` chose
RUNS = {name: [mechanism, {}] for name, mechanism in ALL.items()}
RUNS |= {f"{name}-in-parts": [ALL[name], TOGETHER] for name in ("corrected", "group_dro")}
UNLIKE = {"unlike": [CORRECTED, {}]}
KEPT = {"kept": [ALL["none"], {"snapshot_every": 24}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of two processes, one a mechanism, in one start."""
    place = tmp_path_factory.mktemp("processes")
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    line += [str(HERE / "small_training.py"), str(place), str(IMAGES), json.dumps({**RUNS, **UNLIKE, **KEPT})]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    done = subprocess.run(line, env=environment, capture_output=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return place


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """alone(name): the weights before and the run after, of one process; made once for each name."""
    place, made = tmp_path_factory.mktemp("alone"), {}

    def run(name):
        if name not in made:
            mechanism, changes = RUNS[name]
            one = trainer(place / f"{name}.safetensors", mechanism, settings(IMAGES, **changes))
            start = {key: value.clone() for key, value in one.network.state_dict().items()}
            one.run(show=False)
            made[name] = start, one
        return made[name]

    return run


def ranks(folder, name):
    """Tensors and records of both processes."""
    return [load_checkpoint(folder / f"{name}-{rank}.safetensors") for rank in range(2)]


def distance(tensors, others):
    """Relative distance of all weights together: one alone may have no gradient but rounding, which Adam enlarges."""
    return float(norm({name: tensors[name] - other for name, other in others.items()}) / norm(others))


def norm(tensors):
    return torch.cat([tensor.double().flatten() for tensor in tensors.values()]).norm()


@pytest.mark.parametrize("name", RUNS)
def test_both_processes_hold_the_same(folder, name):
    (one, told), (two, retold) = ranks(folder, name)
    assert told["world"] == retold["world"] == 2
    assert set(one) == set(two)
    assert all(tensor.numpy().tobytes() == two[key].numpy().tobytes() for key, tensor in one.items())  # bit for bit
    assert told["rows"] == retold["rows"] and told["mechanism"] == retold["mechanism"]


# A proposal is the end of a search, which enlarges rounding (measured: to 2e-5).
TOLERANCE = {"sigma": 1e-3}


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_what_one_does(folder, alone, name):
    (tensors, told), _ = ranks(folder, name)
    start, run = alone(name)
    weights = run.network.state_dict()
    assert distance(start, weights) > 1e-2 > 100 * distance(tensors, weights)
    assert distance(select_prefix("average", tensors), run.average.state_dict()) < 1e-4
    assert len(told["rows"]) == len(run.history.rows)
    for row, expected in zip(told["rows"], run.history.rows, strict=True):
        assert row[:4] == expected[:4] and row[5] == expected[5]
        assert row[4] == pytest.approx(expected[4], rel=TOLERANCE.get(row[1], 1e-4), abs=1e-6), row


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_remember_what_one_does(folder, alone, name):
    """Sigma, moving losses, group weights, rewards and counts: all that a mechanism has."""
    (tensors, told), _ = ranks(folder, name)
    state = alone(name)[1].mechanism.state_dict()
    remembered = select_prefix("mechanism", tensors)
    assert {*remembered, *told["mechanism"]} == set(state)
    for key, value in remembered.items():
        close = (1e-3, 1e-3) if key in {"sigma", "point", "points"} else (1e-4, 1e-6)
        difference = (value - state[key]).abs().nan_to_num()
        assert torch.equal(value.isnan(), state[key].isnan())
        assert bool((difference <= close[0] * state[key].abs().nan_to_num() + close[1]).all()), (key, difference.max())
    assert told["mechanism"] == {key: state[key] for key in told["mechanism"]}


def test_the_mechanisms_had_something_to_hold(folder):
    held = {name: select_prefix("mechanism", ranks(folder, name)[0][0]) for name in RUNS}
    assert len(held["corrected"]["rewards"]) == 4 and bool((held["corrected"]["rewards"] < 0).all())
    assert held["released"]["reward"] < 0 and len(set(held["released"]["sigma"].tolist())) == 5
    assert held["group_dro"]["log_factors"].abs().max() > 0.01 and held["minmax_noise"]["excess"].abs().max() > 0.01
    counted = "reweight", "balanced", "group_dro", "minmax_noise"
    assert all(held[name]["census_counts"].sum() == 40 for name in counted)


def test_unlike_processes_go_on_with_the_first_ones_decision(folder):
    """In the run "unlike" the second process measures other losses on the probe, as another processor might."""
    (one, told), (two, retold) = ranks(folder, "unlike")
    measured = [[row[4] for row in rows["rows"] if row[1].startswith("probe")] for rows in (told, retold)]
    assert measured[0] != measured[1]
    expected = ranks(folder, "corrected")[0][0]
    assert all(torch.equal(one[name], value) and torch.equal(two[name], value) for name, value in expected.items())


def test_one_process_keeps_the_snapshots(folder):
    assert sorted(path.name for path in folder.glob("*-kept-*")) == ["kept-kept-24", "kept-kept-48"]
    plain, kept = ranks(folder, "none")[0][0], ranks(folder, "kept")[1][0]
    assert all(torch.equal(value, plain[key]) for key, value in kept.items())


@pytest.mark.parametrize("name", ["corrected", "released", "group_dro-in-parts"])
def test_two_processes_write_one_checkpoint_that_one_process_goes_on_from(folder, tmp_path, name):
    place = shutil.copy(folder / f"{name}.safetensors", tmp_path)
    mechanism, changes = RUNS[name]
    run = trainer(place, mechanism, settings(IMAGES + 8, **changes))
    expected = select_prefix("mechanism", ranks(folder, name)[0][0])
    state = run.mechanism.state_dict()
    assert run.images_seen == IMAGES and all(torch.equal(state[key], value) for key, value in expected.items())
    run.run(show=False)
    assert run.images_seen == IMAGES + 8
