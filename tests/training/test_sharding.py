"""Two processes that hold the weights in parts (FSDP), or each whole (DDP), are one; a checkpoint fits any number.

A run of two processes that is cut and goes on is the uncut one bit for bit. Where the number of processes changes on
the way, sums over a batch are rounded in another order: those are equal to rounding.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from small_training import GROUPS
from test_loop_and_resume import assert_same_run
from worded import SCHEDULERS, pictures, run_until, settings, sides, trainer

from equigen.checkpoints import load_checkpoint, select_prefix
from equigen.training.probe import Probe

HERE = Path(__file__).parent
CUT = 32
EVERY = {"checkpoint_every": CUT}
DRO, FULL = {"mechanism": "group_dro"}, {"sharding": "full"}
FIXED = {"mechanism": "perturbation", "window_images": 24, "minimum": 1, "design": 64}
RUNS = {
    "sharded": [FIXED, FULL, {}],
    "pairs": [DRO, {}, {"part": "pairs", "predicts": "flow"}],
    "everything": [
        {"mechanism": "minmax_noise"},
        {**FULL, "accumulate": 2, "min_snr": 1.0, "noise_offset": 0.1, "input_perturbation": 0.1, "best": "overall",
         "snapshot_every": 24, "grid_every": 32},
        {"part": "pairs", "predicts": "flow", "stored": True},
    ],
    "float16": [{"mechanism": "none"}, {**FULL, "precision": "fp16"}, {}],
}  # fmt: skip


def launched(folder, runs):
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    line += [str(HERE / "worded.py"), str(folder), json.dumps(runs)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    done = subprocess.run(line, env=environment, capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr.decode()[-3000:]


def alone(place, name, stop=None):
    """A run of one process, from the checkpoint at ``place`` where there is one."""
    mechanism, changes, network = RUNS[name]
    run = trainer(place, mechanism, settings(**EVERY, **changes), sample_grids=pictures, **network)
    begun = run.images_seen
    run_until(run, stop)
    return run, begun


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """In one start of two processes: runs to the cut; on from there; in one go; and on from a cut of one process."""
    place, runs = tmp_path_factory.mktemp("sharding"), {}
    for name, (mechanism, changes, network) in RUNS.items():
        alone(place / f"{name}-one" / "c.safetensors", name, CUT)
        run = [mechanism, {**EVERY, **changes}, network]
        runs |= {f"{name}-straight": [*run, None, None], f"{name}-cut": [*run, CUT, None]}
        runs |= {f"{name}-on": [*run, None, f"{name}-cut"], f"{name}-from-one": [*run, None, f"{name}-one"]}
    launched(place, runs)
    return place


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """The run of one process in one go."""
    place = tmp_path_factory.mktemp("single")
    return {name: alone(place / name / "c.safetensors", name)[0] for name in RUNS}


def given(folder, name):
    """Weights that the first process of two gave out, and what both told."""
    (weights, one), (_, two) = (load_checkpoint(folder / name / f"given-{rank}.safetensors") for rank in (0, 1))
    assert one["world"] == two["world"] == 2
    return weights, one, two


def distance(weights, others):
    assert set(weights) == set(others)
    one, two = (torch.cat([side[name].double().flatten() for name in sorted(side)]) for side in (weights, others))
    return float((one - two).norm() / two.norm())


# half precision rounds a hundred times as coarsely
ROUNDING = {name: 1e-2 if name == "float16" else 1e-4 for name in RUNS}


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_what_one_does(folder, single, name):
    weights, one, two = given(folder, f"{name}-straight")
    assert distance(weights, single[name].weights()) < ROUNDING[name]
    assert one["rows"] == two["rows"] and len(one["rows"]) == len(single[name].history.rows)
    for row, expected in zip(one["rows"], single[name].history.rows, strict=True):
        assert row[:4] == expected[:4] and row[5] == expected[5]
        assert row[4] == pytest.approx(expected[4], rel=20 * ROUNDING[name], abs=1e-5), row


@pytest.mark.parametrize("name", RUNS)
def test_each_process_holds_its_part_where_weights_are_sharded(folder, single, name):
    _, one, two = given(folder, f"{name}-straight")
    whole = sum(parameter.numel() for parameter in single[name].network.parameters())
    if "sharding" in RUNS[name][1]:
        assert one["held"] + two["held"] == whole and one["held"] < 0.6 * whole
    else:
        assert one["held"] == two["held"] == whole


@pytest.mark.parametrize("name", RUNS)
def test_a_cut_run_of_two_processes_goes_on_bit_for_bit(folder, name):
    assert load_checkpoint(folder / f"{name}-cut" / "c.safetensors")[1]["seen"] == CUT
    assert_same_run(folder / f"{name}-on" / "c.safetensors", folder / f"{name}-straight" / "c.safetensors")


@pytest.mark.parametrize("name", RUNS)
def test_one_process_goes_on_from_two(folder, single, tmp_path, name):
    place = shutil.copy(folder / f"{name}-cut" / "c.safetensors", tmp_path / "c.safetensors")
    run, begun = alone(place, name)
    assert begun == CUT and distance(run.weights(), single[name].weights()) < ROUNDING[name]
    same_content(place, single[name].checkpoint, ROUNDING[name])


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_go_on_from_one(folder, single, name):
    weights, told, _ = given(folder, f"{name}-from-one")
    assert told["begun"] == CUT and distance(weights, single[name].weights()) < ROUNDING[name]
    same_content(folder / f"{name}-from-one" / "c.safetensors", single[name].checkpoint, ROUNDING[name])


def same_content(place, other, rounding):
    """Network, optimizer, averages, best weights and mechanism of two checkpoints, whole in both, to rounding."""
    tensors, others = load_checkpoint(place)[0], load_checkpoint(other)[0]
    for part in ("network", "optimizer", "average", "best", "mechanism"):
        one, two = select_prefix(part, tensors), select_prefix(part, others)
        assert {name: value.shape for name, value in one.items()} == {name: value.shape for name, value in two.items()}
        if part in {"network", "average", "best"} and one:
            assert distance(one, two) < rounding
        for name in one if part == "mechanism" else ():
            torch.testing.assert_close(one[name], two[name], rtol=100 * rounding, atol=100 * rounding, equal_nan=True)


def test_sharded_snapshots_are_whole(folder, single):
    kept = load_checkpoint(folder / "everything-straight" / "kept-48.safetensors")[0]
    assert {name: value.shape for name, value in kept.items()} == {
        name: value.shape for name, value in single["everything"].weights().items()
    }
    assert not (folder / "sharded-straight" / "kept-48.safetensors").exists()


def test_sharded_grids_are_those_of_one_process(folder, single):
    """Made with averaged weights, through the network that all processes hold in parts."""
    apart, together = (
        place.parent / "grids" for place in (folder / "everything-straight" / "c", single["everything"].checkpoint)
    )
    names = sorted(str(path.relative_to(together)) for path in together.rglob("*.png"))
    assert names == [f"{seen:09d}/{name}.png" for seen in (0, 32, 64) for name in ("one", "two")]
    for name in names:
        one, two = (np.asarray(Image.open(side / name)).astype(int) for side in (apart, together))
        assert np.abs(one - two).max() <= 1 and one.std() > 1
    first, last = (np.asarray(Image.open(apart / f"{seen:09d}" / "one.png")).astype(int) for seen in (0, 64))
    assert np.abs(first - last).max() > 1


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_processes_share_a_probe_out(processes):
    """Each measures its share and no more; together they have what one has."""
    _, held = sides()
    probe = Probe(held.latents, held.ids, held.index, GROUPS, 8, 0, "heldout")
    schedule, shares, passed = SCHEDULERS["epsilon"](), [], []

    def network(noisy, time, ids):
        passed.append(len(noisy))
        return noisy * (1 + time[:, None, None, None] / 1000)

    whole = probe.measure(network, schedule, torch.device("cpu"), 7)
    assert sum(passed) == len(probe.latents) and max(passed) == 7
    for step in ("collect", "answer"):
        for rank in range(processes):
            passed.clear()
            gather = shares.append if step == "collect" else lambda _: torch.cat(shares)
            one = SimpleNamespace(num_processes=processes, process_index=rank, gather=gather)
            if step == "collect":
                with pytest.raises(TypeError):  # nothing comes back until all have measured
                    probe.measure(network, schedule, torch.device("cpu"), 7, one)
                assert sum(passed) == -(-len(probe.latents) // processes)
            else:
                found = probe.measure(network, schedule, torch.device("cpu"), 7, one)
                assert torch.equal(found.table, whole.table) and found.overall == whole.overall
