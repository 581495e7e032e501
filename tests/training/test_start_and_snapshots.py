"""Going on from a generator, and generators kept on the way."""

import dataclasses
import json
import shutil
from unittest.mock import patch

import numpy as np
import pytest
import torch
from generator_folder import files, images, names
from small_training import Stopped, stopping

from equigen.diffusion import PRESETS, open_generator
from equigen.errors import InputError
from equigen.files import read_json
from equigen.latents import load_autoencoder
from equigen.training import datasets as sides
from equigen.training import loop, train


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Where a generator to start from is made, once."""
    return tmp_path_factory.mktemp("first") / "g"


@pytest.fixture
def origin(first, cohort, latents, quick, small_preset):
    """The folder of a generator to start from."""
    return train(cohort, settings=quick(images=24, seed=5), out=first, latents=latents, show=False).folder


def test_the_weights_are_taken(go, origin):
    begun, plain = {}, loop.Trainer.run

    def watching(self, show):
        begun.update(network=self.network.state_dict(), average=self.average.state_dict())
        begun.update({key: {name: value.clone() for name, value in begun[key].items()} for key in list(begun)})
        plain(self, show)

    with patch.object(loop.Trainer, "run", watching):
        run = go(start=str(origin))
    expected = open_generator(origin).denoiser.state_dict()
    for found in begun.values():
        assert set(found) == set(expected) and all(torch.equal(found[key], value) for key, value in expected.items())
    assert read_json(run.folder / "training.json")["settings"]["start"] == str(origin)
    trained = run.pipeline().denoiser.state_dict()
    assert any(not torch.equal(trained[key], value) for key, value in expected.items())


def test_it_is_another_run_than_one_from_scratch(go, origin):
    one, two = go("one", start=str(origin)), go("two")
    assert one.pipeline().hash != two.pipeline().hash
    keys = [read_json(run.folder / "training.json")["key"] for run in (one, two)]
    assert keys[0] != keys[1]


def test_a_start_counts_by_its_weights_not_by_its_place(go, origin, tmp_path):
    before = files(go(start=str(origin)).folder)
    moved = shutil.copytree(origin, tmp_path / "moved")
    with patch.object(loop.Trainer, "run", lambda *_: pytest.fail("trained again")):
        assert files(go(start=str(moved)).folder) == before
        other = go_of_other_weights(moved)
        with pytest.raises(InputError, match="taken"):
            go(start=str(other))


def go_of_other_weights(folder):
    """The same generator with one weight changed, in the same place."""
    made = open_generator(folder, "cpu")
    with torch.no_grad():
        made.tokens.table.weight[0, 0] += 1
    made.save_pretrained(str(folder), safe_serialization=True)
    return folder


def test_an_interrupted_run_does_not_start_again_from_the_generator(go, origin, tmp_path):
    whole = go("whole", start=str(origin))
    with stopping(3), pytest.raises(Stopped):
        go("cut", start=str(origin))
    assert names(tmp_path / "cut") == ["checkpoint.safetensors"]
    assert files(go("cut", start=str(origin)).folder) == files(whole.folder)


def turned(cohort, name):
    """The cohort with what a vocabulary is made of in another order."""
    if name == "order":
        return dataclasses.replace(cohort, attributes=dict(reversed(cohort.attributes.items())))
    first = next(iter(cohort.attributes))
    levels = dataclasses.replace(cohort.attributes[first], levels=cohort.attributes[first].levels[::-1])
    return dataclasses.replace(cohort, attributes={**cohort.attributes, first: levels})


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"preset": "small"}, "preset"),
        ({"prediction": "epsilon"}, "prediction"),
        ({"size": 48}, "size"),
        ({"on": "order"}, "conditions"),
        ({"on": "levels"}, "conditions"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(go, origin, cohort, monkeypatch, tmp_path, changes, what):
    monkeypatch.setattr(sides, "encode", lambda *_, **__: pytest.fail("encoded"))
    changes = {key: turned(cohort, value) if key == "on" else value for key, value in changes.items()}
    with pytest.raises(InputError, match=f"has another {what}") as caught:
        go(start=str(origin), **changes)
    assert len(caught.value.problems) == 1 and caught.value.problems[0].file == str(origin)
    assert names(tmp_path) == []


def test_a_start_of_another_depth_is_refused(go, origin):
    with patch.dict(PRESETS, tiny={**PRESETS["tiny"], "layers": 2}), pytest.raises(InputError, match="another preset"):
        go(start=str(origin))


def test_a_start_of_another_autoencoder_is_refused(cohort, origin, latents, quick, tmp_path):
    coder = load_autoencoder()
    with torch.no_grad():
        next(iter(coder.network.parameters())).add_(0.01)
    coder.save(tmp_path / "own")
    with pytest.raises(InputError, match="another autoencoder"):
        train(
            cohort,
            settings=quick(start=str(origin)),
            out=tmp_path / "o",
            latents=latents,
            autoencoder=tmp_path / "own",
            show=False,
        )


@pytest.mark.parametrize("fault", ["missing", "unfinished", "damaged"])
def test_a_start_that_is_no_generator_is_refused(go, origin, tmp_path, monkeypatch, fault):
    monkeypatch.setattr(sides, "encode", lambda *_, **__: pytest.fail("encoded"))
    place = tmp_path / "start"
    if fault != "missing":
        shutil.copytree(origin, place)
    if fault == "unfinished":
        (place / "model_index.json").unlink()
    if fault == "damaged":
        weights = place / "unet" / "diffusion_pytorch_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged" if fault == "damaged" else "no generator"):
        go(start=str(place))


def test_snapshots_are_generators_of_their_time(go, tmp_path):
    steady = {"schedule": "constant", "snapshot_every": 20}
    run = go(**steady)
    assert names(run.folder / "snapshots") == ["000000024", "000000040"]  # the first steps at or past 20 and 40
    early = open_generator(run.folder / "snapshots" / "000000024")
    assert images(early).shape == (2, 32, 32, 3)
    assert early.hash == go("short", schedule="constant", images=24).pipeline().hash != run.pipeline().hash
    assert (
        files(go("without", schedule="constant").folder)["unet/diffusion_pytorch_model.safetensors"]
        == (run.folder / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    )  # training was not touched
    assert not (tmp_path / "without" / "snapshots").exists()


def test_a_snapshot_can_be_started_from(go):
    run = go(snapshot_every=24)
    start = run.folder / "snapshots" / "000000024"
    assert go("on", start=str(start)).pipeline().hash != run.pipeline().hash


def stopping_at(moment):
    """A patch under which the run stops at 32 images: before it saves a snapshot, a checkpoint, or after both."""
    plain = loop.Trainer.save

    def save(self):
        if self.images_seen == 32 and moment == "before the checkpoint":
            raise Stopped
        plain(self)
        if self.images_seen == 32 and moment == "after the checkpoint":
            raise Stopped

    return patch.object(loop.Trainer, "save", save)


@pytest.mark.parametrize("moment", ["before the checkpoint", "after the checkpoint"])
def test_an_interrupted_run_keeps_the_same_snapshots(go, tmp_path, moment):
    whole = go("whole", snapshot_every=16)
    with stopping_at(moment), pytest.raises(Stopped):
        go("cut", snapshot_every=16)
    shutil.rmtree(tmp_path / "cut" / "snapshots" / "000000032" / "unet") if moment.startswith("before") else None
    cut = go("cut", snapshot_every=16)
    assert names(cut.folder / "snapshots") == ["000000016", "000000032", "000000048"]
    assert files(cut.folder) == files(whole.folder)
    last = open_generator(cut.folder / "snapshots" / "000000048")
    assert np.array_equal(images(last), images(cut.pipeline()))


def test_a_full_disk_while_a_snapshot_is_written(go, tmp_path, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patcher:
        patcher.setattr("equigen.diffusion.EquigenPipeline.save_pretrained", full)
        with pytest.raises(InputError, match="disk is full") as caught:
            go(snapshot_every=16)
    assert caught.value.problems[0].file == str(tmp_path / "g" / "snapshots" / "000000016")
    assert names(go(snapshot_every=16).folder / "snapshots") == ["000000016", "000000032", "000000048"]


def test_the_vocabulary_of_a_start_is_written_in_order(origin):
    """What the refusal of another order rests on."""
    written = json.loads((origin / "model_index.json").read_text())["vocabulary"]
    assert [name for name, _ in written] == list(open_generator(origin).words.fields)
