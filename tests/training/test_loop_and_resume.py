"""The loop: what a step is, what divergence does, and that an interruption changes no bit."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from small_training import ALL, CORRECTED, TOGETHER, Stopped, data, settings, stopping, trainer

from equigen.checkpoints import load_checkpoint, select_prefix
from equigen.errors import EquigenError, InputError
from equigen.training import loop

HERE = Path(__file__).parent


def names(folder):
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def state(path):
    """Everything in a checkpoint but the time of writing."""
    tensors, told = load_checkpoint(path)
    return tensors, {name: value for name, value in told.items() if name != "saved"}


def assert_same_run(one, two):
    (tensors, told), (others, retold) = state(one), state(two)
    assert told == retold and set(tensors) == set(others)
    for name, tensor in tensors.items():
        assert tensor.numpy().tobytes() == others[name].numpy().tobytes(), name  # bit for bit, NaN included


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Checkpoints of runs that nothing interrupted, by mechanism."""
    folder, made = tmp_path_factory.mktemp("whole"), {}
    for name, mechanism in ALL.items():
        made[name] = folder / f"{name}.safetensors"
        trainer(made[name], mechanism).run(show=False)
    return made


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("step", [4, 7])  # between checkpoints at 24 and 48 images, and after the second
def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path, whole, name, step):
    place = tmp_path / "c.safetensors"
    with stopping(step), pytest.raises(Stopped):
        trainer(place, ALL[name]).run(show=False)
    assert state(place)[1]["seen"] == (24 if step == 4 else 48)
    torch.manual_seed(step)  # whatever else the second process does
    again = trainer(place, ALL[name])
    assert again.images_seen == (24 if step == 4 else 48)
    again.run(show=False)
    assert_same_run(place, whole[name])


BF16 = {**TOGETHER, "precision": "bf16", "images": 48}


@pytest.mark.parametrize(("name", "stop"), list(zip(ALL, (5, 6, 11, 7, 8, 9, 17, 15), strict=True)))
def test_an_interruption_in_the_midst_of_everything(tmp_path, whole, name, stop):
    """Two parts, min-SNR and bfloat16 together, stopped between two parts or two steps."""
    chosen = settings(**BF16)
    trainer(tmp_path / "whole.safetensors", ALL[name], chosen).run(show=False)
    place = tmp_path / "cut.safetensors"
    with stopping(stop), pytest.raises(Stopped):
        trainer(place, ALL[name], chosen).run(show=False)
    again = trainer(place, ALL[name], chosen)
    assert again.images_seen in {0, 24}
    again.run(show=False)
    assert_same_run(place, tmp_path / "whole.safetensors")
    tensors = state(place)[0]
    network = select_prefix("network", tensors).values()
    assert {value.dtype for value in network} == {torch.float32}
    assert all(bool(value.isfinite().all()) for value in network)


def test_bfloat16_is_used_and_near(tmp_path):
    """Two bytes a number: losses of the same network differ, but little."""
    runs = [trainer(tmp_path / name, chosen=settings(8, precision=name)) for name in ("fp32", "bf16", "auto")]
    for run in runs:
        run.run(show=False)
    full, half, auto = ([row[4] for row in run.history.rows if row[1:4] == ["train", "*", "*"]] for run in runs)
    assert full != half and full == pytest.approx(half, rel=0.02) and auto == full


def test_the_mechanisms_had_something_to_remember(whole):
    corrected, released = (select_prefix("mechanism", state(whole[name])[0]) for name in ("corrected", "released"))
    assert len(corrected["rewards"]) == 4 and not torch.equal(corrected["points"][1], corrected["points"][2])
    assert released["reward"].isfinite() and bool((released["sigma"] != 1).all())


def test_a_mechanism_decides_before_each_batch_and_is_closed_however_the_run_ends(tmp_path):
    told = []
    for stop in (100, 2):
        run = trainer(tmp_path / f"{stop}.safetensors", chosen=settings(32))
        run.mechanism.decide = lambda seen, first: told.append((seen, first))
        run.mechanism.close = lambda: told.append("closed")
        with stopping(stop), contextlib.suppress(Stopped):
            run.run(show=False)
    assert told == [(0, True), (8, True), (16, True), (24, True), "closed", (0, True), (8, True), (16, True), "closed"]


