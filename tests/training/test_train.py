"""From a cohort to a generator folder, and everything that is refused before an image is encoded."""

import json
import shutil
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from generator_folder import files, images, names
from small_training import Stopped, stopping

from equigen.checkpoints import load_checkpoint
from equigen.diffusion import Vocabulary, open_generator
from equigen.errors import InputError
from equigen.files import read_json
from equigen.latents import cache, load_autoencoder
from equigen.training import Run, check_settings, loop, train
from equigen.training import datasets as sides
from equigen.training.datasets import cohort_groups, prepare_memory_splits

PERTURBATION = {"mechanism": "perturbation", "mechanism_settings": {"window_images": 16, "minimum": 1}}


def test_a_generator_folder(go, cohort, tmp_path):
    run = go()
    assert run == Run(tmp_path / "g", "g")
    record = read_json(run.folder / "training.json")
    assert record["images_seen"] == 48 and record["training_images"] == len(cohort.split("train"))
    assert record["processes"] == 1 and record["settings"]["mechanism"] == "none"
    assert record["generator"] == run.pipeline().hash and record["autoencoder"] == load_autoencoder().hash
    assert record["parameters"] == sum(p.numel() for p in run.pipeline().denoiser.parameters())
    history = pd.read_parquet(run.folder / "history.parquet")
    assert set(history["kind"]) == {"train", "learning_rate", "probe_train", "probe_heldout"}
    assert set(history.query("attribute == 'race'")["group"]) <= {"asian", "black", "white"}
    made = run.pipeline()
    assert made.words.fields == Vocabulary.from_cohort(cohort).fields and made.config["size"] == 32
    assert images(run.pipeline()).shape == (2, 32, 32, 3)


def test_the_generator_holds_the_averaged_weights_and_the_statistics(go, cohort, latents):
    run = go()
    tensors = load_checkpoint(run.folder / "checkpoint.safetensors")[0]
    made = run.pipeline()
    name = "unet.conv_in.weight"
    assert torch.equal(made.unet.conv_in.weight, tensors[f"average.{name}"])
    assert not torch.equal(made.unet.conv_in.weight, tensors[f"network.{name}"])
    sides = prepare_memory_splits(cohort, load_autoencoder(), latents, 32, show=False)
    assert made.config["latent_mean"] == sides.mean and made.config["latent_std"] == sides.std


def test_validation_and_test_images_never_reach_the_training_tensors(cohort, tmp_path, monkeypatch):
    """Each image is encoded as a constant that tells which it is."""
    place = {path: number for number, path in enumerate(cohort.frame["path"])}
    opened = []
    coder = load_autoencoder()

    def numbers(paths, size):
        opened.extend(place[path] for path in paths)
        return np.array([place[path] for path in paths])

    monkeypatch.setattr(cache, "load_images", numbers)
    monkeypatch.setattr(coder, "encode", lambda told: torch.tensor(told).view(-1, 1, 1, 1).expand(-1, 12, 4, 4).float())
    sides = prepare_memory_splits(cohort, coder, tmp_path, 32, show=False)
    rows = {name: np.flatnonzero(cohort.frame["split"] == name).tolist() for name in ("train", "val", "test")}
    assert rows["val"] and any(cohort.frame["domain"][rows["test"]] == "ood")
    assert sorted(opened) == sorted(rows["train"] + rows["val"])  # test images are not even opened
    mean, std = np.mean(rows["train"]), np.std(rows["train"], ddof=1)
    assert sides.mean[0] == pytest.approx(mean) and sides.std[0] == pytest.approx(std, rel=0.05)

    def told(side):
        return sorted(round(value) for value in (side.latents[:, 0, 0, 0] * sides.std[0] + sides.mean[0]).tolist())

    assert told(sides.train) == rows["train"] and told(sides.held_out) == rows["val"]
    expected = Vocabulary.from_cohort(cohort).encode(cohort.split("train").frame)
    assert torch.equal(sides.train.ids, expected)
    assert torch.equal(sides.train.index[:, 0], torch.from_numpy(cohort.split("train").groups("race")))
    assert sides.train.groups == cohort_groups(cohort)
    assert abs(sides.train.latents.mean()) < 1e-5


def test_the_trainer_gets_these_tensors_on_their_own_sides(go, cohort, latents):
    seen, plain = {}, loop.Trainer.run

    def watching(self, show):
        seen.update(train=self.data, probe=self.probes["probe_heldout"])
        plain(self, show)

    with patch.object(loop.Trainer, "run", watching):
        go()
    sides = prepare_memory_splits(cohort, load_autoencoder(), latents, 32, show=False)
    assert torch.equal(seen["train"].latents, sides.train.latents)
    assert len(sides.train.latents) == len(cohort.split("train"))
    held_out = {latent.numpy().tobytes() for latent in sides.held_out.latents}
    assert {latent.numpy().tobytes() for latent in seen["probe"].latents} <= held_out


@pytest.mark.parametrize("mechanism", [{}, PERTURBATION], ids=["none", "perturbation"])
def test_an_interrupted_training_ends_in_the_same_files(go, tmp_path, mechanism):
    whole = go("whole", **mechanism)
    with stopping(3), pytest.raises(Stopped):
        go("cut", **mechanism)
    assert names(tmp_path / "cut") == ["checkpoint.safetensors"]  # nothing that could be taken for a generator
    with pytest.raises(InputError, match="no generator"):
        open_generator(tmp_path / "cut")
    cut = go("cut", **mechanism)
    assert files(cut.folder) == files(whole.folder)
    assert np.array_equal(images(cut.pipeline()), images(whole.pipeline()))


