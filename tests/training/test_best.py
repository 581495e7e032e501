"""The weights that are given out: those of the lowest held-out loss, overall or of the worst group."""

from unittest.mock import patch

import pytest
import torch
from test_loop_and_resume import assert_same_run
from worded import settings, sides, trainer

from equigen.checkpoints import load_checkpoint, select_prefix
from equigen.equity import group_losses
from equigen.errors import InputError
from equigen.training.average import BestWeights
from equigen.training.probe import Probe

NONE = {"mechanism": "none"}


def rising(run):
    """A run whose measured losses fall until 32 images and rise then: overall; the worst group turns at 48."""
    plain = Probe.measure

    def measure(probe, *inputs):
        found = plain(probe, *inputs)
        overall, worst = (abs(run.images_seen - turn) / 100 + 1 for turn in (32, 48))
        values = torch.full_like(found.table, overall)
        values[0] = worst + 1
        return type(found)(found.groups, values, found.counts, torch.full_like(found.strata, overall))

    return patch.object(Probe, "measure", measure)


@pytest.mark.parametrize(("rule", "turn", "loss"), [("overall", 32, 1.0), ("worst_group", 48, 2.0)])
def test_the_averaged_weights_of_the_lowest_loss_are_kept(tmp_path, rule, turn, loss):
    chosen, held = settings(64, probe_every=16, best=rule, grid_every=16), {}

    def grids(now):  # every 16 images, after the probe
        held[now.images_seen] = {name: value.clone() for name, value in now.average.values.items()}
        return {}

    run = trainer(tmp_path / "c.safetensors", NONE, chosen, sample_grids=grids)
    with rising(run):
        run.run(show=False)
    assert run.best.record() == {"rule": rule, "loss": loss, "images_seen": turn}
    given, last = run.weights(), run.weights(current=True)
    assert all(torch.equal(value, held[turn][name]) for name, value in given.items())
    assert all(torch.equal(value, held[64][name]) for name, value in last.items())
    assert any(not torch.equal(given[name], last[name]) for name in given)
    stored = select_prefix("best", load_checkpoint(tmp_path / "c.safetensors")[0])
    assert all(torch.equal(value, stored[name]) for name, value in given.items())


def test_it_is_the_averaged_network_on_the_held_out_side_that_is_measured(tmp_path):
    run = trainer(tmp_path / "c.safetensors", NONE, settings(48, best="overall"))
    run.run(show=False)
    rows = [row for row in run.history.rows if row[1:4] == ["probe_averaged", "*", "*"]]
    assert [row[0] for row in rows] == [0, 24, 48]
    with run.averaged_weights():
        by_hand = run.probes["probe_heldout"].measure(run.network.eval(), run.objective, torch.device("cpu"), 8)
    assert rows[-1][4] == by_hand.overall
    plain = [row[4] for row in run.history.rows if row[1:4] == ["probe_heldout", "*", "*"]]
    assert plain[0] == rows[0][4] and plain[-1] != rows[-1][4]
    assert run.best.loss == min(row[4] for row in rows)


def test_choosing_does_not_touch_the_training(tmp_path):
    for rule in ("none", "overall"):
        trainer(tmp_path / f"{rule}.safetensors", NONE, settings(48, best=rule)).run(show=False)
    (one, _), (two, _) = (load_checkpoint(tmp_path / f"{rule}.safetensors") for rule in ("none", "overall"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert {name.split(".")[0] for name in set(two) - set(one)} == {"best"}


def test_a_run_that_was_best_before_it_was_cut_still_is(tmp_path):
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    chosen = settings(64, probe_every=16, best="overall", checkpoint_every=48)
    for place, stop in ((whole, None), (cut, 48)):
        run = trainer(place, NONE, chosen)
        plain = run.save

        def save(run=run, plain=plain, stop=stop):
            plain()
            if run.images_seen == stop:
                raise KeyboardInterrupt

        run.save = save
        with rising(run):
            if stop is None:
                run.run(show=False)
            else:
                with pytest.raises(KeyboardInterrupt):
                    run.run(show=False)
    again = trainer(cut, NONE, chosen)
    assert again.best.images_seen == 32
    with rising(again):
        again.run(show=False)
    assert again.best.images_seen == 32
    assert_same_run(cut, whole)


def test_the_worst_group_is_the_worst_that_is_known():
    _, held = sides()
    probe = Probe(held.latents, held.ids, held.index, held.groups, 8, 0, "heldout")
    best, module = BestWeights("worst_group", torch.nn.Linear(1, 1), probe), torch.nn.Linear(1, 1)
    index = torch.tensor([[0, 0], [1, -1]])
    for losses, expected in (([1.0, 3.0], 3.0), ([2.5, 2.0], 2.5), ([0.1, 9.0], 2.5)):
        best.update(group_losses(torch.tensor(losses)[:, None], index, held.groups), module, 8)
        assert best.loss == expected


def test_without_validation_images_there_is_no_best(tmp_path):
    with pytest.raises(InputError, match="validation split is empty"):
        trainer(tmp_path / "c.safetensors", NONE, settings(best="overall"), held_out=False)
    _, held = sides()
    unknown = Probe(held.latents, held.ids, torch.full_like(held.index, -1), held.groups, 8, 0, "heldout")
    with pytest.raises(InputError, match="no group of a validation image"):
        BestWeights("worst_group", torch.nn.Linear(1, 1), unknown)
    assert BestWeights("overall", torch.nn.Linear(1, 1), unknown).images_seen == -1