def test_a_decision_worked_out_beside_the_training_takes_effect_and_leaves_no_process(tmp_path):
    run, processes = trainer(tmp_path / "c.safetensors", CORRECTED), set()
    plain = run.mechanism.decide

    def decide(*arguments):
        took = plain(*arguments)
        processes.add(run.mechanism.proposer.worker)
        return took

    run.mechanism.decide = decide
    run.run(show=False)
    assert not torch.equal(run.mechanism.points[2], run.mechanism.points[3])  # window 3 had a sigma that was asked for
    ended = [worker for worker in processes if worker is not None]
    assert ended and all(worker.poll() is not None for worker in ended)


def test_an_interruption_before_the_first_checkpoint_starts_afresh(tmp_path, whole):
    with stopping(1), pytest.raises(Stopped):
        trainer(tmp_path / "c.safetensors").run(show=False)
    assert names(tmp_path) == []
    trainer(tmp_path / "c.safetensors").run(show=False)
    assert_same_run(tmp_path / "c.safetensors", whole["none"])


def test_a_killed_process_goes_on(tmp_path, whole):
    place = tmp_path / "corrected.safetensors"
    asked = ["64", json.dumps({"corrected": [CORRECTED, {}]}), "5"]
    line = [sys.executable, str(HERE / "small_training.py"), str(tmp_path), *asked]
    done = subprocess.run(line, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert state(place)[1]["seen"] == 24
    trainer(place, CORRECTED).run(show=False)
    assert_same_run(place, whole["corrected"])


def test_a_kill_while_the_checkpoint_is_written_keeps_the_one_before(tmp_path, whole):
    place = tmp_path / "c.safetensors"
    with stopping(4), pytest.raises(Stopped):
        trainer(place).run(show=False)
    (tmp_path / ".c.12345678.part.safetensors").write_bytes(place.read_bytes()[:99])  # what SIGKILL leaves
    trainer(place).run(show=False)
    assert_same_run(place, whole["none"])


def test_a_finished_run_makes_no_step(whole, tmp_path):
    with stopping(0):
        run = trainer(whole["none"])
        run.run(show=False)
    assert run.images_seen == 64


def test_global_random_numbers_are_left_alone(tmp_path):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    trainer(tmp_path / "c.safetensors", CORRECTED, settings(24)).run(show=False)
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]


@pytest.mark.parametrize(
    ("changes", "match"), [({"key": "that run"}, "other data or settings"), ({"mechanism": CORRECTED}, "mechanism")]
)
def test_a_checkpoint_of_something_else_is_refused(whole, changes, match):
    before = whole["none"].read_bytes()
    with pytest.raises(InputError, match=match):
        trainer(whole["none"], **changes)
    assert whole["none"].read_bytes() == before


def test_a_damaged_checkpoint_is_refused(whole, tmp_path):
    (tmp_path / "c.safetensors").write_bytes(whole["none"].read_bytes()[:5000])
    with pytest.raises(InputError, match="damaged"):
        trainer(tmp_path / "c.safetensors")


def history(path):
    return state(path)[1]["history"]


def test_history_has_every_kind_at_its_time(whole):
    rows = history(whole["corrected"])
    times = {kind: sorted({row[0] for row in rows if row[1] == kind}) for kind in {row[1] for row in rows}}
    assert times["train"] == times["learning_rate"] == [16, 32, 48, 64]
    assert times["probe_train"] == [0, 24, 48, 64]
    assert times["probe_heldout"] == [0, 16, 24, 32, 48, 64]  # windows of 16 end on the held-out probe alone
    assert times["reward"] == [16, 24, 32, 48, 64] and times["sigma"] == [0, 16, 24, 32, 48, 64]
    seen = sum(row[5] for row in rows if row[1:4] == ["train", "*", "*"])
    assert seen == 64


def test_the_end_is_measured_even_between_two_measurements(tmp_path):
    trainer(tmp_path / "c.safetensors", chosen=settings(40)).run(show=False)
    rows = history(tmp_path / "c.safetensors")
    assert [row[0] for row in rows if row[1:4] == ["train", "*", "*"]] == [16, 32, 40]
    assert [row[0] for row in rows if row[1:4] == ["probe_heldout", "*", "*"]] == [0, 24, 40]


