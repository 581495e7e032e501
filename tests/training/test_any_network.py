"""The loop trains whatever takes (noisy, time, ids): what is frozen, what is saved, what is given out."""

import hashlib
import json

import numpy as np
import pytest
import torch
from small_training import CORRECTED, Stopped, stopping
from test_loop_and_resume import assert_same_run
from worded import PromptNetwork, Store, settings, sides, trainer

from equigen.checkpoints import load_checkpoint, select_prefix
from equigen.errors import InputError
from equigen.training.average import Average, trained_parameters
from equigen.training.gradients import select_latents
from equigen.training.trackers import file_name

NONE = {"mechanism": "none"}


def hashes(tensors):
    return {name: hashlib.sha256(value.detach().numpy().tobytes()).hexdigest() for name, value in tensors.items()}


def test_only_what_is_trained_is_changed_averaged_and_saved(tmp_path):
    run = trainer(tmp_path / "c.safetensors", NONE, settings(24), part="pairs")
    pairs = {f"blocks.{block}.{name}.weight" for block in (0, 1) for name in ("down", "up")}
    before = hashes(run.network.state_dict())
    run.run(show=False)
    after = hashes(run.network.state_dict())
    assert {name for name in after if after[name] != before[name]} == pairs == set(trained_parameters(run.network))
    tensors, _ = load_checkpoint(tmp_path / "c.safetensors")
    assert set(select_prefix("network", tensors)) == set(run.weights()) == pairs
    assert set(select_prefix("average", tensors)) == pairs
    assert {name.split(".")[0] for name in select_prefix("optimizer", tensors)} == {"0", "1", "2", "3"}
    assert {id(p) for group in run.optimizer.param_groups for p in group["params"]} == set(
        map(id, trained_parameters(run.network).values())
    )


def test_the_gradient_norm_is_that_of_what_is_trained(tmp_path):
    """A frozen part with gradients left from elsewhere plays no part in clipping."""
    run = trainer(tmp_path / "c.safetensors", NONE, settings(8, clip=1e-3), part="pairs")
    run.network.first.weight.grad = torch.full_like(run.network.first.weight, 1e6)
    batch = run.stream.batch(0)
    run.backward(batch)
    grads = [parameter.grad.clone() for parameter in trained_parameters(run.network).values()]
    norm = run.accelerator.clip_grad_norm_(run.parameters, run.settings.clip)
    assert norm.item() == pytest.approx(torch.cat([grad.flatten() for grad in grads]).norm().item(), rel=1e-5)


def test_losses_fall_with_pairs_alone_and_without_tokens(tmp_path):
    chosen = settings(400, probe_every=400, log_every=400, learning_rate=3e-2)
    run = trainer(tmp_path / "c.safetensors", NONE, chosen, part="pairs")
    run.run(show=False)
    losses = [row[4] for row in run.history.rows if row[1:4] == ["probe_heldout", "*", "*"]]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("stop", [9, 10])
def test_an_interruption_between_two_parts(tmp_path, stop):
    chosen = settings(48, accumulate=2, min_snr=1.0, noise_offset=0.1, input_perturbation=0.1, precision="bf16")
    own = {"part": "pairs", "predicts": "flow", "stored": True, "dropout": 0.2}
    trainer(tmp_path / "whole.safetensors", CORRECTED, chosen, **own).run(show=False)
    with stopping(stop), pytest.raises(Stopped):
        trainer(tmp_path / "cut.safetensors", CORRECTED, chosen, **own).run(show=False)
    again = trainer(tmp_path / "cut.safetensors", CORRECTED, chosen, **own)
    assert again.images_seen == 24
    again.run(show=False)
    assert_same_run(tmp_path / "cut.safetensors", tmp_path / "whole.safetensors")


@pytest.mark.parametrize("changes", [{}, {"min_snr": 1.0, "noise_offset": 0.2, "input_perturbation": 0.2}])
@pytest.mark.parametrize("own", [{}, {"part": "pairs"}, {"predicts": "flow"}, {"stored": True}])
@pytest.mark.parametrize("mechanism", ["none", "group_dro"])
def test_parts_add_up_to_one_pass(tmp_path, changes, own, mechanism):
    grads = []
    for parts in (1, 4):
        run = trainer(tmp_path / f"{parts}", {"mechanism": mechanism}, settings(accumulate=parts, **changes), **own)
        batch = run.stream.batch(0)
        run.backward(batch)
        grads.append(torch.cat([p.grad.double().flatten() for p in trained_parameters(run.network).values()]))
    assert grads[0].norm() > 0 and (grads[0] - grads[1]).norm() < 1e-5 * grads[0].norm()


def test_a_store_is_asked_for_the_rows_of_a_batch_alone(tmp_path):
    run = trainer(tmp_path / "c.safetensors", NONE, settings(24), stored=True)
    store = run.data.latents
    assert isinstance(store, Store) and store.fetched == len(run.probes["probe_train"].index)
    run.run(show=False)
    assert store.fetched == len(run.probes["probe_train"].index) + 24
    plain = trainer(tmp_path / "p.safetensors", NONE, settings(24))
    plain.run(show=False)
    assert_same_run(tmp_path / "c.safetensors", tmp_path / "p.safetensors")


def test_dropout_is_of_the_seed_and_the_place_and_leaves_the_world_alone(tmp_path):
    chosen = settings(16)
    run = trainer(tmp_path / "c.safetensors", NONE, chosen, dropout=0.5)
    before = torch.get_rng_state()
    batch = run.stream.batch(0)
    losses = []
    for seen in (0, 0, 8):
        run.images_seen = seen
        losses.append(run.predict(batch, slice(0, 8)))
    run.images_seen, (one, two, other) = 0, losses
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)
    run.run(show=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*(run._measure_probe("probe_train", "again").means for _ in range(2)))  # a probe has no dropout


