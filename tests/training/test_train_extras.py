"""From a cohort to a generator: grids of its groups, a tracker, the best weights, and what is refused early."""

import numpy as np
import pytest
import torch
from generator_folder import files, names
from PIL import Image

from equigen.checkpoints import load_checkpoint
from equigen.diffusion import open_generator
from equigen.errors import InputError
from equigen.files import read_json
from equigen.latents import load_autoencoder
from equigen.training import check_settings, trackers
from equigen.training import datasets as sides
from equigen.training import requirements as needs
from equigen.training.trackers import COLUMNS


def test_grids_of_each_group_are_of_the_same_noise_and_follow_the_training(go, cohort, monkeypatch):
    monkeypatch.setattr(trackers, "STEPS", 2)
    run = go("with", images=24, grid_every=24, learning_rate=1e-2)
    folder = run.folder / "grids"
    assert names(folder) == ["000000000", "000000024"]
    val = cohort.split("val")
    shown = {attribute: {path.stem for path in (folder / "000000024" / attribute).iterdir()}
             for attribute in cohort.attributes}  # fmt: skip
    for column, (attribute, spec) in enumerate(cohort.attributes.items()):
        there = {spec.levels[number] for number in np.unique(val.groups(attribute)) if number >= 0}
        assert shown[attribute] == there, column
    strips = [np.asarray(Image.open(folder / moment / "sex" / "female.png")) for moment in names(folder)]
    assert all(strip.shape == (32, 32 * COLUMNS, 3) for strip in strips)
    assert not np.array_equal(*strips)
    tiles = np.split(strips[1], COLUMNS, axis=1)
    assert not np.array_equal(tiles[0], tiles[1])  # another noise in each
    plain = go("without", images=24, learning_rate=1e-2)
    assert run.pipeline().hash == plain.pipeline().hash and not (plain.folder / "grids").exists()
    again = go("again", images=24, grid_every=24, learning_rate=1e-2)
    assert {name: data for name, data in files(again.folder).items() if name.startswith("grids")} == {
        name: data for name, data in files(run.folder).items() if name.startswith("grids")
    }


def test_a_tracker_leaves_its_logs_beside_the_generator(go):
    pytest.importorskip("tensorboard")
    run = go(trackers="tensorboard")
    assert any(path.name.startswith("events.out") for path in (run.folder / "logs").iterdir())
    assert run.pipeline().hash == go("plain").pipeline().hash


def test_the_generator_holds_the_best_weights_and_says_since_when(go):
    run = go(best="overall", learning_rate=0.3, warmup=0, ema=0)  # so fast that it gets worse
    tensors, _ = load_checkpoint(run.folder / "checkpoint.safetensors")
    told = read_json(run.folder / "training.json")["best"]
    assert told["rule"] == "overall" and told["images_seen"] < 48
    made = run.pipeline().unet.conv_in.weight
    assert torch.equal(made, tensors["best.unet.conv_in.weight"])
    assert not torch.equal(made, tensors["network.unet.conv_in.weight"])
    assert read_json(go("plain").folder / "training.json")["best"] is None


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"trackers": "wandb"}, "'wandb' was asked for"),
        ({"optimizer": "adamw8bit"}, "'adamw8bit' was asked for"),
        ({"best": "worst_group"}, "validation split is empty"),
    ],
)
def test_what_is_refused_before_an_image_is_encoded(go, quick, cohort, monkeypatch, tmp_path, changes, match):
    monkeypatch.setattr(needs, "is_installed", lambda package: False)
    monkeypatch.setattr(sides, "encode", lambda *_, **__: pytest.fail("encoded"))
    on = cohort.split("train", "test") if "best" in changes else cohort
    with pytest.raises(InputError, match=match):
        go(on=on, **changes)
    with pytest.raises(InputError, match=match):
        check_settings(quick(**changes), on, load_autoencoder())
    assert names(tmp_path) == []


def test_noise_precision_and_sharding_settings_make_a_generator(go):
    """One process has the whole anyway."""
    changes = {"noise_offset": 0.1, "input_perturbation": 0.1, "timestep_sampling": "logit_normal"}
    run = go(precision="fp16", gradient_checkpointing=True, sharding="full", **changes)
    assert open_generator(run.folder).hash != go("plain").pipeline().hash
    assert read_json(run.folder / "training.json")["settings"]["sharding"] == "full"
