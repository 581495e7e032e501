"""A comparison of a base: every mechanism goes on from its own pretraining, by LoRA and in full, no work twice."""

import copy
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from test_comparison_run import ComparisonFolder
from tiny_pipelines import tiny_sd

from equigen.cohort import Cohort
from equigen.comparison import comparison as module
from equigen.comparison import context
from equigen.comparison.job_file import TrainStep
from equigen.diffusion import open_any_generator
from equigen.errors import InputError
from equigen.training import TrainSettings

MEMBERS = [f"{setting}/{name}-seed0" for setting in ("lora", "whole") for name in ("pretrained", "none", "equal")]
LORA = "pytorch_lora_weights.safetensors"


def text_comparison(data, place):
    folder = ComparisonFolder(data, place)
    folder.values |= {
        "train": {"base": "sd", "images": 8, "batch": 8, "probe_images": 8, "warmup": 8, "ema": 16,
                  "learning_rate": 1e-3},
        "pretrain": {"images": 16},
        "settings": {"lora": {"rank": 2}, "whole": {"tune": "unet"}},
        "seeds": [0], "plans": {"all": {"policy": "match", "size": 40, "steps": 1}}, "curve": None,
    }  # fmt: skip
    folder.values["cohort"] = {**copy.deepcopy(folder.values["cohort"]), "prompt": "A {sex} patient with {glaucoma}"}
    tiny_sd(place / "sd")
    return folder


@pytest.fixture(scope="module")
def done(phantom_folder, tmp_path_factory):
    """Run to its end once. Read only."""
    folder = text_comparison(phantom_folder, tmp_path_factory.mktemp("text-comparison"))
    assert set(folder.run()) == {"latents", *MEMBERS}
    return folder


@pytest.fixture
def copied(done, phantom_folder, tmp_path):
    folder = text_comparison(phantom_folder, tmp_path)
    shutil.copytree(done.out, folder.out)
    return folder


def weights(folder, name):
    place = folder.out / "generators" / name
    return load_file(place / (LORA if "lora/" in name else "unet/diffusion_pytorch_model.safetensors"))


def test_mechanisms_go_on_from_their_pretraining_by_lora_and_in_full(done):
    assert len(set(done.hashes().values())) == 6
    assert set(done.read("quality/contest.parquet")["setting"]) == {"lora", "whole"}
    for setting in ("lora", "whole"):
        assert done.settings(f"{setting}/equal-seed0")["start"].endswith(f"{setting}/pretrained-seed0")
        first, none, equal = (weights(done, f"{setting}/{name}-seed0") for name in ("pretrained", "none", "equal"))
        far = [sum(float((side[key] - first[key]).square().sum()) for key in first) for side in (none, equal)]
        assert min(far) > 0 and not all(torch.equal(none[key], equal[key]) for key in none)
    made = done.read("synthetic/lora/equal-seed0/all-g1/synthetic.parquet")
    generator = open_any_generator(done.out / "generators/lora/equal-seed0", "cpu")
    assert set(made["generator"]) == {generator.hash} and len(made) == 40
    page = done.page.read_text()
    assert "sd, lora" in page and "whole" in page


def test_latents_are_of_the_bases_own_autoencoder(done):
    folders = {path.parent.name for path in (done.out / "latents").rglob("shard-*")}
    record = json.loads((done.out / "generators/lora/none-seed0/training.json").read_text())
    assert folders == {f"{record['autoencoder']}-32"}


def test_again_nothing_is_done_though_all_is_opened_anew(done, monkeypatch):
    context._hashes.clear()
    monkeypatch.setattr(module, "measure", None)
    assert done.run() == []
    assert 0 < len(context._hashes) <= 5  # in full, no seed draws a weight


def test_other_weights_of_the_base_are_other_trainings(copied):
    """The run lies elsewhere, and so does its base; only weights count."""
    keys = {name: json.loads((copied.out / "generators" / name / "training.json").read_text())["key"]
            for name in ("lora/pretrained-seed0", "whole/pretrained-seed0")}  # fmt: skip
    for seed, same in ((0, True), (5, False)):
        shutil.rmtree(copied.place / "sd")
        tiny_sd(copied.place / "sd", seed=seed)
        cohort = Cohort.load(copied.out / "cohort")
        job_context = context.JobContext(copied.out, cohort, str(copied.place / "sd"), 32)
        for name, key in keys.items():
            settings = {**copied.settings(name), "base": str(copied.place / "sd")}
            step = TrainStep(stage=f"generators/{name}", settings=TrainSettings(**settings))
            assert context.is_trained(job_context, step) is same
            assert (context._training_key(job_context, step) == key) is same


@pytest.mark.parametrize(("changes", "words"), [
    ({"guidance": [0.5]}, "plans.all: guidance 0.5 (use 1 or more"),
    ({"pretrain": {"images": 16, "rank": 4}}, "settings.lora: rank is 2 in train and 4 in pretrain"),
    ({"settings": {"a": {}}, "pretrain": {"tune": "unet"}}, "settings.a: tune is lora in train and unet in pretrain"),
    ({"train.base": "nobody/nothing/here"}, "train.base: is no folder"),
    ({"settings.lora": {"rank": 2, "size": 30}}, "settings.lora.size is set elsewhere"),
    ({"autoencoder": "shipped"}, "autoencoder: a base has its own"),
    ({"plans": {"all": {"policy": "counterfactual", "attribute": "sex"}}, "calibrate": {"attribute": "sex"}},
     "plans.all: its pairs are to differ in sex alone, and calibrate.attribute would give them guidance of their own"),
    ({"plans.all.solver": "heun"}, "plans.all: solver 'heun' is unknown"),
    ({"cohort.prompt": None}, "train: has no 'prompt'"),
])  # fmt: skip
def test_what_does_not_fit_a_base_is_refused_before_the_first_job(phantom_folder, tmp_path, changes, words):
    folder = text_comparison(phantom_folder, tmp_path)
    folder.values["settings"] = {"lora": {"rank": 2}}
    with pytest.raises(InputError) as caught:
        folder.run(changes)
    assert words in str(caught.value)
    assert not (folder.out / "generators").exists() and not (folder.out / "latents").exists()