def test_running_means_are_kept_and_learn_from_training_alone(tmp_path):
    place = tmp_path / "c.safetensors"
    run = trainer(place, NONE, settings(24), norm=True)
    run.run(show=False)
    assert run.network.norm.num_batches_tracked == 3  # steps, not probes
    tensors = select_prefix("network", load_checkpoint(place)[0])
    assert torch.equal(tensors["norm.running_mean"], run.network.norm.running_mean)
    assert "table" not in tensors  # a buffer that a saved network does not have
    again = trainer(place, NONE, settings(24), norm=True)
    assert torch.equal(again.network.norm.running_var, run.network.norm.running_var)


@pytest.mark.parametrize(("first", "second", "match"), [
    ("pairs", "all", r"blocks\.0\.base\.bias, blocks\.0\.base\.weight, .* and 11 more"),
    ("all", "pairs", "other trained weights"),
])  # fmt: skip
def test_a_checkpoint_of_other_trained_weights_is_refused(tmp_path, first, second, match):
    place = tmp_path / "c.safetensors"
    trainer(place, NONE, settings(8), part=first).run(show=False)
    with pytest.raises(InputError, match=match):
        trainer(place, NONE, settings(8), part=second)


def test_snapshots_get_the_averaged_weights_of_their_time(tmp_path):
    kept = {}

    def keep(run, weights):
        kept[run.images_seen] = {name: value.clone() for name, value in weights.items()}
        assert all(torch.equal(weights[name], value) for name, value in run.average.values.items())

    for chosen in (settings(24, snapshot_every=16), settings(16, snapshot_every=16)):
        run = trainer(tmp_path / f"{chosen.images}", NONE, chosen, save_snapshot=keep)
        run.run(show=False)
        assert list(kept) == [16]
    assert all(torch.equal(run.weights()[name], value) for name, value in kept[16].items())


def test_without_an_average_the_weights_are_the_last(tmp_path):
    run = trainer(tmp_path / "c.safetensors", NONE, settings(16, ema=0))
    run.run(show=False)
    assert all(torch.equal(value, run.network.get_parameter(name)) for name, value in run.weights().items())


def test_averages_applied_and_taken_back():
    module = PromptNetwork(part="pairs")
    average = Average(module)
    with torch.no_grad():
        for value in average.values.values():
            value.add_(1)
    before = hashes(module.state_dict())
    with average.swap_into(module):
        assert torch.equal(module.blocks[0].up.weight, average.values["blocks.0.up.weight"])
        assert module.blocks[0].up.weight.requires_grad
    assert hashes(module.state_dict()) == before
    with pytest.raises(Stopped), average.swap_into(module):
        raise Stopped
    assert hashes(module.state_dict()) == before


def grid_of(run):
    """Something that tells the weights and the mode."""
    value = int(1e6 * run.network.blocks[0].up.weight.abs().sum().item()) % 256
    made = {"sex/female": (6, value), "age/60+?": (4, run.network.training)}
    return {name: np.full((4, width, 3), told, np.uint8) for name, (width, told) in made.items()}


def test_grids_are_files_made_with_averaged_weights(tmp_path):
    from PIL import Image

    chosen = settings(40, grid_every=16)
    run = trainer(tmp_path / "c.safetensors", NONE, chosen, sample_grids=grid_of)
    run.run(show=False)
    places = sorted(str(path.relative_to(tmp_path / "grids")) for path in (tmp_path / "grids").rglob("*.png"))
    assert places == [f"{seen:09d}/{name}.png" for seen in (0, 16, 32, 40) for name in ("age/60+%3F", "sex/female")]
    last = np.asarray(Image.open(tmp_path / "grids" / "000000040" / "sex" / "female.png"))
    with run.averaged_weights():
        expected = grid_of(run)["sex/female"]
    assert np.array_equal(last, expected) and not np.array_equal(expected, grid_of(run)["sex/female"])
    assert run.network.training and not np.asarray(Image.open(tmp_path / "grids/000000040/age/60+%3F.png")).any()
    plain = trainer(tmp_path / "plain" / "c.safetensors", NONE, settings(40))
    plain.run(show=False)
    assert_same_run(tmp_path / "c.safetensors", tmp_path / "plain" / "c.safetensors")  # training is not touched
    assert not (tmp_path / "plain" / "grids").exists()


def test_names_of_grids_never_fall_together():
    names = ["a/b", "a-b", "a b", "a%2Fb", "a?b", "../a", "a/", "ä", "60+"]
    made = [file_name(name) for name in names]
    assert len(set(made)) == len(names) and made[0] == "a/b" and made[-2:] == ["ä", "60+"]
    assert not any(part.startswith(".") or not part for name in made for part in name.split("/"))


def test_the_held_out_side_is_never_trained_on(tmp_path):
    train, held = sides()
    run = trainer(tmp_path / "c.safetensors", NONE, settings(80, batch=40))
    taken = [select_latents(run.latents, run.stream.batch(place).rows, run.accelerator.device) for place in (0, 40)]
    seen = {latent.numpy().tobytes() for latent in torch.cat(taken)}
    assert seen == {latent.numpy().tobytes() for latent in train.latents}
    assert not seen & {latent.numpy().tobytes() for latent in held.latents}


def test_a_record_is_plain_json(tmp_path):
    run = trainer(tmp_path / "c.safetensors", NONE, settings(8, precision="fp16", best="overall"))
    run.run(show=False)
    told = load_checkpoint(tmp_path / "c.safetensors")[1]
    assert json.loads(json.dumps(told)) == told and told["best"]["rule"] == "overall"
