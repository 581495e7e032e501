"""Fine-tuning: a cohort and a text-to-image pipeline in, a folder that plain diffusers opens out."""

from __future__ import annotations

import json
from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file
from tiny_pipelines import clip_encoder, clip_tokenizer, old_habits, tiny_pixart, tiny_sd, tiny_sd3, tiny_sdxl

from equigen.cohort import Cohort, Manifest
from equigen.cohort.phantom import PhantomSettings, write_phantom
from equigen.diffusion import open_any_generator, solver
from equigen.errors import InputError
from equigen.synthesis import generate, plan
from equigen.training import TrainSettings, loop, train

PROMPTS = ["{sex} {race}: {glaucoma}", "{glaucoma}[, {sex}]"]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Sixty-four phantoms of 32 pixels with prompts that a small encoder can read to the end."""
    folder = write_phantom(tmp_path_factory.mktemp("told"), 64, 2, PhantomSettings(size=32), show=False)
    spec = yaml.safe_load((folder / "cohort.yaml").read_text())
    (folder / "cohort.yaml").write_text(yaml.safe_dump({**spec, "prompt": PROMPTS}))
    return Cohort.read(folder / "cohort.yaml", show_progress=False)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """bases(kind): the folder of a small pipeline, written once."""
    made, place = {}, tmp_path_factory.mktemp("bases")
    makers = {"sd": tiny_sd, "sd2": lambda folder: tiny_sd(folder, "v_prediction"), "sdxl": tiny_sdxl, "sd3": tiny_sd3,
              "pixart": tiny_pixart}  # fmt: skip

    def base(kind):
        if kind not in made:
            made[kind] = makers[kind](place / kind)
        return str(made[kind])

    return base


@pytest.fixture
def tune(told, bases, tmp_path):
    """tune(base, name, **settings): fine-tune on the phantoms for some steps of 8 images."""

    def run(base="sd", name="g", on=None, **changes):
        common = {
            "size": 32, "base": base and bases(base), "images": 32, "batch": 8, "warmup": 8, "ema": 16,
            "learning_rate": 1e-3, "probe_images": 8, "probe_every": 16, "log_every": 16, "checkpoint_every": 16,
            "mechanism": "balanced", "seed": 1,
        }  # fmt: skip
        settings = TrainSettings(**{**common, **changes})
        return train(on or told, settings=settings, out=tmp_path / name, latents=tmp_path / "latents", show=False)

    return run


def pixels(folder, count=3):
    return [np.asarray(Image.open(folder / f"images/{index:07d}.png")) for index in range(count)]


def asked(cohort, count=3):
    return plan(cohort, "match", count, seed=5, guidance=3.0, steps=4)


def plainly(pipeline, rows):
    """What plain diffusers gives for the rows of a plan, one by one."""
    pipeline.set_progress_bar_config(disable=True)
    images = []
    for row in rows.to_dict("records"):
        pipeline.scheduler = solver("dpm++", pipeline.scheduler)
        with old_habits():
            made = pipeline(
                row["prompt"],
                guidance_scale=row["guidance"],
                num_inference_steps=row["steps"],
                height=32,
                width=32,
                generator=torch.Generator().manual_seed(row["seed"]),
                output_type="np",
            )
        images.append((made.images[0] * 255).round().astype(np.uint8))
    return images


def near(first, second):
    return all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(first, second, strict=True))


def test_lora_weights_are_what_plain_diffusers_takes_and_give_the_same_images(tune, told, bases, tmp_path):
    run = tune("sd", mechanism="perturbation", mechanism_settings={"window_images": 16, "minimum": 1})
    made = generate(run, rows := asked(told), tmp_path / "set", show=False)
    plain = diffusers.StableDiffusionPipeline.from_pretrained(bases("sd"))
    before = plainly(plain, rows)
    plain = diffusers.StableDiffusionPipeline.from_pretrained(bases("sd"))
    plain.load_lora_weights(str(run.folder))
    after = plainly(plain, rows)
    assert near(pixels(made.folder), after)
    assert not near(before, after)
    record = json.loads((run.folder / "equigen.json").read_text())
    assert (record["kind"], record["size"], record["base"]) == ("lora", 32, bases("sd"))
    assert record["equity"]["mechanism"] == "perturbation"
    assert json.loads((run.folder / "training.json").read_text())["generator"] == run.pipeline().hash
    assert set(made.frame["generator"]) == {run.pipeline().hash}


def test_a_whole_network_is_a_plain_folder_and_gives_the_same_images(tune, told, bases, tmp_path):
    run = tune("sd2", tune="unet")
    made = generate(run, rows := asked(told), tmp_path / "set", show=False)
    plain = diffusers.StableDiffusionPipeline.from_pretrained(run.folder)
    assert near(pixels(made.folder), plainly(plain, rows))
    base = diffusers.StableDiffusionPipeline.from_pretrained(bases("sd2"))
    assert equal(plain.text_encoder, base.text_encoder)
    assert not equal(plain.unet, base.unet)
    fresh = diffusers.StableDiffusionPipeline.from_pretrained(run.folder)
    assert type(fresh.scheduler) is type(base.scheduler) is diffusers.DDIMScheduler


def equal(first, second):
    theirs = second.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in first.state_dict().items())


def test_the_text_encoder_is_trained_where_asked(tune, bases):
    run = tune("sd", tune="unet+text")
    plain, base = (diffusers.StableDiffusionPipeline.from_pretrained(place) for place in (run.folder, bases("sd")))
    assert not equal(plain.text_encoder, base.text_encoder)


@pytest.mark.parametrize(("kind", "how"), [("sdxl", "lora"), ("sd3", "lora"), ("sd3", "unet"), ("pixart", "unet")])
def test_other_families_are_trained_and_opened_alike(tune, told, tmp_path, kind, how):
    run = tune(kind, tune=how, mechanism="group_dro", min_snr=5.0, accumulate=2)
    made = generate(run, asked(told), tmp_path / "set", show=False)
    assert len(made) == 3
    assert pixels(made.folder)[0].std() > 0


@pytest.mark.parametrize("how", ["lora", "unet+text"])
def test_a_run_that_is_cut_and_goes_on_ends_with_the_same_weights(tune, monkeypatch, how):
    whole = tune("sd", "whole", tune=how)

    class Cut(Exception):
        pass

    save = loop.Trainer.save

    def cut(trainer):
        save(trainer)
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "save", cut)
        with pytest.raises(Cut):
            tune("sd", "cut", tune=how)
    again = tune("sd", "cut", tune=how)
    for file in whole.folder.rglob("*.safetensors"):
        if "checkpoint" not in file.name:
            mine, theirs = load_file(file), load_file(again.folder / file.relative_to(whole.folder))
            assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
    kept = set(load_file(whole.folder / "checkpoint.safetensors"))
    assert any("lora" in name for name in kept) is (how == "lora")
    if how == "lora":  # the frozen base is in no checkpoint
        assert all("lora" in name for name in kept if name.startswith("network."))


def test_training_goes_on_from_lora_weights_and_from_a_whole_network(tune, told):
    first = tune("sd", "first")
    on = tune("sd", "on", start=str(first.folder), learning_rate=1e-12, ema=0)
    mine, theirs = (load_file(run.folder / "pytorch_lora_weights.safetensors") for run in (on, first))
    assert all(torch.allclose(value, theirs[name], atol=1e-6) for name, value in mine.items())
    with pytest.raises(InputError, match="another rank"):
        tune("sd", "other", start=str(first.folder), rank=4)
    whole = tune("sd", "whole", tune="unet")
    further = tune("sd", "further", tune="unet", start=str(whole.folder), learning_rate=1e-12, ema=0)
    unets = [diffusers.UNet2DConditionModel.from_pretrained(run.folder / "unet") for run in (whole, further)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*(unet.parameters() for unet in unets), strict=True))


def test_snapshots_and_grids_show_a_training_on_the_way(tune):
    run = tune("sd", snapshot_every=16, grid_every=32, best="worst_group")
    kept = open_any_generator(run.folder / "snapshots/000000016", "cpu")
    assert kept.hash != run.pipeline("cpu").hash
    grids = sorted(path.name for path in run.folder.rglob("*.png"))
    assert any("female" in name for name in grids)
    assert len({path.parent.name for path in run.folder.rglob("*.png")} | set(grids)) > 3


def test_from_scratch_around_a_text_encoder_with_the_shipped_autoencoder(tune, told, tmp_path):
    clip_encoder(3).save_pretrained(tmp_path / "clip")
    clip_tokenizer().save_pretrained(tmp_path / "clip")
    chosen = {"text_encoder": str(tmp_path / "clip"), "preset": "tiny", "mechanism": "none"}
    with pytest.raises(InputError, match="use a multiple of 64"):  # before any training
        tune(None, "small", **chosen)
    run = tune(None, size=64, **chosen)
    made = generate(run, asked(told), tmp_path / "set", show=False)
    assert pixels(made.folder)[0].shape == (64, 64, 3)
    assert run.pipeline("cpu").latent_side == 8  # decoded by the autoencoder itself: diffusers does not know its blocks


def test_latents_on_the_disk_and_a_manifest_give_the_same_training(tune, told, tmp_path):
    told.save(tmp_path / "saved")
    manifest = Manifest.load(tmp_path / "saved")
    runs = [tune("sd", "memory"), tune("sd", "disk", store="disk"), tune("sd", "large", on=manifest, store="disk")]
    first, *others = (load_file(run.folder / "pytorch_lora_weights.safetensors") for run in runs)
    assert all(torch.equal(value, other[name]) for other in others for name, value in first.items())
    with pytest.raises(InputError, match="set store: disk"):
        tune("sd", "wrong", on=manifest)


def test_the_key_tells_trainings_apart_and_a_finished_one_is_not_done_again(tune, bases):
    first = tune("sd")
    written = (first.folder / "training.json").stat().st_mtime_ns
    assert tune("sd").folder == first.folder
    assert (first.folder / "training.json").stat().st_mtime_ns == written
    with pytest.raises(InputError, match="other data or settings"):
        tune("sd2")


@pytest.mark.parametrize(("changes", "words"), [
    ({"preset": "base"}, "preset and prediction are the base's own"),
    ({"text_encoder": "minilm"}, "give one of the two"),
    ({"base": None, "tune": "lora"}, "give base or text_encoder"),
    ({"base": None, "text_encoder": "minilm", "tune": "lora"}, "LoRA goes into a trained network"),
    ({"tune": "unet", "rank": 4}, "rank and alpha are LoRA's"),
])  # fmt: skip
def test_settings_that_do_not_go_together_are_refused(changes, words):
    with pytest.raises(ValidationError, match=words):
        TrainSettings(**{"base": "somewhere", **changes})


def test_bad_input_is_named_before_any_work(tune, told, tmp_path, phantom_cohort):
    with pytest.raises(InputError, match="multiple of"):
        tune("sd", size=30)
    mute = replace(phantom_cohort, spec=phantom_cohort.spec.model_copy(update={"prompt": None}))
    with pytest.raises(InputError, match="no prompts to train on"):
        tune("sd", on=mute)
    with pytest.raises(InputError, match="no-such-folder"):
        train(told, settings=TrainSettings(base="no-such-folder/x/y", size=32), out=tmp_path / "x", show=False)