def test_an_interruption_of_the_export_repeats_it(go, tmp_path):
    whole = files(go().folder)
    for name in ("training.json", "model_index.json"):
        (tmp_path / "g" / name).unlink()
    with stopping(0):  # no step is made again
        assert files(go().folder) == whole


def test_the_same_call_returns_at_once(go, tmp_path):
    before = files(go().folder)
    with patch.object(loop.Trainer, "run", lambda *_: pytest.fail("trained again")):
        assert files(go().folder) == before
        with pytest.raises(InputError, match="taken") as caught:
            go(images=56)
    assert caught.value.problems[0].file == str(tmp_path / "g")


def test_a_checkpoint_of_other_settings_is_refused(go, tmp_path):
    with stopping(3), pytest.raises(Stopped):
        go()
    kept = (tmp_path / "g" / "checkpoint.safetensors").read_bytes()
    for changes in ({"seed": 2}, {"learning_rate": 1e-4}, {"mechanism": "perturbation"}):
        with pytest.raises(InputError, match="other data or settings") as caught:
            go(**changes)
        assert "checkpoint.safetensors" in caught.value.problems[0].file
    assert (tmp_path / "g" / "checkpoint.safetensors").read_bytes() == kept


def test_a_checkpoint_of_another_cohort_is_refused(go, cohort):
    with stopping(3), pytest.raises(Stopped):
        go()
    with pytest.raises(InputError, match="other data or settings"):
        go(on=cohort.where(np.arange(len(cohort)) != 1))


def test_arguments_override_settings(cohort, latents, tmp_path, quick, small_preset, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = quick(mechanism_settings={"minimum": 1})
    run = train(cohort, "perturbation", 16, 7, settings=chosen, latents=latents, show=False)
    assert str(run.folder) == "generators/perturbation-seed7" and run.name == "perturbation-seed7"
    record = read_json(run.folder / "training.json")["settings"]
    assert (record["mechanism"], record["images"], record["seed"]) == ("perturbation", 16, 7)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"mechanism": "magic"}, "'magic' is not known"),
        ({"mechanism_settings": {"rho": 1}}, "'rho' is not known"),
        ({"mechanism": "perturbation", "mechanism_settings": {"sigma_max": -1}}, "sigma_max"),
        ({"size": 36}, "multiple of 8"),
        ({"accumulate": 3}, "batch 8 on 1 process in 3 parts"),
    ],
)
def test_what_is_refused_before_an_image_is_encoded(go, quick, cohort, monkeypatch, tmp_path, changes, match):
    monkeypatch.setattr(sides, "encode", lambda *_, **__: pytest.fail("encoded"))
    with pytest.raises(InputError, match=match):
        go(**changes)
    with pytest.raises(InputError, match=match):
        check_settings(quick(**changes), cohort, load_autoencoder())
    assert names(tmp_path) == []


def test_an_empty_training_split_is_refused_before_an_image_is_encoded(go, cohort, monkeypatch):
    monkeypatch.setattr(sides, "encode", lambda *_, **__: pytest.fail("encoded"))
    with pytest.raises(InputError, match="training split is empty"):
        go(on=cohort.split("val", "test"))


def test_a_cohort_without_validation_images(go, cohort):
    run = go(on=cohort.split("train", "test"))
    assert "probe_heldout" not in set(pd.read_parquet(run.folder / "history.parquet")["kind"])


def test_a_probe_that_cannot_steer_is_refused_before_the_first_step(go, tmp_path):
    with stopping(0), pytest.raises(InputError, match="cannot steer"):
        go(**{**PERTURBATION, "mechanism_settings": {"minimum": 1000}})
    assert not (tmp_path / "g").exists()


def test_a_full_disk_while_the_generator_is_written(go, tmp_path, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patcher:
        patcher.setattr("equigen.diffusion.EquigenPipeline.save_pretrained", full)
        with pytest.raises(InputError, match="disk is full"):
            go()
    assert not (tmp_path / "g" / "training.json").exists()
    assert images(go().pipeline()).shape == (2, 32, 32, 3)


def test_a_users_own_autoencoder(go, cohort, latents, tmp_path, quick):
    load_autoencoder().save(tmp_path / "own")
    shutil.copytree(tmp_path / "own", tmp_path / "renamed")
    run = train(
        cohort, settings=quick(), out=tmp_path / "o", latents=latents, autoencoder=tmp_path / "renamed", show=False
    )
    assert files(run.folder) == files(go().folder)  # what it is counts, not where it lies


def test_epsilon_is_kept_with_the_generator(go):
    run = go(prediction="epsilon")
    assert json.loads((run.folder / "scheduler" / "scheduler_config.json").read_text())["prediction_type"] == "epsilon"
    assert images(run.pipeline()).shape == (2, 32, 32, 3)


def test_losses_fall_on_phantoms(go):
    run = go(images=240, learning_rate=1e-2, probe_every=400, ema=0, checkpoint_every=400)
    history = pd.read_parquet(run.folder / "history.parquet").query("attribute == '*'")
    for kind in ("probe_train", "probe_heldout"):
        values = history[history["kind"] == kind]["value"].to_list()
        assert values[-1] < 0.8 * values[0]