def test_one_step_by_hand(tmp_path):
    """AdamW on mean(w_i l_i), clipped, at the schedule's rate; then the average."""
    chosen = settings(8, clip=0.05, ema=100)
    run, copy = trainer(tmp_path / "a.safetensors", chosen=chosen), trainer(tmp_path / "b.safetensors", chosen=chosen)
    start = {name: value.clone() for name, value in copy.network.named_parameters()}
    weights = torch.linspace(0, 2, 8)
    with patch.object(type(run.mechanism), "weights", lambda *_: weights):
        run.run(show=False)
    batch = copy.stream.batch(0)
    inputs = copy.data.latents[batch.rows], batch.noise, batch.timesteps, batch.ids
    losses = loop.loss_per_image(copy.network, copy.objective, *inputs)
    (weights * losses).mean().backward()
    norm = torch.nn.utils.clip_grad_norm_(copy.network.parameters(), 0.05)
    assert norm > 0.05
    rate = chosen.learning_rate_at(0)
    for name, parameter in copy.network.named_parameters():
        grad, before = parameter.grad, start[name]
        expected = before * (1 - rate * 0.01) - rate * grad / (grad.abs() + 1e-8)  # first step: m / sqrt(v) = sign
        now = dict(run.network.named_parameters())[name]
        torch.testing.assert_close(now.detach(), expected, rtol=1e-4, atol=1e-6)
        averaged = start[name] + (1 - chosen.ema_decay_at(0)) * (now.detach() - start[name])
        torch.testing.assert_close(run.average.state_dict()[name], averaged, rtol=1e-4, atol=1e-6)


def test_no_average_where_none_is_wanted(tmp_path):
    run = trainer(tmp_path / "c.safetensors", chosen=settings(24, ema=0))
    run.run(show=False)
    assert run.average is None and not select_prefix("average", state(tmp_path / "c.safetensors")[0])


def test_without_a_held_out_side_the_training_probe_steers(tmp_path):
    run = trainer(tmp_path / "c.safetensors", CORRECTED, settings(32), held_out=False)
    run.run(show=False)
    assert list(run.probes) == ["probe_train"] and len(run.mechanism.rewards) == 2


def test_losses_fall(tmp_path):
    chosen = settings(400, probe_every=200, log_every=200, learning_rate=1e-2, ema=0)
    run = trainer(tmp_path / "c.safetensors", chosen=chosen)
    run.run(show=False)
    for kind in ("probe_train", "probe_heldout"):
        losses = [row[4] for row in run.history.rows if row[1:4] == [kind, "*", "*"]]
        assert losses[-1] < 0.75 * losses[0]


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_divergence_stops_with_a_clear_error_and_the_last_checkpoint(tmp_path, what):
    place = tmp_path / "c.safetensors"
    run, plain, made = trainer(place), loop.loss_per_image, []

    def broken(*inputs):
        losses = plain(*inputs)
        made.append(losses)
        if len(made) < 6:
            return losses
        if what == "loss":
            return losses * float("nan")
        return losses.detach() + (losses - losses.detach()).sqrt()  # finite, with an infinite gradient

    failing = pytest.raises(EquigenError, match="diverged after 40")
    with patch.object(loop, "loss_per_image", broken), failing as caught:
        run.run(show=False)
    assert f"a {what} is not finite" in str(caught.value) and "Lower learning_rate" in str(caught.value)
    assert str(place) in str(caught.value)
    tensors, told = state(place)
    assert told["seen"] == 24 and all(bool(value.isfinite().all()) for value in tensors.values())
    assert all(bool(value.isfinite().all()) for value in run.network.state_dict().values())


def test_divergence_before_the_first_checkpoint(tmp_path):
    train = data(40, 0)
    train.latents[:] = float("inf")
    with pytest.raises(EquigenError, match=r"diverged|not finite"):
        trainer(tmp_path / "c.safetensors", train=train, held_out=False).run(show=False)
    assert names(tmp_path) == []
